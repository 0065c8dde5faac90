"""From facts to findings: what is good says nothing to do, what is wrong says what."""

import re

import pytest

from shoal.core.diagnosis import (
    BRIDGE,
    EGRESS_HOOK,
    NAMESPACES,
    NEEDED,
    PACKAGES,
    TUN,
    WIREGUARD,
    examine_machine,
    examine_swarm,
    is_good,
)
from shoal.model.base import replace
from shoal.model.diagnosis import (
    GOOD,
    NOTE,
    PROBLEM,
    HelperFacts,
    Leftover,
    MachineFacts,
    ManagerFacts,
    PathFacts,
    PeerFacts,
    SecretPeerFacts,
    SwarmFacts,
)

GOOD_MACHINE = MachineFacts(
    is_root=True,
    programs={**dict.fromkeys(PACKAGES, True), "wg": True, "wireguard-go": True},
    features={**dict.fromkeys(NEEDED, ""), EGRESS_HOOK: "", WIREGUARD: "Operation not supported", TUN: ""},
)
PEER = PeerFacts(node_number=2, address="10.0.0.2", answers=True, carries_whole=True, mtu_bytes=1450, skew_ms=3)


def bad(findings):
    return [finding for finding in findings if finding.level != GOOD]


def test_a_good_machine_has_nothing_to_do():
    findings = examine_machine(GOOD_MACHINE)
    assert is_good(findings)
    assert not bad(findings)
    assert all(not finding.remedy for finding in findings)


@pytest.mark.parametrize(
    ("change", "level", "text", "remedy"),
    [
        ({"is_root": False}, PROBLEM, "not root", "run as root"),
        ({"programs": {**GOOD_MACHINE.programs, "nft": False}}, PROBLEM, "not on the PATH", "install.* nftables"),
        ({"features": {**GOOD_MACHINE.features, BRIDGE: "Not supported"}}, PROBLEM, "Not supported", "bridge"),
        ({"features": {**GOOD_MACHINE.features, EGRESS_HOOK: "no"}}, NOTE, "one rule a node", "5.16"),
        ({"programs": dict.fromkeys(PACKAGES, True)}, NOTE, "cannot be", "wireguard-tools wireguard-go"),
        ({"features": {**GOOD_MACHINE.features, TUN: "no"}}, NOTE, "cannot be", "modprobe"),
        (
            {"leftovers": tuple(Leftover(owner="x", what=f"the {n}", removal=f"r{n}") for n in (1, 2))},
            PROBLEM,
            "daemon x, but the 1, the 2",
            "r1; r2",
        ),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_machine(change, level, text, remedy):
    (finding,) = bad(examine_machine(replace(GOOD_MACHINE, **change)))
    assert finding.level == level
    assert text in finding.text
    assert re.search(remedy, finding.remedy)
    assert is_good((finding,)) == (level == NOTE)


def test_features_that_could_not_be_tried_are_not_told():
    findings = examine_machine(replace(GOOD_MACHINE, features={NAMESPACES: "Operation not permitted"}))
    assert [finding.check for finding in bad(findings)] == ["kernel network namespaces", "encrypted networks"]


def test_a_kernel_with_wireguard_needs_no_program():
    kernel = replace(GOOD_MACHINE, programs={**GOOD_MACHINE.programs, "wireguard-go": False})
    kernel = replace(kernel, features={**kernel.features, WIREGUARD: ""})
    assert "the kernel's WireGuard" in examine_machine(kernel)[-2].text


def to_peer(**changes):
    return {"paths": PathFacts(port=4790, peers=(replace(PEER, **changes),))}


def in_secret(**changes):
    peer = SecretPeerFacts(node_number=2, address="10.0.0.2", port=7000, mtu_bytes=1420)
    return {"paths": PathFacts(secret_peers=(replace(peer, **changes),))}


def test_a_port_of_encrypted_networks_that_is_taken_is_noted():
    facts = SwarmFacts(paths=PathFacts(secret_port=7000, secret_refusal="another program has it"))
    (finding,) = bad(examine_swarm(facts))
    assert finding.level == NOTE
    assert "UDP port 7000: another program has it" in finding.text
    assert "--wireguard-port" in finding.remedy


def test_a_swarm_that_is_well():
    facts = SwarmFacts(
        state="active",
        helpers=(HelperFacts("keeper", True, True, "l"), HelperFacts("resolver", False, False, "l")),
        managers=(ManagerFacts(address="10.0.0.1:2377"),),
        paths=PathFacts(peers=(PEER,), secret_peers=in_secret(answers=True, carries_whole=True)["paths"].secret_peers),
    )
    assert not bad(examine_swarm(facts))


@pytest.mark.parametrize(
    ("facts", "text", "remedy"),
    [
        ({"state": "locked"}, "locked", "unlock"),
        ({"state": "active", "error": "no leader"}, "active: no leader", "log"),
        ({"helpers": (HelperFacts("keeper", False, True, "/k.log"),)}, "does not run", "/k.log"),
        ({"managers": (ManagerFacts("10.0.0.1:2400", "Connection refused"),)}, "refused", "TCP port 2400"),
        (to_peer(answers=False), "no answer over VXLAN (UDP port 4790)", "between 10.0.0.1 and"),
        (to_peer(carries_whole=False), "packets of 1450 bytes", "MTU"),
        (to_peer(skew_ms=-9000), "9.0 s behind", "chrony"),
        (to_peer(refusal="port is taken"), "port is taken", "log"),
        (in_secret(has_key=False), "has announced no key", "shoal doctor there"),
        (in_secret(), "no answer through WireGuard (UDP port 7000)", "UDP ports 7000 and 51820 between 10.0.0.1 and"),
        (in_secret(answers=True), "packets of 1420 bytes", "MTU"),
    ],
)
def test_what_is_wrong_with_a_swarm(facts, text, remedy):
    findings = examine_swarm(SwarmFacts(own_address="10.0.0.1", **facts))
    (finding,) = bad(findings)
    assert finding.level == PROBLEM
    assert text in finding.text
    assert remedy in finding.remedy
