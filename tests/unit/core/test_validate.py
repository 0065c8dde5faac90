from __future__ import annotations

import pytest

from shoal.core.insert_defaults import insert_defaults
from shoal.core.reference import is_image_reference
from shoal.core.validate.cluster import prepare_cluster
from shoal.core.validate.names import validate_dns_name
from shoal.core.validate.node import prepare_node
from shoal.core.validate.payload import validate_config, validate_secret
from shoal.core.validate.service import prepare_service
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.base import replace
from shoal.model.container_spec import (
    BindOptions,
    ConfigReference,
    ContainerSpec,
    CredentialSpec,
    Driver,
    HealthConfig,
    Mount,
    Privileges,
    ReferenceFileTarget,
    SeccompOpts,
    SecretReference,
)
from shoal.model.specs import (
    CAConfig,
    ClusterSpec,
    ConfigSpec,
    DispatcherConfig,
    EndpointSpec,
    GlobalJob,
    GlobalService,
    Limit,
    NodeSpec,
    Placement,
    PortConfig,
    RaftConfig,
    ReplicatedJob,
    ReplicatedService,
    ResourceRequirements,
    Resources,
    RestartPolicy,
    SecretSpec,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
    UpdateConfig,
)

IMAGE = ContainerSpec(image="busybox")


def service(**changes: object) -> ServiceSpec:
    return replace(ServiceSpec(name="web", task_template=TaskSpec(container_spec=IMAGE)), **changes)


def of_task(**changes: object) -> ServiceSpec:
    return service(task_template=replace(TaskSpec(container_spec=IMAGE), **changes))


def of_container(**changes: object) -> ServiceSpec:
    return of_task(container_spec=replace(IMAGE, **changes))


def secret(name: str, target: str) -> SecretReference:
    return SecretReference(secret_id="id", secret_name=name, file=ReferenceFileTarget(name=target))


