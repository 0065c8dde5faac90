"""The first objects of a swarm, defaults, and the mesh (docker-swarm.md 3.3, 3.5, 4.10, 4.11)."""

from __future__ import annotations

import pytest

from shoal.core.bootstrap import check_init_request, first_actions, with_cluster_defaults
from shoal.core.defaults import (
    DEFAULT_UPDATE_CONFIG,
    SECOND_NS,
    is_replicated,
    replicas_of,
    restart_policy,
    task_history_limit,
    update_config,
)
from shoal.core.ingress import Published, publish
from shoal.errors import InvalidArgument
from shoal.model.actions import Create
from shoal.model.base import replace
from shoal.model.netstate import Backend
from shoal.model.objects import (
    Attachment,
    Cluster,
    Endpoint,
    JoinTokens,
    Network,
    Node,
    RootCA,
    Service,
    Task,
    TaskStatus,
)
from shoal.model.specs import (
    ClusterSpec,
    GlobalJob,
    GlobalService,
    InitRequest,
    OrchestrationConfig,
    PortConfig,
    ReplicatedService,
    RestartPolicy,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)
from shoal.model.states import TaskState


def first(request: InitRequest) -> tuple[Cluster, Node, Network]:
    actions = first_actions(
        request,
        ("cid", "nid", "net"),
        RootCA(certificate="c", key="k"),
        JoinTokens(worker="w", manager="m"),
        7,
        "10.0.0.1:2377",
    )
    cluster, node, network = (action.object for action in actions if isinstance(action, Create))
    assert isinstance(cluster, Cluster)
    assert isinstance(node, Node)
    assert isinstance(network, Network)
    return cluster, node, network


def test_a_swarm_begins_with_itself_its_node_and_the_ingress_network() -> None:
    cluster, node, network = first(InitRequest())
    assert (cluster.spec.name, cluster.default_address_pool, cluster.subnet_size) == ("default", ("10.0.0.0/8",), 24)
    assert (cluster.data_path_port, cluster.spec.dispatcher.heartbeat_period) == (4789, 5 * SECOND_NS)
    assert (node.spec.role, node.spec.availability, node.number) == ("manager", "active", 1)
    assert node.manager_status is not None
    assert (node.manager_status.raft_id, node.manager_status.address) == (7, "10.0.0.1:2377")
    assert (network.spec.name, network.spec.ingress, network.vni) == ("ingress", True, 4096)
    assert (network.subnets, network.gateways) == (("10.0.0.0/24",), ("10.0.0.1",))


def test_pools_and_sizes_are_taken() -> None:
    cluster, node, network = first(
        InitRequest(default_addr_pool=("172.30.0.0/16",), subnet_size=26, data_path_port=5000, availability="drain")
    )
    assert network.subnets == ("172.30.0.0/26",)
    assert (cluster.data_path_port, node.spec.availability) == (5000, "drain")


def test_defaults_do_not_change_what_was_said() -> None:
    spec = ClusterSpec(orchestration=OrchestrationConfig(task_history_retention_limit=0))
    assert with_cluster_defaults(spec).orchestration.task_history_retention_limit == 0
    assert with_cluster_defaults(ClusterSpec()).orchestration.task_history_retention_limit == 5


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"default_addr_pool": ("10.0.0.0",), "subnet_size": 24}, "Subnet size is too small"),
        ({"default_addr_pool": ("nonsense",)}, 'invalid DefaultAddrPool "nonsense"'),
        ({"default_addr_pool": ("10.0.0.1/8",)}, 'invalid DefaultAddrPool "10.0.0.1/8"'),
        ({"default_addr_pool": ("10.0.0.0/16",), "subnet_size": 8}, "Subnet size is too small"),
        ({"subnet_size": 30}, "mask length 30 is invalid"),
        ({"data_path_port": 80}, "valid range (1024 - 49151)"),
        ({"data_path_port": 60000}, "valid range (1024 - 49151)"),
        ({"availability": "lazy"}, 'invalid Availability: "lazy"'),
        ({"spec": ClusterSpec(name="other")}, 'swarm spec must be named "default"'),
    ],
)
def test_what_cannot_make_a_swarm_is_refused(changes: dict[str, object], text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        check_init_request(replace(InitRequest(), **changes))
    assert text in caught.value.message


def test_defaults_of_services() -> None:
    none = restart_policy(TaskSpec())
    assert (none.condition, none.delay_ns, none.max_attempts, none.window_ns) == ("any", 5 * SECOND_NS, 0, 0)
    given = restart_policy(TaskSpec(restart_policy=RestartPolicy(delay=0, max_attempts=3)))
    assert (given.condition, given.delay_ns, given.max_attempts) == ("any", 0, 3)
    spec = ServiceSpec(update_config=UpdateConfig(parallelism=2))
    assert update_config(spec, rollback=True) == DEFAULT_UPDATE_CONFIG
    explicit = update_config(spec, rollback=False)
    assert (explicit.parallelism, explicit.monitor, explicit.order, explicit.failure_action) == (
        2,
        5 * SECOND_NS,
        "stop-first",
        "pause",
    )
    assert update_config(ServiceSpec(update_config=UpdateConfig()), rollback=False).parallelism == 0, "all at once"
    assert replicas_of(ServiceSpec()) == 1
    assert replicas_of(ServiceSpec(mode=ServiceMode(replicated=ReplicatedService(replicas=0)))) == 0
    assert is_replicated(ServiceSpec())
    assert not is_replicated(ServiceSpec(mode=ServiceMode(global_=GlobalService())))
    assert not is_replicated(ServiceSpec(mode=ServiceMode(global_job=GlobalJob())))
    assert (task_history_limit(None), task_history_limit(Cluster(id="c"))) == (5, 5)


def test_the_mesh_holds_running_wanted_tasks_of_published_ports() -> None:
    def task(id_: str, **changes: object) -> Task:
        attachments = (Attachment(network_id="net", addresses=(f"10.0.0.{id_[1:]}/24",)),)
        status = TaskStatus(state=TaskState.RUNNING)
        value = Task(id=id_, service_id="s", spec_version=1, node_id="n1", status=status, attachments=attachments)
        return replace(value, **changes)

    tasks = [
        task("t9"),
        task("t8"),
        task("t7", status=TaskStatus(state=TaskState.STARTING)),
        task("t6", desired_state=TaskState.SHUTDOWN),
        task("t5", attachments=()),
        task("t4", node_id="gone"),
    ]
    ports = (
        PortConfig(protocol="tcp", target_port=80, published_port=8080, publish_mode="ingress"),
        PortConfig(protocol="tcp", target_port=81, published_port=8081, publish_mode="host"),
        PortConfig(protocol="tcp", target_port=82, published_port=80, publish_mode="ingress"),
    )
    service = Service(id="s", endpoint=Endpoint(mode="vip", ports=ports))
    nodes = {"n1": Node(id="n1", number=5)}
    assert publish(Service(id="bare"), [], nodes.get, "net") == Published()
    whole = publish(service, tasks, nodes.get, "net")
    reached = [endpoint.task_id for endpoint in whole.endpoints]
    assert reached == ["t6", "t7", "t8", "t9"], "flows of one that is on its way out live on"
    assert publish(None, tasks, nodes.get, "net") == Published(endpoints=whole.endpoints), "its service is gone"
    found = whole.ports
    assert [(port.published_port, port.target_port) for port in found] == [(80, 82), (8080, 80)]
    assert found[0].backends == (
        Backend(task_id="t8", address="10.0.0.8", node_number=5),
        Backend(task_id="t9", address="10.0.0.9", node_number=5),
    )
