"""The swarm behind the recorded replies, in a real store under its own ids: requests need no rewriting."""

from __future__ import annotations

import base64
from typing import Any

from shoal.api.decode import decode_value
from shoal.lib.clock import ManualClock
from shoal.lib.units import parse_time_ns
from shoal.manager.control import Control
from shoal.manager.root_change import Signer
from shoal.manager.service_plans import new_service
from shoal.model.actions import Create, PatchService
from shoal.model.container import Container, ContainerConfig, ContainerState, Health, HealthResult, HealthStatus
from shoal.model.container_spec import HealthConfig, Mount, Ulimit
from shoal.model.objects import (
    Attachment,
    Cluster,
    Config,
    ContainerStatus,
    Endpoint,
    JoinTokens,
    ManagerStatus,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    Plugin,
    RootCA,
    Secret,
    StoreObject,
    Task,
    TaskStatus,
    VirtualIP,
)
from shoal.model.specs import (
    ClusterSpec,
    ConfigSpec,
    NetworkSpec,
    NodeSpec,
    Platform,
    PortConfig,
    Resources,
    SecretSpec,
    ServiceSpec,
)
from shoal.model.states import TASK_STATE_BY_WORD, LocalNodeState, NodeState, TaskState
from shoal.store.store import Store
from tests.conformance.replies.vectors import load
from tests.doubles.consensus import make_store
from tests.doubles.daemon import MemoryDaemon, MemoryManager

RECORDED_AT_NS = 1_795_404_785_000_000_000
LEADER = "vv652bkb8lfxfngzoj21m0rbp"
CREATED = (
    "minimal", "replicated", "dnsrr", "full", "global", "global-job", "replicated-job", "unschedulable", "bad-image",
    "crashing", "logger", "insufficient-resources",
)  # fmt: skip
PAYLOADS = ("secret-create", "secret-create-2", "config-create", "config-create-template")
INSPECTED = {
    "replicated": "replicated", "full": "full", "global": "global",
}  # fmt: skip
ROLES = {"h4": "worker", "h5": "worker"}


def make_daemon(node: str) -> MemoryDaemon:
    """Return the daemon of `node` (h1 to h5) of the recorded swarm; h4 and h5 are workers."""
    daemon = MemoryDaemon(ManualClock(RECORDED_AT_NS))
    daemon.engine.images.add("busybox:latest")
    daemon.node_id, daemon.state = LEADER, LocalNodeState.ACTIVE
    if ROLES.get(node) == "worker":
        return daemon
    store = make_store(daemon.clock)
    control = Control(
        store,
        daemon.ids,
        daemon.clock,
        make_join_token=daemon.make_token,
        make_unlock_key=lambda: "SWMKEY-1-" + "k" * 43,
        signer=Signer(daemon.clock, None),
    )
    daemon.the_manager = MemoryManager(store, control, LEADER)
    return daemon


async def fill(store: Store, without: str = "") -> None:
    """Put everything into the store, in the order of the recording, but not what the file `without` creates."""
    for value in (*_nodes(), _cluster(), *_networks(), *_payloads(without)):
        await _create(store, value)
    if without in PAYLOADS:
        return
    for name in CREATED:
        if without != f"service-create-{name}":
            await _create_service(store, name)
    for task in load("tasks").body:
        await _create(store, _task(task))


async def _create(store: Store, value: StoreObject) -> None:
    await store.update(lambda _view: [Create(object=value)])


def _cluster() -> Cluster:
    body = load("swarm").body
    return Cluster(
        id=body["ID"],
        spec=decode_value(body["Spec"], ClusterSpec),
        root_ca=RootCA(certificate=body["TLSInfo"]["TrustRoot"], key="key"),
        join_tokens=JoinTokens(worker=body["JoinTokens"]["Worker"], manager=body["JoinTokens"]["Manager"]),
    )


def _nodes() -> list[Node]:
    nodes = []
    for number, body in enumerate(load("nodes").body, 1):
        description = body["Description"]
        manager = body.get("ManagerStatus")
        nodes.append(
            Node(
                id=body["ID"],
                spec=decode_value(body["Spec"], NodeSpec),
                description=NodeDescription(
                    hostname=description["Hostname"],
                    platform=decode_value(description["Platform"], Platform),
                    resources=decode_value(description["Resources"], Resources),
                    engine_version=description["Engine"]["EngineVersion"],
                    plugins=tuple(Plugin(type=p["Type"], name=p["Name"]) for p in description["Engine"]["Plugins"]),
                    trust_root=description["TLSInfo"]["TrustRoot"],
                    certificate_issuer_subject=base64.b64decode(description["TLSInfo"]["CertIssuerSubject"]),
                    certificate_issuer_public_key=base64.b64decode(description["TLSInfo"]["CertIssuerPublicKey"]),
                ),
                status=NodeStatus(state=NodeState(body["Status"]["State"]), address=body["Status"]["Addr"]),
                manager_status=ManagerStatus(raft_id=number, address=manager["Addr"]) if manager else None,
                number=number,
            )
        )
    return nodes


def _networks() -> list[Network]:
    networks = []
    for body in load("networks").body:
        if body["Scope"] != "swarm":
            continue
        pools = body["IPAM"]["Config"] or []
        vni = (body["Options"] or {}).get("com.docker.network.driver.overlay.vxlanid_list", "0")
        networks.append(
            Network(
                id=body["Id"],
                spec=NetworkSpec(
                    name=body["Name"],
                    labels=body["Labels"] or {},
                    driver=body["Driver"] if body["Name"] != "ingress" else "",
                    internal=body["Internal"],
                    attachable=body["Attachable"],
                    ingress=body["Ingress"],
                ),
                subnets=tuple(pool["Subnet"] for pool in pools),
                gateways=tuple(pool["Gateway"] for pool in pools),
                vni=int(vni),
            )
        )
    return networks