REFUSED = [
    (service(name="bad name!"), "name must be valid as a DNS name component"),
    (service(name="a" * 64), "name must be 63 characters or fewer"),
    (service(name="a" + "-" * 62), "name must be valid as a DNS name component"),
    (service(labels={"shoal.nope": "1"}), 'unknown service label "shoal.nope"'),
    (service(mode=ServiceMode(global_=GlobalService(), replicated=ReplicatedService())), "must specify only one"),
    (service(mode=ServiceMode(replicated=ReplicatedService(replicas=10**9))), "invalid number of replicas"),
    (service(mode=ServiceMode(global_job=GlobalJob()), update_config=UpdateConfig()), "Jobs may not have"),
    (service(update_config=UpdateConfig(failure_action="explode")), "unrecognized update failure action explode"),
    (service(update_config=UpdateConfig(order="sideways")), "unrecognized update order sideways"),
    (service(update_config=UpdateConfig(delay=-1)), "TaskSpec: update-delay cannot be negative"),
    (service(update_config=UpdateConfig(monitor=-1)), "TaskSpec: update-monitor cannot be negative"),
    (service(update_config=UpdateConfig(max_failure_ratio=1.5)), "update-maxfailureratio cannot be less than 0"),
    (service(update_config=UpdateConfig(max_failure_ratio=float("nan"))), "update-maxfailureratio"),
    (service(rollback_config=UpdateConfig(delay=-1)), "TaskSpec: rollback-delay cannot be negative"),
    (service(task_template=TaskSpec()), "mismatched Runtime and *Spec fields"),
    (of_task(runtime="bogus"), "unsupported runtime"),
    (of_task(runtime="attachment"), 'runtime "attachment"'),
    (of_task(restart_policy=RestartPolicy(condition="sometimes")), 'invalid RestartCondition: "sometimes"'),
    (of_task(restart_policy=RestartPolicy(delay=-1)), "TaskSpec: restart-delay cannot be negative"),
    (of_task(restart_policy=RestartPolicy(window=-1)), "TaskSpec: restart-window cannot be negative"),
    (of_task(placement=Placement(constraints=("foo",))), "constraint expected one operator from ==, !="),
    (of_task(placement=Placement(constraints=("node.colour==red",))), "constraint key 'node.colour' is unknown: use"),
    (of_task(placement=Placement(constraints=("node.labels.==red",))), "constraint key 'node.labels.' is unknown"),
    (
        of_task(resources=ResourceRequirements(limits=Limit(nano_cpus=1000))),
        "invalid cpu value 1e-06: Must be at least 0.001",
    ),
    (
        of_task(resources=ResourceRequirements(reservations=Resources(memory_bytes=1000))),
        "invalid memory value 1000: Must be at least 4MiB",
    ),
    (of_task(resources=ResourceRequirements(limits=Limit(pids=-1))), "invalid pids limit -1"),
    (of_container(image=""), "ContainerSpec: image reference must be provided"),
    (of_container(image="UPPER/Case"), 'ContainerSpec: "UPPER/Case" is not a valid repository/tag'),
    (of_container(mounts=(Mount(type="bogus", target="/x"),)), 'invalid MountType: "bogus"'),
    (of_container(mounts=(Mount(type="cluster", target="/x"),)), "type cluster is not supported"),
    (
        of_container(mounts=(Mount(type="volume", target="/x"), Mount(type="tmpfs", target="/x"))),
        "ContainerSpec: duplicate mount point: /x",
    ),
    (of_container(mounts=(Mount(type="bind", source="rel", target="/x"),)), "must be an absolute path: rel"),
    (of_container(mounts=(Mount(type="volume", source="/abs", target="/x"),)), "must not be an absolute path: /abs"),
    (of_container(mounts=(Mount(type="tmpfs", source="x", target="/x"),)), "source must be empty"),
    (of_container(mounts=(Mount(type="tmpfs", target="x"),)), "invalid mount target"),
    (
        of_container(
            mounts=(Mount(type="bind", source="/a", target="/x", bind_options=BindOptions(propagation="odd")),)
        ),
        'invalid MountBindPropagation: "odd"',
    ),
    (
        of_container(healthcheck=HealthConfig(interval=1)),
        "ContainerSpec: Interval in HealthConfig cannot be less than 1ms",
    ),
    (of_container(healthcheck=HealthConfig(retries=-1)), "Retries in HealthConfig cannot be negative"),
    (of_container(stop_grace_period=-1), "StopGracePeriod cannot be negative"),
    (of_container(isolation="hyperv"), 'unsupported isolation: "hyperv"'),
    (of_container(privileges=Privileges(credential_spec=CredentialSpec(file="x"))), "invalid CredentialSpec"),
    (of_container(privileges=Privileges(seccomp=SeccompOpts(mode="custom"))), "Mode custom needs a Profile"),
    (
        of_container(secrets=(secret("sec1", "a"), secret("sec2", "a"))),
        "secret references 'sec1' and 'sec2' have a conflicting target: 'a'",
    ),
    (of_container(secrets=(SecretReference(secret_id="x"),)), "malformed secret reference"),
    (of_container(secrets=(secret("sec1", ""),)), "malformed file secret reference, invalid target"),
    (
        of_container(configs=(ConfigReference(config_id="x", config_name="c"),)),
        "invalid Config: either File or Runtime should be set",
    ),
    (
        service(endpoint_spec=EndpointSpec(mode="dnsrr", ports=(PortConfig(target_port=80, published_port=9090),))),
        "EndpointSpec: port published with ingress mode can't be used with dnsrr mode",
    ),
    (
        service(endpoint_spec=EndpointSpec(ports=(PortConfig(published_port=80), PortConfig(published_port=80)))),
        "EndpointSpec: duplicate published ports provided",
    ),
    (service(endpoint_spec=EndpointSpec(ports=(PortConfig(protocol="icmp"),))), "invalid protocol"),
    (service(endpoint_spec=EndpointSpec(ports=(PortConfig(published_port=70000),))), "invalid published port 70000"),
    (service(endpoint_spec=EndpointSpec(mode="odd")), "invalid resolution mode"),
]


