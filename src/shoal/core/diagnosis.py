"""From facts of a machine and a swarm to findings: what is good, what is wrong, and what to do about it."""

from __future__ import annotations

from collections.abc import Iterator

from shoal.model.diagnosis import (
    GOOD,
    NOTE,
    PROBLEM,
    Finding,
    HelperFacts,
    Leftover,
    MachineFacts,
    ManagerFacts,
    PathFacts,
    PeerFacts,
    SecretPeerFacts,
    SwarmFacts,
)

SKEW_MOST_MS = 5_000
NAMESPACES, VETH, BRIDGE, VXLAN = "network namespaces", "veth", "bridge", "vxlan"
NFTABLES, EGRESS_HOOK, OVERLAYFS, TUN, WIREGUARD = "nftables", "egress hook", "overlayfs", "tun", "wireguard"
WIREGUARD_TOOL, WIREGUARD_PROGRAM = "wg", "wireguard-go"
# what a node cannot be without, and what to do
NEEDED = {
    NAMESPACES: "run a kernel with CONFIG_NET_NS",
    VETH: "modprobe veth, or a kernel with CONFIG_VETH",
    BRIDGE: "modprobe bridge, or a kernel with CONFIG_BRIDGE",
    VXLAN: "modprobe vxlan, or a kernel with CONFIG_VXLAN",
    NFTABLES: "modprobe nft_chain_nat nft_numgen nft_fib_ipv4, or a kernel with CONFIG_NF_TABLES, NFT_NAT, NFT_NUMGEN",
    OVERLAYFS: "modprobe overlay, or a kernel with CONFIG_OVERLAY_FS",
}
PACKAGES = {"nft": "nftables", "runc": "runc", "skopeo": "skopeo"}


def examine_machine(facts: MachineFacts) -> tuple[Finding, ...]:
    """Return what there is to say of a machine."""
    return (
        _root(facts),
        *(_program(name, facts.programs.get(name, False)) for name in PACKAGES),
        *(_feature(name, facts.features[name]) for name in NEEDED if name in facts.features),
        *_egress_hook(facts),
        _encryption(facts),
        *_leftovers(facts.leftovers),
    )


def examine_swarm(facts: SwarmFacts) -> tuple[Finding, ...]:
    """Return what there is to say of a daemon's part in the swarm."""
    return (
        *_membership(facts),
        *(_helper(helper) for helper in facts.helpers),
        *(_manager(manager) for manager in facts.managers),
        *(finding for peer in facts.paths.peers for finding in _peer(peer, facts)),
        *_secret_port(facts.paths),
        *(_secret_peer(peer, facts) for peer in facts.paths.secret_peers),
    )


def is_good(findings: tuple[Finding, ...]) -> bool:
    """Whether there is no problem."""
    return all(finding.level != PROBLEM for finding in findings)


def _root(facts: MachineFacts) -> Finding:
    if facts.is_root:
        return Finding(check="root", level=GOOD, text="runs as root")
    text = "not root: shoald makes namespaces, mounts and cgroups, and most checks here need it, too"
    return Finding(check="root", level=PROBLEM, text=text, remedy="run as root")


def _program(name: str, is_there: bool) -> Finding:
    if is_there:
        return Finding(check=f"program {name}", level=GOOD, text="is installed")
    remedy = f"apt-get install --no-install-recommends {PACKAGES[name]}"
    return Finding(check=f"program {name}", level=PROBLEM, text="is not on the PATH", remedy=remedy)


def _feature(name: str, refusal: str) -> Finding:
    if not refusal:
        return Finding(check=f"kernel {name}", level=GOOD, text="works")
    return Finding(check=f"kernel {name}", level=PROBLEM, text=f"is refused: {refusal}", remedy=NEEDED[name])


def _egress_hook(facts: MachineFacts) -> Iterator[Finding]:
    refusal = facts.features.get(EGRESS_HOOK)
    if refusal is None:
        return
    check = f"kernel {EGRESS_HOOK}"
    if not refusal:
        yield Finding(check=check, level=GOOD, text="works")
    else:
        text = "is missing: replies through other nodes find their way by one rule a node, searched one after another"
        yield Finding(check=check, level=NOTE, text=text, remedy="run Linux 5.16 or newer in a swarm of many nodes")


def _encryption(facts: MachineFacts) -> Finding:
    check = "encrypted networks"
    has_kernel = facts.features.get(WIREGUARD) == ""
    has_program = facts.programs.get(WIREGUARD_PROGRAM, False) and facts.features.get(TUN) == ""
    missing = [] if facts.programs.get(WIREGUARD_TOOL, False) else ["wireguard-tools"]
    if not has_kernel and not facts.programs.get(WIREGUARD_PROGRAM, False):
        missing.append("wireguard-go")
    if not missing and (has_kernel or has_program):
        way = "the kernel's WireGuard" if has_kernel else f"{WIREGUARD_PROGRAM}, as the kernel has no WireGuard"
        return Finding(check=check, level=GOOD, text=f"work, by {way}")
    remedy = f"for --opt encrypted: apt-get install --no-install-recommends {' '.join(missing)}"
    if not missing:
        remedy = "for --opt encrypted: modprobe wireguard or tun, or make /dev/net/tun"
    return Finding(check=check, level=NOTE, text="cannot be carried by this node", remedy=remedy)


