"""The first objects of a swarm: the swarm itself, its first node, the ingress network (docker-swarm.md 4.10)."""

from __future__ import annotations

import ipaddress

from shoal.core.validate.cluster import certificate_expiry_ns
from shoal.errors import InvalidArgument
from shoal.model.actions import Action, Create
from shoal.model.base import replace
from shoal.model.objects import Cluster, JoinTokens, ManagerStatus, Network, Node, RootCA
from shoal.model.specs import (
    ClusterSpec,
    DispatcherConfig,
    EncryptionConfig,
    InitRequest,
    IPAMOptions,
    IPAMPool,
    NetworkSpec,
    NodeSpec,
    OrchestrationConfig,
    RaftConfig,
)
from shoal.model.states import Availability, Role

DEFAULT_ADDRESS_POOL = "10.0.0.0/8"
DEFAULT_SUBNET_SIZE = 24
DEFAULT_DATA_PATH_PORT = 4789
FIRST_VNI = 4096
LONGEST_SUBNET_SIZE = 29
FIRST_NODE_NUMBER = 1


def with_cluster_defaults(spec: ClusterSpec) -> ClusterSpec:
    """Fill in what an init request left out (docker-swarm.md 3.3)."""
    raft = spec.raft
    return replace(
        spec,
        name=spec.name or "default",
        orchestration=OrchestrationConfig(
            task_history_retention_limit=5
            if spec.orchestration.task_history_retention_limit is None
            else spec.orchestration.task_history_retention_limit
        ),
        raft=RaftConfig(
            snapshot_interval=raft.snapshot_interval or 10_000,
            keep_old_snapshots=raft.keep_old_snapshots or 0,
            log_entries_for_slow_followers=raft.log_entries_for_slow_followers or 500,
            election_tick=raft.election_tick or 10,
            heartbeat_tick=raft.heartbeat_tick or 1,
        ),
        dispatcher=DispatcherConfig(heartbeat_period=spec.dispatcher.heartbeat_period or 5_000_000_000),
        ca_config=replace(spec.ca_config, node_cert_expiry=certificate_expiry_ns(spec)),
    )


def check_init_request(request: InitRequest) -> None:
    """Refuse what cannot make a swarm.

    Raises:
        InvalidArgument: an address pool that is none, a mask length or port out of range, a wrong availability.
    """
    for pool in request.default_addr_pool:
        try:
            network = ipaddress.IPv4Network(pool)
        except ValueError:
            raise InvalidArgument(f'invalid DefaultAddrPool "{pool}": use CIDR form, such as 10.0.0.0/8') from None
        size = request.subnet_size or DEFAULT_SUBNET_SIZE
        if size < network.prefixlen:
            raise InvalidArgument(
                f"invalid CIDR: {pool!r}. Subnet size is too small: mask length {size} is shorter than the pool's"
            )
    if request.subnet_size > LONGEST_SUBNET_SIZE:
        raise InvalidArgument(
            f"default-address-pool mask length {request.subnet_size} is invalid: at most {LONGEST_SUBNET_SIZE}"
        )
    if request.data_path_port and not 1024 <= request.data_path_port <= 49151:
        raise InvalidArgument("Datapath port number is not in valid range (1024 - 49151) ")
    if request.availability and request.availability not in set(Availability):
        raise InvalidArgument(f'invalid Availability: "{request.availability}"')
    if request.spec.name not in ("", "default"):
        raise InvalidArgument('swarm spec must be named "default"')


def first_actions(
    request: InitRequest,
    ids: tuple[str, str, str],
    root: RootCA,
    tokens: JoinTokens,
    raft_id: int,
    advertise_address: str,
    unlock_key: str = "",
) -> tuple[Action, ...]:
    """Return what a new swarm begins with.

    Args:
        request: as sent by the user, checked.
        ids: of the swarm, the node and the ingress network.
        root: its certificate authority.
        tokens: for those who join.
        raft_id: the first member's.
        advertise_address: host and port of the first manager.
        unlock_key: of its managers, empty without autolock.
    """
    cluster_id, node_id, network_id = ids
    pools = request.default_addr_pool or (DEFAULT_ADDRESS_POOL,)
    subnet_size = request.subnet_size or DEFAULT_SUBNET_SIZE
    cluster = Cluster(
        id=cluster_id,
        spec=replace(
            with_cluster_defaults(request.spec), encryption_config=EncryptionConfig(auto_lock_managers=bool(unlock_key))
        ),
        unlock_key=unlock_key,
        root_ca=root,
        join_tokens=tokens,
        default_address_pool=pools,
        subnet_size=subnet_size,
        data_path_port=request.data_path_port or DEFAULT_DATA_PATH_PORT,
    )
    node = Node(
        id=node_id,
        spec=NodeSpec(role=Role.MANAGER, availability=request.availability or Availability.ACTIVE),
        manager_status=ManagerStatus(raft_id=raft_id, address=advertise_address),
        number=FIRST_NODE_NUMBER,
    )
    subnet = next(ipaddress.IPv4Network(pools[0]).subnets(new_prefix=subnet_size))
    gateway = str(subnet[1])
    ingress = Network(
        id=network_id,
        spec=NetworkSpec(
            name="ingress",
            driver="overlay",
            scope="swarm",
            ingress=True,
            ipam=IPAMOptions(driver="default", config=(IPAMPool(subnet=str(subnet), gateway=gateway),)),
        ),
        subnets=(str(subnet),),
        gateways=(gateway,),
        vni=FIRST_VNI,
    )
    return (Create(object=cluster), Create(object=node), Create(object=ingress))