@pytest.mark.parametrize(("spec", "text"), REFUSED, ids=[text[:50] for _, text in REFUSED])
def test_refused_with_dockers_text(spec: ServiceSpec, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        prepare_service(spec)
    assert text in caught.value.message


def test_plugins_are_outside() -> None:
    with pytest.raises(NotBuilt, match="plugin"):
        prepare_service(of_task(runtime="plugin"))


def test_a_minimal_spec_gets_its_written_form() -> None:
    spec = prepare_service(service())
    assert spec.mode.replicated == ReplicatedService(replicas=1)
    assert spec.task_template.runtime == "container"
    assert spec.task_template.container_spec is not None
    assert spec.task_template.container_spec.isolation == "default"
    assert spec.endpoint_spec is None
    assert spec.update_config is None


def test_normalising_again_changes_nothing() -> None:
    spec = prepare_service(
        service(
            mode=ServiceMode(replicated_job=ReplicatedJob(max_concurrent=3)),
            rollback_config=UpdateConfig(),
            endpoint_spec=EndpointSpec(ports=(PortConfig(target_port=80),)),
        )
    )
    assert spec.mode.replicated_job == ReplicatedJob(max_concurrent=3, total_completions=3)
    assert spec.endpoint_spec is not None
    assert spec.endpoint_spec.ports[0].protocol == "tcp"
    assert prepare_service(spec) == spec


def test_two_ports_without_a_number_are_no_duplicates() -> None:
    ports = (PortConfig(target_port=80), PortConfig(target_port=81))
    assert prepare_service(service(endpoint_spec=EndpointSpec(ports=ports)))


def test_a_port_may_be_published_once_for_each_protocol() -> None:
    ports = (PortConfig(published_port=53), PortConfig(published_port=53, protocol="udp"))
    assert prepare_service(service(endpoint_spec=EndpointSpec(ports=ports)))


def test_defaults_are_written_out() -> None:
    spec = insert_defaults(prepare_service(service(update_config=UpdateConfig(parallelism=0))))
    assert spec.task_template.restart_policy == RestartPolicy(condition="any", delay=5_000_000_000, max_attempts=0)
    assert spec.update_config is not None
    assert spec.update_config.parallelism == 0
    assert spec.update_config.monitor == 5_000_000_000
    assert spec.rollback_config is not None
    assert spec.rollback_config.parallelism == 1


GOOD_REFERENCES = [
    "busybox", "busybox:latest", "library/busybox", "127.0.0.1:5000/a/b:v1", "localhost/x", "a__b/c-d.e",
    "registry.example.com/team/app@sha256:" + "a" * 64, "busybox:1@sha256:" + "a" * 64, "Registry:5000/app",
]  # fmt: skip
BAD_REFERENCES = [
    "", "UPPER/Case", "a b", "busybox:", ":tag", "a//b", "/a", "a/", "busybox@sha256:xyz", "a" * 64, "-a", "a..b",
    "busybox:" + "t" * 129, "x/" * 200 + "y", "http://host/app", "a:b:c",
]  # fmt: skip


@pytest.mark.parametrize("text", GOOD_REFERENCES)
def test_good_references(text: str) -> None:
    assert is_image_reference(text)


@pytest.mark.parametrize("text", BAD_REFERENCES)
def test_bad_references(text: str) -> None:
    assert not is_image_reference(text)


@pytest.mark.parametrize("name", ["web", "a", "my_web-1", "A1"])
def test_good_names(name: str) -> None:
    validate_dns_name(name)


def test_node_words_in_any_case() -> None:
    assert prepare_node(NodeSpec(role="Manager", availability="DRAIN")) == NodeSpec(
        role="manager", availability="drain"
    )
    for spec, text in (
        (NodeSpec(role="king", availability="active"), 'invalid Role: "king"'),
        (NodeSpec(role="worker", availability="maybe"), 'invalid Availability: "maybe"'),
        (NodeSpec(), 'invalid Role: ""'),
    ):
        with pytest.raises(InvalidArgument, match=text):
            prepare_node(spec)


def test_cluster_defaults() -> None:
    spec = prepare_cluster(ClusterSpec())
    assert spec.name == "default"
    assert spec.orchestration.task_history_retention_limit == 5
    assert spec.raft.snapshot_interval == 10_000
    assert spec.dispatcher.heartbeat_period == 5_000_000_000
    assert prepare_cluster(spec, spec) == spec


def test_cluster_refusals() -> None:
    refused: list[tuple[ClusterSpec, type[Exception], str]] = [
        (ClusterSpec(name="other"), InvalidArgument, 'swarm spec must be named "default"'),
        (ClusterSpec(ca_config=CAConfig(node_cert_expiry=1)), InvalidArgument, "minimum certificate expiry"),
        (ClusterSpec(dispatcher=DispatcherConfig(heartbeat_period=-1)), InvalidArgument, "heartbeat"),
        (ClusterSpec(raft=RaftConfig(election_tick=1, heartbeat_tick=5)), InvalidArgument, "ElectionTick"),
        (ClusterSpec(ca_config=CAConfig(force_rotate=-1)), InvalidArgument, "ForceRotate only grows"),
        (ClusterSpec(ca_config=CAConfig(signing_ca_key="x")), InvalidArgument, "needs CAConfig.SigningCACert"),
    ]
    for spec, kind, text in refused:
        with pytest.raises(kind, match=text):
            prepare_cluster(spec)


def test_payloads() -> None:
    validate_secret(SecretSpec(name="a.b-c_d", data=b"x"))
    validate_config(ConfigSpec(name="a", data=b"x" * 1_023_999))
    for secret_spec, text in (
        (SecretSpec(name="b d", data=b"x"), "invalid name, only 64"),
        (SecretSpec(name="a"), "secret data must be larger than 0 and less than 512000 bytes"),
        (SecretSpec(name="a", data=b"x" * 512_000), "secret data must be larger than 0"),
        (SecretSpec(name="a", data=b"x", templating=Driver(name="jinja")), "invalid template driver"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            validate_secret(secret_spec)
    with pytest.raises(NotBuilt, match="secret drivers"):
        validate_secret(SecretSpec(name="a", driver=Driver(name="vault")))
    with pytest.raises(InvalidArgument, match="config data must be larger than 0 and less than 1024000 bytes"):
        validate_config(ConfigSpec(name="a"))
