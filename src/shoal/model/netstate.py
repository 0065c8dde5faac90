"""What a node's kernel should hold: a pure function of the store, sent over the session (architecture.md 4.5).

Addresses are plain text without a mask unless a name says CIDR; lists of them have IPv4 first, then IPv6.
"""

from __future__ import annotations

from shoal.model.base import Struct

# UDP, unless shoald is told another
WIREGUARD_PORT = 51820


class Backend(Struct):
    """A task with an address in the mesh; `node_number` says through which node it is reached."""

    task_id: str
    address: str
    node_number: int


class IngressPort(Struct):
    """A port every node answers on (`protocol` tcp, udp or sctp), and the running tasks behind it.

    `affinity`: random (in turn), source (a client's address stays with a task) or prefer-local. `policy`: cluster
    (every node answers) or local (only with the tasks of the node itself).
    """

    protocol: str
    published_port: int
    target_port: int
    service_id: str
    backends: tuple[Backend, ...] = ()
    affinity: str = "random"
    policy: str = "cluster"


class IngressState(Struct):
    """The whole routing mesh at `version` (a raft index).

    `endpoints`: every task that has an address in the mesh and a node, whether or not traffic is to begin there: flows
    to one that is on its way out live on. `encrypted`: between nodes through WireGuard only.
    """

    version: int = 0
    ports: tuple[IngressPort, ...] = ()
    endpoints: tuple[Backend, ...] = ()
    encrypted: bool = False


class Peer(Struct):
    """Another node (or this one): where packets for its tasks go.

    `wireguard_key`: public, base64; empty: it can carry no encrypted network. `wireguard_port`: UDP, where it listens
    for these.
    """

    node_number: int
    address: str
    wireguard_key: str = ""
    wireguard_port: int = WIREGUARD_PORT


class DataPath(Struct):
    """The nodes of the swarm, and the UDP port that carries VXLAN between them.

    `key_generation`: a node whose key in encrypted networks is of an earlier one is to make another.
    """

    port: int = 4789
    peers: tuple[Peer, ...] = ()
    key_generation: int = 0


class OverlayEndpoint(Struct):
    """A task on an overlay network. `name`: of its container. `aliases`: further names of this endpoint alone.

    `serving`: it runs, is healthy and is wanted to: names and balancing lead to it. Others are only reached.
    """

    task_id: str
    name: str
    addresses: tuple[str, ...]
    node_number: int
    aliases: tuple[str, ...] = ()
    serving: bool = False


class OverlayService(Struct):
    """A service on an overlay network, and its tasks there.

    `names`: its own and its aliases. `virtual_ips`: empty for dnsrr. `affinity`: as of a port of the mesh. A container
    of nobody's service has an entry of its own: its id as `service_id`, and no names.
    """

    service_id: str
    names: tuple[str, ...] = ()
    virtual_ips: tuple[str, ...] = ()
    affinity: str = "random"
    endpoints: tuple[OverlayEndpoint, ...] = ()


class Overlay(Struct):
    """An overlay network, without what is on it. `subnets` are CIDR; `mtu_bytes` 0: as the path allows.

    `internal`: no way out. `encrypted`: between nodes through WireGuard only. `parent`: containers have a macvlan of
    this `mode` on a link of the host instead of a port of a bridge, and the network's gateway is theirs.
    """

    network_id: str
    name: str
    vni: int
    subnets: tuple[str, ...] = ()
    gateways: tuple[str, ...] = ()
    mtu_bytes: int = 0
    internal: bool = False
    encrypted: bool = False
    parent: str = ""
    mode: str = ""


class OverlayUpdate(Struct):
    """An overlay network and what has changed on it. `complete`: these services are all; else a difference."""

    overlay: Overlay
    complete: bool = False
    services: tuple[OverlayService, ...] = ()
    removed_service_ids: tuple[str, ...] = ()


class NetworkChange(Struct):
    """What leads a node's network to `version` (a raft index; it never falls). None: as it was.

    `complete`: overlays that are not named are gone from the node.
    """

    version: int
    ingress: IngressState | None = None
    data_path: DataPath | None = None
    overlays: tuple[OverlayUpdate, ...] = ()
    removed_network_ids: tuple[str, ...] = ()
    complete: bool = False


class HostPort(Struct):
    """A port published on the task's own node only (`mode=host`); `published_port` is settled before this is made.

    `host_address`: of the node, where the port is published there only.
    """

    protocol: str
    published_port: int
    target_port: int
    host_address: str = ""


class LinkOptions(Struct):
    """What was asked of one link of a container: its name (empty: ethN), and settings of it.

    A setting is a path below /proc/sys in which the word IFNAME stands for the link, and a value.
    """

    interface: str = ""
    sysctls: tuple[tuple[str, str], ...] = ()


class OverlayLink(Struct):
    """A task's interface on an overlay network, with its addresses (CIDR)."""

    network_id: str
    addresses: tuple[str, ...]
    options: LinkOptions = LinkOptions()


class SandboxRequest(Struct):
    """A network namespace to make for a task.

    `ingress_address`: the task's address in the mesh, None if it publishes nothing there: such a task gets an address
    of docker_gwbridge for its way out and host ports. `overlays`: its other interfaces, eth0 first; the way out comes
    after them, unless `outside` says that there is none. `default_network_id`: the network whose gateway is the default
    route; empty: the way out is. `host_network`: no namespace, the host's own.
    `name_servers`: who is asked for names that no network of the task knows; empty: the host's.
    """

    task_id: str
    ingress_address: str | None = None
    host_ports: tuple[HostPort, ...] = ()
    host_network: bool = False
    overlays: tuple[OverlayLink, ...] = ()
    outside: bool = True
    default_network_id: str = ""
    outside_options: LinkOptions = LinkOptions()
    name_servers: tuple[str, ...] = ()


class Connection(Struct):
    """A TCP connection that others opened to a container, as it sees it: how much went each way, and how long ago.

    Without data the times are those since the connection began; `acknowledged_bytes` may count one for its beginning.
    """

    since_sent_ms: int
    since_received_ms: int
    acknowledged_bytes: int = 0
    received_bytes: int = 0


class GatewayNetwork(Struct):
    """The network of a node by which containers go out, as far as it was asked for (`docker_gwbridge`).

    `subnet` empty: the first that is free. `address_range`: the part of it that containers get addresses from.
    `reserved`: addresses that none gets. `gateway`, `mtu_bytes`: empty and 0: as usual.
    """

    subnet: str = ""
    address_range: str = ""
    gateway: str = ""
    reserved: tuple[str, ...] = ()
    mtu_bytes: int = 0


class JoinedNetwork(Struct):
    """A network a container is on, as it is shown: its name and id, and the container's addresses there (CIDR).

    `aliases`: what a task's container is called there, on a network that its node makes for itself.
    """

    name: str
    network_id: str
    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()


class Sandbox(Struct):
    """A namespace that exists: its path, the container's addresses (CIDR, those of overlays first), its networks."""

    task_id: str
    path: str
    addresses: tuple[str, ...] = ()
    networks: tuple[JoinedNetwork, ...] = ()
