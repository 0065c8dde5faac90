import re
from pathlib import Path

import pytest

from shoal.cli.service_labels import LABEL_FLAGS
from shoal.cli.service_spec import change_spec, make_spec
from shoal.errors import InvalidArgument
from tests.unit.cli.command_line import flags_of

SECOND = 1_000_000_000
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "extensions.md"


def made(*words, environment=None):
    given, image, arguments = flags_of("create", *words)
    return make_spec(given, image, arguments, environment or {})


def changed(spec, *words, environment=None):
    given, *_ = flags_of("update", *words, "web")
    return change_spec(spec, given, environment or {})


def test_least_service_sends_nothing_that_was_not_given():
    assert made("--name", "web", "busybox", "sleep", "-h", "--replicas") == {
        "Name": "web",
        "Labels": {},
        "TaskTemplate": {"ContainerSpec": {"Image": "busybox:latest", "Args": ["sleep", "-h", "--replicas"]}},
        "Mode": {"Replicated": {}},
    }


def test_flags_land_where_docker_puts_them():
    spec = made(
        "--replicas",
        "3",
        "-p",
        "8080:80",
        "-e",
        "A=1",
        "--env",
        "HOME",
        "-l",
        "x=y",
        "--container-label",
        "c",
        "--constraint",
        "node.role==worker",
        "--mount",
        "type=tmpfs,target=/t",
        "--limit-cpu",
        "0.5",
        "--limit-memory",
        "64m",
        "--reserve-memory",
        "32m",
        "--restart-condition",
        "on-failure",
        "--update-parallelism",
        "2",
        "--rollback-order",
        "start-first",
        "--user",
        "1:2",
        "-w",
        "/srv",
        "--hostname",
        "h",
        "--stop-signal",
        "INT",
        "--stop-grace-period",
        "3s",
        "--entrypoint",
        "sh -c",
        "--replicas-max-per-node",
        "2",
        "--health-cmd",
        "true",
        "--health-interval",
        "2s",
        "--cap-add",
        "net_admin",
        "--dns",
        "1.1.1.1",
        "--host",
        "db:10.0.0.5",
        "--init",
        "--read-only",
        "--tty=false",
        "--endpoint-mode",
        "dnsrr",
        "--network",
        "name=front,alias=w",
        "busybox",
        environment={"HOME": "/root"},
    )
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert container == {
        "Image": "busybox:latest",
        "Hostname": "h",
        "User": "1:2",
        "Dir": "/srv",
        "Init": True,
        "TTY": False,
        "ReadOnly": True,
        "StopSignal": "INT",
        "StopGracePeriod": 3 * SECOND,
        "Command": ["sh", "-c"],
        "Healthcheck": {"Test": ["CMD-SHELL", "true"], "Interval": 2 * SECOND},
        "CapabilityAdd": ["CAP_NET_ADMIN"],
        "Labels": {"c": ""},
        "Env": ["A=1", "HOME=/root"],
        "Mounts": [{"Type": "tmpfs", "Target": "/t"}],
        "Hosts": ["10.0.0.5 db"],
        "DNSConfig": {"Nameservers": ["1.1.1.1"]},
    }
    task = spec["TaskTemplate"]
    assert task["Resources"] == {
        "Limits": {"NanoCPUs": 500_000_000, "MemoryBytes": 64 << 20},
        "Reservations": {"MemoryBytes": 32 << 20},
    }
    assert task["RestartPolicy"] == {"Condition": "on-failure", "Delay": 5 * SECOND}
    assert task["Placement"] == {"MaxReplicas": 2, "Constraints": ["node.role==worker"]}
    assert task["Networks"] == [{"Target": "front", "Aliases": ["w"]}]
    assert spec["UpdateConfig"]["Parallelism"] == 2
    assert spec["UpdateConfig"]["Monitor"] == 5 * SECOND
    assert spec["RollbackConfig"]["Order"] == "start-first"
    assert spec["Mode"] == {"Replicated": {"Replicas": 3}}
    assert spec["Labels"] == {"x": "y"}
    assert spec["EndpointSpec"] == {
        "Mode": "dnsrr",
        "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishMode": "ingress", "PublishedPort": 8080}],
    }


