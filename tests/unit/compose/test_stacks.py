"""From services, networks, secrets and configs to what the API is asked for."""

from __future__ import annotations

from typing import Any

import pytest

from shoal.compose.plan import service_change
from shoal.errors import InvalidArgument
from tests.unit.compose.files import Files, service

NAMESPACE = {"com.docker.stack.namespace": "st"}


def found(spec: Any, *path: Any) -> Any:
    for key in path:
        spec = spec[key]
    return spec


C = ("TaskTemplate", "ContainerSpec")


@pytest.mark.parametrize(
    ("text", "path", "value"),
    [
        ('command: sh -c "echo hi"', (*C, "Args"), ["sh", "-c", "echo hi"]),
        ("entrypoint: [a, b]", (*C, "Command"), ["a", "b"]),
        ("environment: {A: 1, B: true, C: }", (*C, "Env"), ["A=1", "B=true", "C"]),
        ("environment: [A, B=$$x]", (*C, "Env"), ["A=from the shell", "B=$x"]),
        ("labels: [a=b]", (*C, "Labels"), {"a": "b", **NAMESPACE}),
        ("tty: true\nstdin_open: true", (*C, "TTY"), True),
        ("init: '$YES'", (*C, "Init"), True),
        ("stop_grace_period: 1m30s", (*C, "StopGracePeriod"), 90_000_000_000),
        ("dns: 1.1.1.1\ndns_search: [a, b]", (*C, "DNSConfig"), {"Nameservers": ["1.1.1.1"], "Search": ["a", "b"]}),
        ("extra_hosts: ['db:10.0.0.1', 'v6=[::1]']", (*C, "Hosts"), ["10.0.0.1 db", "::1 v6"]),
        ("extra_hosts: {db: 10.0.0.1}", (*C, "Hosts"), ["10.0.0.1 db"]),
        ("healthcheck: {test: [CMD, x], retries: 3}", (*C, "Healthcheck"), {"Test": ["CMD", "x"], "Retries": 3}),
        ("healthcheck: {disable: true}", (*C, "Healthcheck"), {"Test": ["NONE"]}),
        ("cap_add: [NET_ADMIN]", (*C, "CapabilityAdd"), ["NET_ADMIN"]),
        ("sysctls: [net.core.somaxconn=1]", (*C, "Sysctls"), {"net.core.somaxconn": "1"}),
        ("ulimits: {nofile: {soft: 1, hard: 2}}", (*C, "Ulimits"), [{"Name": "nofile", "Soft": 1, "Hard": 2}]),
        ("security_opt: ['no-new-privileges:true']", (*C, "Privileges", "NoNewPrivileges"), True),
        ("tmpfs: /run", (*C, "Mounts"), [{"Type": "tmpfs", "Target": "/run"}]),
        ("volumes: ['~/a:/b']", (*C, "Mounts"), [{"Type": "bind", "Source": "/home/ann/a", "Target": "/b"}]),
        ("volumes: [/cache]", (*C, "Mounts"), [{"Type": "volume", "Target": "/cache"}]),
        (
            "volumes: ['./a:/b:ro,rslave']",
            (*C, "Mounts"),
            [
                {
                    "Type": "bind",
                    "Source": "/p/a",
                    "Target": "/b",
                    "ReadOnly": True,
                    "BindOptions": {"Propagation": "rslave"},
                }
            ],
        ),
        (
            "volumes: [{type: tmpfs, target: /t, tmpfs: {size: 1m, mode: 0700}}]",
            (*C, "Mounts"),
            [{"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o700}}],
        ),
        ("network_mode: host", ("TaskTemplate", "Networks"), [{"Target": "host"}]),
        (
            "logging: {driver: local, options: {a: 1}}",
            ("TaskTemplate", "LogDriver"),
            {"Name": "local", "Options": {"a": "1"}},
        ),
        ("restart: 'on-failure:3'", ("TaskTemplate", "RestartPolicy"), {"Condition": "on-failure", "MaxAttempts": 3}),
        ("restart: no", ("TaskTemplate", "RestartPolicy"), {"Condition": "none"}),
        ("mem_limit: 64m", ("TaskTemplate", "Resources", "Limits"), {"MemoryBytes": 64 << 20}),
        (
            "platform: linux/arm64/v8",
            ("TaskTemplate", "Placement", "Platforms"),
            [{"OS": "linux", "Architecture": "arm64"}],
        ),
        ("scale: 3", ("Mode",), {"Replicated": {"Replicas": 3}}),
        ("deploy: {mode: global}", ("Mode",), {"Global": {}}),
        ("deploy: {mode: replicated-job, replicas: 2}", ("Mode", "ReplicatedJob", "TotalCompletions"), 2),
        ("deploy: {labels: {a: 1}}", ("Labels", "a"), "1"),
        ("deploy: {endpoint_mode: dnsrr}", ("EndpointSpec", "Mode"), "dnsrr"),
        (
            "deploy: {update_config: {parallelism: 2, delay: 5s, order: start-first}}",
            ("UpdateConfig",),
            {"Parallelism": 2, "Delay": 5_000_000_000, "Order": "start-first"},
        ),
        (
            "deploy: {resources: {limits: {cpus: '0.5', memory: 1G, pids: 9}}}",
            ("TaskTemplate", "Resources", "Limits"),
            {"NanoCPUs": 500_000_000, "MemoryBytes": 1 << 30, "Pids": 9},
        ),
        (
            (
                "deploy: {resources: {reservations: {generic_resources:"
                " [{discrete_resource_spec: {kind: gpu, value: 2}}]}}}"
            ),
            ("TaskTemplate", "Resources", "Reservations", "GenericResources"),
            [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}],
        ),
        (
            (
                "deploy: {placement: {constraints: ['node.role==worker'], preferences: [{spread: node.labels.z}],"
                " max_replicas_per_node: 1}}"
            ),
            ("TaskTemplate", "Placement"),
            {
                "Constraints": ["node.role==worker"],
                "Preferences": [{"Spread": {"SpreadDescriptor": "node.labels.z"}}],
                "MaxReplicas": 1,
            },
        ),
        ("shm_size: 1g", ("Labels", "shoal.shm-size"), "1g"),
        ("devices: [/dev/fuse, '/dev/a:/dev/b']", ("Labels", "shoal.devices"), "/dev/fuse,/dev/a:/dev/b"),
        ("pid: host", ("Labels", "shoal.pid-mode"), "host"),
        ("ipc: host", ("Labels", "shoal.ipc-mode"), "host"),
        ("privileged: true", ("Labels", "shoal.privileged"), "true"),
        ("ports: ['22:22']", ("EndpointSpec", "Ports", 0, "PublishedPort"), 22),
        ("ports: [{target: 80, published: '8080', mode: host}]", ("EndpointSpec", "Ports", 0, "PublishMode"), "host"),
        ("ports: ['127.0.0.1:8080:80']", ("EndpointSpec", "Ports", 0, "PublishedPort"), 8080),
    ],
)
def test_what_a_service_becomes(text: str, path: tuple[Any, ...], value: Any) -> None:
    assert found(service(text, A="from the shell", YES="yes", HOME="/home/ann"), *path) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("comand: x", 'c.yml:4: services.a.comand: unknown key "comand"; known are annotations'),
        ("ports: [a]", "c.yml:4: services.a.ports[0]: "),
        ("ports: [{published: 1}]", "services.a.ports[0]: target is missing"),
        ("environment: 5", "services.a.environment: must be a mapping"),
        ("deploy: {replicas: many}", 'services.a.deploy.replicas: must be a whole number, not "many"'),
        ("deploy: {replicas: -1}", "must not be negative"),
        ("deploy: {mode: global, replicas: 1}", "replicas can only be used with replicated"),
        ("deploy: {mode: odd}", "must be replicated, global, replicated-job or global-job"),
        ("deploy: {resources: {limits: {memory: lots}}}", "services.a.deploy.resources.limits.memory: "),
        ("deploy: {update_config: {delay: soon}}", "services.a.deploy.update_config.delay: "),
        ("secrets: [nosuch]", "undefined secret nosuch: define it under secrets"),
        ("networks: [nosuch]", "undefined network nosuch"),
        ("volumes: ['nosuch:/x']", "undefined volume nosuch"),
        ("volumes: ['/a:/b:sideways']", 'unknown option "sideways" of a volume'),
        ("volumes: ['/a:/b', '/c:/b']", "duplicate mount point /b"),
        ("volumes: ['~/a:/b']", "HOME is not set"),
        ("volumes: [{type: bind, target: /x}]", "source is missing"),
        ("healthcheck: {test: [curl]}", "a list must begin with NONE, CMD or CMD-SHELL"),
        ("restart: sometimes", "must be no, always"),
        ("ulimits: {nofile: {soft: 1}}", "soft and hard are both needed"),
        ("env_file: nosuch.env", "/p/nosuch.env: there is no such file"),
        ("depends_on: {b: {condition: odd}}", "must be one of service_started"),
        ("init: perhaps", 'must be true or false, not "perhaps"'),
        ("network_mode: host\nnetworks: [default]", "network_mode and networks cannot be set both"),
    ],
)
def test_what_is_refused_with_file_line_and_key(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        service(text)
    assert caught.value.message.startswith("/p/c.yml:4: services.a.") or "\n" in text
    assert message in caught.value.message


def test_nothing_is_dropped_in_silence() -> None:
    text = """
services:
  a:
    image: i
    build: .
    userns_mode: host
    container_name: fixed
    networks: {default: {ipv4_address: 10.0.0.5}}
    depends_on: {b: {condition: service_healthy}, c: {condition: service_started, required: false}}
  b: {image: i, ports: ["127.0.0.1:80:80"]}
networks: {spare: {}}
"""
    warnings = "\n".join(Files({"c.yml": text}).stack().warnings)
    for word in ("build", "userns_mode", "container_name", "ipv4_address", "127.0.0.1", "spare"):
        assert warnings.count(word) >= 1, word


def test_names_and_what_is_outside() -> None:
    text = """
services:
  a:
    image: i
    networks: {back: {aliases: [x]}, outside: }
    secrets: [own, {source: theirs, target: /etc/t, mode: 0400, uid: "5"}]
    configs: [text]
    volumes: ["data:/d", "given:/g", "theirs:/t"]
networks:
  back: {driver_opts: {encrypted: ""}, ipam: {config: [{subnet: 10.1.0.0/24}]}, attachable: true}
  outside: {external: true, name: shared}
secrets:
  own: {environment: WORD}
  theirs: {external: true}
configs:
  text: {content: "hello $WORD"}
volumes:
  data: {driver: local, driver_opts: {type: nfs}}
  given: {name: fixed}
  theirs: {external: true}
"""
    stack = Files({"c.yml": text}).stack(environment={"WORD": "w"})
    assert stack.networks == {
        "st_back": {
            "Name": "st_back", "Driver": "overlay", "Scope": "swarm", "Labels": NAMESPACE, "Attachable": True,
            "Options": {"encrypted": ""}, "IPAM": {"Driver": "default", "Config": [{"Subnet": "10.1.0.0/24"}]},
        }
    }  # fmt: skip
    assert (stack.external_networks, stack.external_secrets) == (("shared",), ("theirs",))
    assert stack.secrets == {"st_own": {"Name": "st_own", "Labels": NAMESPACE, "Data": "dw=="}}
    assert stack.configs["st_text"]["Data"] == "aGVsbG8gdw=="
    spec = stack.services["st_a"]
    assert spec["TaskTemplate"]["Networks"] == [
        {"Target": "shared", "Aliases": ["a"]},
        {"Target": "st_back", "Aliases": ["x", "a"]},
    ]
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert container["Secrets"][1] == {
        "SecretName": "theirs", "File": {"Name": "/etc/t", "UID": "5", "GID": "0", "Mode": 0o400},
    }  # fmt: skip
    assert [mount["Source"] for mount in container["Mounts"]] == ["st_data", "fixed", "theirs"]
    assert "VolumeOptions" not in container["Mounts"][2]


def test_services_come_after_those_they_depend_on() -> None:
    text = "services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [c]}, c: {image: i}}"
    assert list(Files({"c.yml": text}).stack().services) == ["st_c", "st_b", "st_a"]
    with pytest.raises(InvalidArgument, match="a circle: a -> b -> a"):
        Files({"c.yml": "services: {a: {image: i, depends_on: [b]}, b: {image: i, depends_on: [a]}}"}).stack()


def test_a_plan_says_what_changes_and_whether_tasks_are_replaced() -> None:
    before = service("environment: [A=1]\ndeploy: {replicas: 2}")
    assert service_change("st_a", before, None).action == "create"
    assert service_change("st_a", before, before).action == "keep"
    scaled = service_change("st_a", service("environment: [A=1]\ndeploy: {replicas: 3}"), before)
    assert (scaled.action, scaled.replaces_tasks) == ("update", False)
    assert scaled.fields == ("Mode.Replicated.Replicas: 2 -> 3",)
    changed = service_change("st_a", service("environment: [A=2]\ndeploy: {replicas: 2}"), before)
    assert changed.replaces_tasks
    assert changed.fields == ("TaskTemplate.ContainerSpec.Env[0]: A=1 -> A=2",)
    emptied = service_change("st_a", service("deploy: {replicas: 2}"), before)
    assert emptied.fields == ("TaskTemplate.ContainerSpec.Env: [A=1] -> nothing",)


def test_depends_on_becomes_a_label() -> None:
    conditions = "{b: {condition: service_healthy}, c: {condition: service_completed_successfully}, d: }"
    others = "b: {image: i}, c: {image: i}, d: {image: i}"
    stack = Files({"c.yml": f"services: {{a: {{image: i, depends_on: {conditions}}}, {others}}}"}).stack()
    assert stack.services["st_a"]["Labels"]["shoal.depends-on"] == "st_b:running,st_c:completed,st_d:running"
    with pytest.raises(InvalidArgument, match="undefined service z"):
        Files({"c.yml": "services: {a: {image: i, depends_on: [z]}}"}).stack()