def _leftovers(leftovers: tuple[Leftover, ...]) -> Iterator[Finding]:
    if not leftovers:
        yield Finding(check="leftovers", level=GOOD, text="nothing of a daemon that is gone")
    for owner in dict.fromkeys(leftover.owner for leftover in leftovers):
        found = [leftover for leftover in leftovers if leftover.owner == owner]
        yield Finding(
            check="leftovers",
            level=PROBLEM,
            text=f"no process is left of the daemon {owner}, but {', '.join(leftover.what for leftover in found)}",
            remedy="start that shoald again, which takes them up; or, if it is to stay gone: "
            + "; ".join(leftover.removal for leftover in found),
        )


def _membership(facts: SwarmFacts) -> Iterator[Finding]:
    if facts.error:
        remedy = "see the findings below and the log of shoald"
        yield Finding(check="swarm", level=PROBLEM, text=f"{facts.state}: {facts.error}", remedy=remedy)
    elif facts.state == "locked":
        text = "this manager is locked and takes no part"
        yield Finding(check="swarm", level=PROBLEM, text=text, remedy="docker swarm unlock")
    elif facts.state:
        yield Finding(check="swarm", level=GOOD, text=facts.state)


def _helper(helper: HelperFacts) -> Finding:
    if helper.is_alive:
        return Finding(check=helper.name, level=GOOD, text="is alive")
    if not helper.is_wanted:
        return Finding(check=helper.name, level=GOOD, text="does not run, as there is nothing for it to do")
    remedy = f"shoald starts it again by itself: if it does not come, see {helper.log}"
    return Finding(check=helper.name, level=PROBLEM, text="does not run", remedy=remedy)


def _manager(manager: ManagerFacts) -> Finding:
    check = f"manager {manager.address}"
    if not manager.refusal:
        return Finding(check=check, level=GOOD, text="accepts connections")
    port = manager.address.rpartition(":")[2]
    remedy = f"start shoald there, or let firewalls pass TCP port {port} from all nodes to managers"
    text = f"cannot be reached from here: {manager.refusal}"
    return Finding(check=check, level=PROBLEM, text=text, remedy=remedy)


def _between(facts: SwarmFacts, address: str) -> str:
    return f"between {facts.own_address or 'this node'} and {address}"


def _peer(peer: PeerFacts, facts: SwarmFacts) -> Iterator[Finding]:
    check = f"data path to node {peer.node_number} ({peer.address})"
    port = facts.paths.port
    between = _between(facts, peer.address)
    if peer.refusal:
        text = f"cannot be looked at: {peer.refusal}"
        yield Finding(check=check, level=PROBLEM, text=text, remedy="see the log of shoald on this node")
        return
    if not peer.answers:
        text = f"no answer over VXLAN (UDP port {port}): tasks there are not reached from here, or cannot answer"
        remedy = f"start that node, or let firewalls pass UDP port {port} both ways {between}"
        yield Finding(check=check, level=PROBLEM, text=text, remedy=remedy)
        return
    if peer.carries_whole:
        yield Finding(check=check, level=GOOD, text=f"answers, with packets of {peer.mtu_bytes} bytes, too")
    else:
        yield Finding(
            check=check,
            level=PROBLEM,
            text=f"answers, but packets of {peer.mtu_bytes} bytes within VXLAN get lost: long answers will hang",
            remedy=f"the path {between} carries less than its links say: set their MTU to what it carries",
        )
    if peer.skew_ms is not None and abs(peer.skew_ms) > SKEW_MOST_MS:
        text = f"its clock is {abs(peer.skew_ms) / 1000:.1f} s {'ahead of' if peer.skew_ms > 0 else 'behind'} this one"
        remedy = "run a time service (chrony, systemd-timesyncd) on both: certificates and logs rely on it"
        yield Finding(check=f"clock of node {peer.node_number}", level=PROBLEM, text=text, remedy=remedy)


def _secret_port(paths: PathFacts) -> Iterator[Finding]:
    if paths.secret_refusal:
        yield Finding(
            check="port of encrypted networks",
            level=NOTE,
            text=f"nothing can listen on UDP port {paths.secret_port}: {paths.secret_refusal}",
            remedy="end the program that has it (ss -ulpn), or start shoald with another --wireguard-port",
        )


def _secret_peer(peer: SecretPeerFacts, facts: SwarmFacts) -> Finding:
    check = f"encrypted path to node {peer.node_number} ({peer.address})"
    between = _between(facts, peer.address)
    if not peer.has_key:
        text = "that node has announced no key: its tasks on encrypted networks are not reached"
        return Finding(check=check, level=PROBLEM, text=text, remedy="run shoal doctor there: it says what is missing")
    if not peer.answers:
        text = f"no answer through WireGuard (UDP port {peer.port}): its tasks on encrypted networks are not reached"
        remedy = f"let firewalls pass UDP ports {peer.port} and {facts.paths.secret_port} {between}"
        return Finding(check=check, level=PROBLEM, text=text, remedy=remedy)
    if not peer.carries_whole:
        text = f"answers, but packets of {peer.mtu_bytes} bytes within WireGuard get lost: long answers will hang"
        remedy = f"the path {between} carries less than its links say: set their MTU to what it carries"
        return Finding(check=check, level=PROBLEM, text=text, remedy=remedy)
    return Finding(check=check, level=GOOD, text=f"answers, with packets of {peer.mtu_bytes} bytes, too")
