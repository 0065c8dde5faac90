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
    PeerFacts,
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


def test_a_swarm_that_is_well():
    facts = SwarmFacts(
        state="active",
        helpers=(HelperFacts("keeper", True, True, "l"), HelperFacts("resolver", False, False, "l")),
        managers=(ManagerFacts(address="10.0.0.1:2377"),),
        peers=(PEER,),
    )
    assert not bad(examine_swarm(facts))


@pytest.mark.parametrize(
    ("facts", "text", "remedy"),
    [
        ({"state": "locked"}, "locked", "unlock"),
        ({"state": "active", "error": "no leader"}, "active: no leader", "log"),
        ({"helpers": (HelperFacts("keeper", False, True, "/k.log"),)}, "does not run", "/k.log"),
        ({"managers": (ManagerFacts("10.0.0.1:2400", "Connection refused"),)}, "refused", "TCP port 2400"),
        ({"peers": (replace(PEER, answers=False),)}, "no answer over VXLAN (UDP port 4790)", "between 10.0.0.1 and"),
        ({"peers": (replace(PEER, carries_whole=False),)}, "packets of 1450 bytes", "MTU"),
        ({"peers": (replace(PEER, skew_ms=-9000),)}, "9.0 s behind", "chrony"),
        ({"peers": (replace(PEER, refusal="port is taken"),)}, "port is taken", "log"),
    ],
)
def test_what_is_wrong_with_a_swarm(facts, text, remedy):
    findings = examine_swarm(SwarmFacts(data_path_port=4790, own_address="10.0.0.1", **facts))
    (finding,) = bad(findings)
    assert finding.level == PROBLEM
    assert text in finding.text
    assert remedy in finding.remedy