@pytest.mark.parametrize(
    ("words", "mode"),
    [
        (["--mode", "global"], {"Global": {}}),
        (["--mode", "global-job"], {"GlobalJob": {}}),
        (["--mode", "replicated-job"], {"ReplicatedJob": {}}),
        (
            ["--mode", "replicated-job", "--replicas", "4"],
            {"ReplicatedJob": {"MaxConcurrent": 4, "TotalCompletions": 4}},
        ),
        (
            ["--mode", "replicated-job", "--replicas", "4", "--max-concurrent", "2"],
            {"ReplicatedJob": {"MaxConcurrent": 2, "TotalCompletions": 4}},
        ),
    ],
)
def test_modes(words, mode):
    assert made(*words, "busybox")["Mode"] == mode


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--mode", "global", "--replicas", "2"], "replicas can only be used with replicated"),
        (["--max-concurrent", "2"], "max-concurrent can only be used with replicated-job"),
        (["--mode", "global-job", "--update-delay", "1s"], "update config is not supported for jobs"),
        (["--no-healthcheck", "--health-retries", "3"], "conflicts with --health"),
        (["--host", "db"], "write host:ip"),
    ],
)
def test_flags_that_do_not_go_together(words, message):
    with pytest.raises(InvalidArgument, match=message):
        made(*words, "busybox")


BASE = {
    "Name": "web",
    "Labels": {"a": "1", "b": "2"},
    "TaskTemplate": {
        "ContainerSpec": {
            "Image": "busybox",
            "Env": ["A=1", "B=2"],
            "Mounts": [{"Type": "volume", "Target": "/a"}, {"Type": "volume", "Target": "/b"}],
            "CapabilityDrop": ["CAP_CHOWN"],
            "Hosts": ["10.0.0.5 db", "10.0.0.6 db"],
            "FutureField": {"kept": True},
        },
        "Placement": {"Constraints": ["node.role==worker"], "Platforms": [{"OS": "linux"}]},
        "Resources": {"Reservations": {"GenericResources": [{"DiscreteResourceSpec": {"Kind": "gpu", "Value": 1}}]}},
        "ForceUpdate": 2,
    },
    "Mode": {"Replicated": {"Replicas": 2}},
    "EndpointSpec": {"Mode": "vip", "Ports": [{"Protocol": "tcp", "TargetPort": 80, "PublishedPort": 8080}]},
    "UpdateConfig": {"Parallelism": 4, "Order": "start-first"},
}


def test_update_without_flags_changes_nothing():
    assert changed(BASE) == BASE