def _payloads(without: str) -> list[StoreObject]:
    values: list[StoreObject] = []
    for name in PAYLOADS:
        if name == without:
            continue
        vector = load(name)
        if name.startswith("secret"):
            values.append(Secret(id=vector.body["ID"], spec=decode_value(vector.request_body, SecretSpec)))
        else:
            values.append(Config(id=vector.body["ID"], spec=decode_value(vector.request_body, ConfigSpec)))
    return values


async def _create_service(store: Store, name: str) -> None:
    vector = load(f"service-create-{name}")
    service_id = vector.body["ID"]
    spec = decode_value(vector.request_body, ServiceSpec)
    service = new_service(store.view, service_id, spec, "secret credentials", RECORDED_AT_NS)
    await _create(store, service)
    inspected = INSPECTED.get(name)
    if inspected is None:
        return
    endpoint = load(f"service-inspect-{inspected}").body["Endpoint"]
    given = Endpoint(
        mode=endpoint["Spec"]["Mode"],
        ports=tuple(decode_value(port, PortConfig) for port in endpoint["Ports"]),
        virtual_ips=tuple(
            VirtualIP(network_id=ip["NetworkID"], address=ip["Addr"]) for ip in endpoint.get("VirtualIPs", ())
        ),
    )
    patch = PatchService(id=service_id, spec_version=service.spec_version, endpoint=given)
    await store.update(lambda _view: [patch])


def _task(body: dict[str, Any]) -> Task:
    status = body["Status"]
    container = status.get("ContainerStatus")
    return Task(
        id=body["ID"],
        service_id=body["ServiceID"],
        spec_version=1,
        slot=body.get("Slot", 0),
        node_id=body.get("NodeID", ""),
        desired_state=_state(body["DesiredState"]),
        status=TaskStatus(
            state=_state(status["State"]),
            timestamp_ns=parse_time_ns(status["Timestamp"]),
            message=status.get("Message", ""),
            err=status.get("Err", ""),
            container=ContainerStatus(
                container_id=container["ContainerID"], pid=container["PID"], exit_code=container["ExitCode"]
            )
            if container
            else None,
            host_ports=tuple(decode_value(port, PortConfig) for port in status["PortStatus"].get("Ports", ())),
        ),
        attachments=tuple(
            Attachment(network_id=each["Network"]["ID"], addresses=tuple(each["Addresses"]))
            for each in body.get("NetworksAttachments", ())
        ),
        job_iteration=0 if "JobIteration" in body else None,
    )


def _state(word: str) -> TaskState:
    return TASK_STATE_BY_WORD[word]


def _health(body: dict[str, Any]) -> Health:
    log = tuple(
        HealthResult(
            started_at_ns=parse_time_ns(each["Start"]),
            ended_at_ns=parse_time_ns(each["End"]),
            exit_code=each["ExitCode"],
            output=each["Output"],
        )
        for each in body["Log"]
    )
    return Health(status=HealthStatus(body["Status"]), failing_streak=body["FailingStreak"], log=log)


def add_container(daemon: MemoryDaemon) -> None:
    """Give the engine the container of a task of `full`."""
    body = load("container-of-task-inspect").body
    spec, host = body["Config"], body["HostConfig"]
    config = ContainerConfig(
        name=body["Name"].removeprefix("/"),
        image=spec["Image"],
        entrypoint=tuple(spec["Entrypoint"]),
        env=tuple(spec["Env"]),
        working_dir=spec["WorkingDir"],
        user=spec["User"],
        groups=tuple(host["GroupAdd"]),
        hostname=spec["Hostname"],
        labels=spec["Labels"],
        mounts=tuple(decode_value(mount, Mount) for mount in host["Mounts"]),
        init=True,
        stop_signal=spec["StopSignal"],
        capability_add=tuple(host["CapAdd"]),
        capability_drop=tuple(host["CapDrop"]),
        no_new_privileges=True,
        sysctls=host["Sysctls"],
        ulimits=tuple(decode_value(ulimit, Ulimit) for ulimit in host["Ulimits"]),
        nano_cpus=host["NanoCpus"],
        memory_bytes=host["Memory"],
        pids_limit=host["PidsLimit"],
        healthcheck=decode_value(spec["Healthcheck"], HealthConfig),
        hosts=("1.2.3.4 foo",),
        dns_nameservers=tuple(host["Dns"]),
        dns_search=tuple(host["DnsSearch"]),
        dns_options=tuple(host["DnsOptions"]),
        log_options=host["LogConfig"]["Config"],
        addresses=("10.0.0.12/24",),
    )
    daemon.engine.containers[body["Id"]] = Container(
        id=body["Id"],
        config=config,
        image_id=body["Image"],
        created_at_ns=parse_time_ns(body["Created"]),
        state=ContainerState(
            status="running",
            pid=body["State"]["Pid"],
            started_at_ns=parse_time_ns(body["State"]["StartedAt"]),
            health=_health(body["State"]["Health"]),
        ),
        arguments=(body["Path"], *body["Args"]),
        log_path=body["LogPath"],
    )