def test_update_adds_and_removes():
    spec = changed(
        BASE,
        "--env-add",
        "C=3",
        "--env-add",
        "A=9",
        "--env-rm",
        "B",
        "--label-add",
        "c=3",
        "--label-rm",
        "a",
        "--mount-add",
        "type=tmpfs,target=/b",
        "--mount-rm",
        "/a",
        "--constraint-add",
        "node.id!=x",
        "--constraint-rm",
        "node.role==worker",
        "--publish-rm",
        "80",
        "--publish-add",
        "9090:81",
        "--cap-add",
        "CHOWN",
        "--host-rm",
        "db:10.0.0.5",
        "--force",
        "--replicas",
        "5",
        "--args",
        "sleep 1",
        "--update-delay",
        "1s",
        "--generic-resource-rm",
        "gpu",
        "--generic-resource-add",
        "fpga=1",
        "--image",
        "busybox:2",
    )
    container = spec["TaskTemplate"]["ContainerSpec"]
    assert container["Env"] == ["A=9", "C=3"]
    assert container["Mounts"] == [{"Type": "tmpfs", "Target": "/b"}]
    assert container["CapabilityAdd"] == ["CAP_CHOWN"]
    assert "CapabilityDrop" not in container
    assert container["Hosts"] == ["10.0.0.6 db"]
    assert container["Args"] == ["sleep", "1"]
    assert container["Image"] == "busybox:2"
    assert container["FutureField"] == {"kept": True}
    assert spec["Labels"] == {"b": "2", "c": "3"}
    assert spec["TaskTemplate"]["Placement"] == {"Constraints": ["node.id!=x"], "Platforms": [{"OS": "linux"}]}
    assert spec["TaskTemplate"]["ForceUpdate"] == 3
    assert spec["Mode"] == {"Replicated": {"Replicas": 5}}
    assert [(port["TargetPort"], port["PublishedPort"]) for port in spec["EndpointSpec"]["Ports"]] == [(81, 9090)]
    assert spec["UpdateConfig"] == {"Parallelism": 4, "Order": "start-first", "Delay": SECOND}
    kinds = [
        item["DiscreteResourceSpec"]["Kind"]
        for item in spec["TaskTemplate"]["Resources"]["Reservations"]["GenericResources"]
    ]
    assert kinds == ["fpga"]
    assert BASE["Labels"] == {"a": "1", "b": "2"}


def test_update_that_does_not_fit():
    with pytest.raises(InvalidArgument, match="replicas can only be used with replicated mode"):
        changed({**BASE, "Mode": {"Global": {}}}, "--replicas", "2")
    with pytest.raises(InvalidArgument, match="could not find generic-resource `fpga`"):
        changed(BASE, "--generic-resource-rm", "fpga")


def test_empty_arguments_clear():
    spec = changed({**BASE, "TaskTemplate": {"ContainerSpec": {"Image": "i", "Args": ["a"]}}}, "--args", "")
    assert spec["TaskTemplate"]["ContainerSpec"]["Args"] == []


@pytest.mark.parametrize(
    ("written", "sent"),
    [
        ("busybox", "busybox:latest"),
        ("docker.io/library/busybox:1", "busybox:1"),
        ("docker.io/me/app", "me/app:latest"),
        ("localhost:5000/app", "localhost:5000/app:latest"),
        ("app@sha256:00", "app@sha256:00"),
    ],
)
def test_image_is_sent_as_docker_sends_it(written, sent):
    assert made(written)["TaskTemplate"]["ContainerSpec"]["Image"] == sent


def test_labels_of_shoal_have_flags_and_an_empty_value_takes_them_away():
    words = ("--label", "a=b", "--canary", "10%", "--drain", "1s", "--privileged", "--cron-schedule", "@daily")
    spec = made("--name", "web", *words, "busybox")
    assert spec["Labels"] == {
        "a": "b",
        "shoal.update.canary": "10%",
        "shoal.drain": "1s",
        "shoal.privileged": "true",
        "swarm.cronjob.schedule": "@daily",
        "swarm.cronjob.enable": "true",
    }
    words = ("--canary", "", "--drain", "2s", "--privileged=false", "--cron-schedule", "", "--label-add", "c=d")
    assert changed(spec, *words)["Labels"] == {"a": "b", "c": "d", "shoal.drain": "2s"}
    plain = {"Name": "web", "TaskTemplate": {"ContainerSpec": {}}}
    assert "Labels" not in changed(plain, "--image", "b")
    assert changed(plain, "--lb", "source")["Labels"] == {"shoal.lb": "source"}


def test_every_label_of_the_reference_has_its_flag():
    rows = re.findall(
        r"^\| `((?:shoal|swarm)\.[a-z.-]+)` \|.*\| `(--[a-z-]+)` \|$", REFERENCE.read_text(), re.MULTILINE
    )
    assert dict(rows) == {each.label: each.flag for each in LABEL_FLAGS}
    labels = re.findall(r"^\| `(shoal\.[a-z.-]+)` \|", REFERENCE.read_text(), re.MULTILINE)
    assert set(labels) <= dict(rows).keys()
