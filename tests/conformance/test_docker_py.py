"""docker-py against a real daemon: services, tasks, nodes, images, containers."""

import datetime as dt
import gc
import socket

import docker
import pytest
from docker.types import (
    ConfigReference,
    DNSConfig,
    EndpointSpec,
    Healthcheck,
    Mount,
    Privileges,
    Resources,
    RestartPolicy,
    RollbackConfig,
    SecretReference,
    ServiceMode,
    UpdateConfig,
)

from shoal.lab.image import busybox_archive
from tests.conformance.conftest import SERVE_HOSTNAME
from tests.conformance.replies.vectors import frames
from tests.system.daemon import wait_for

pytestmark = [
    pytest.mark.root,
    # docker-py leaves connections of streams to the collector
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture
def client(daemon):
    client = docker.DockerClient(base_url=daemon.host, version="auto")
    yield client
    for service in client.services.list():
        service.remove()
    for container in client.api.containers(all=True, filters={"is-task": ["false"]}):
        client.api.remove_container(container["Id"], force=True)
    # not containers.list: it looks at each again, and one may have gone by then
    wait_for(lambda: client.api.containers(all=True) == [], "no container")
    client.close()
    # here, and not in another test
    gc.collect()


def running(service):
    tasks = service.tasks(filters={"desired-state": "running"})
    return [task for task in tasks if task["Status"]["State"] == "running"]


def test_services_and_tasks(daemon, client):
    service = client.services.create(
        "busybox",
        ["sh", "-c", SERVE_HOSTNAME],
        name="web",
        labels={"a": "b"},
        env=["X=1"],
        mode=ServiceMode("replicated", 2),
        endpoint_spec=EndpointSpec(ports={8087: 80}),
        resources=Resources(mem_limit=64 << 20),
        stop_grace_period=0,
        restart_policy=RestartPolicy("any", delay=0),
        update_config=UpdateConfig(parallelism=2, monitor=100_000_000),
    )
    wait_for(lambda: len(running(service)) == 2, "both run")
    assert {task["Slot"] for task in running(service)} == {1, 2}
    assert len(daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8087").stdout.strip()) == 12
    service.reload()
    assert service.scale(3)
    wait_for(lambda: len(running(service)) == 3, "three run")
    before = {task["ID"] for task in running(service)}
    service.reload()
    service.update(env=["X=2"], fetch_current_spec=True)
    wait_for(lambda: len(found := running(service)) == 3 and not before & {t["ID"] for t in found}, "all are new")
    service.reload()
    wait_for(lambda: service.reload() or service.attrs["UpdateStatus"]["State"] == "completed", "the update is done")
    assert client.services.get("web").id == service.id
    assert [each.name for each in client.services.list(filters={"label": "a=b"}, status=True)] == ["web"]
    assert b"".join(service.logs(stdout=True)) == b""
    assert service.force_update()
    with pytest.raises(
        docker.errors.APIError, match="name conflicts with an existing object: service web already exists"
    ):
        client.services.create("busybox", ["true"], name="web")


def test_global_service_and_nodes(client):
    (node,) = client.nodes.list()
    assert node.attrs["Status"]["State"] == "ready"
    assert node.update({"Availability": "active", "Role": "manager", "Labels": {"zone": "a"}})
    service = client.services.create("busybox", ["sleep", "999"], name="all", mode="global", stop_grace_period=0,
                                     constraints=["node.labels.zone==a"])  # fmt: skip
    wait_for(lambda: len(running(service)) == 1, "it runs")
    assert running(service)[0]["NodeID"] == node.id
    node.reload()
    assert node.attrs["Spec"]["Labels"] == {"zone": "a"}
    assert node.update({"Availability": "active", "Role": "manager", "Labels": {}})
    wait_for(lambda: not running(service), "it no longer fits")


def test_images(client):
    (made,) = client.images.load(b"".join(client.images.get("busybox:latest").save(named=True)))
    assert "busybox:latest" in made.tags
    assert made.tag("copy", "two")
    assert client.images.get("copy:two").id == made.id
    client.images.remove("copy:two")
    client.api.import_image_from_data(busybox_archive({"etc/new": "x"}), repository="fresh", tag="1")
    fresh = client.images.get("fresh:1")
    assert fresh.id != made.id
    client.images.remove("fresh:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("fresh:1")


def test_containers(client):
    service = client.services.create(
        "busybox",
        ["sh", "-c", "echo hello; exec sleep 999"],
        name="c",
        stop_grace_period=0,
        restart_policy=RestartPolicy("any", delay=0),
        container_labels={"mine": "yes"},
    )
    wait_for(lambda: running(service), "it runs")
    (container,) = client.containers.list(filters={"label": "mine=yes"})
    assert container.status == "running"
    assert container.name.startswith("c.1.")
    assert container.image.tags == ["busybox:latest"]
    wait_for(lambda: container.logs() == b"hello\n", "its output")
    container.kill()
    assert container.wait()["StatusCode"] == 137
    wait_for(
        lambda: [each for each in client.containers.list(ignore_removed=True) if each.id != container.id],
        "another is there",
    )
    container.reload()
    assert container.status == "exited"
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nope")


INSIDE = """
id; hostname; pwd; tail -n 3 /etc/hosts; cat /etc/resolv.conf; cat /run/secrets/hidden /etc/shown.conf;
grep -E 'CapEff|NoNewPrivs' /proc/self/status; cat /proc/sys/net/ipv4/ip_forward; ulimit -n; touch /x; touch /data/y;
echo $A; test -c /dev/fd/0 && echo terminal
"""


def every_option(client):
    """All that `services.create` of docker-py takes and a Linux node has."""
    secret = client.secrets.create(name="hidden", data=b"secret\n")
    config = client.configs.create(name="shown", data=b"shown\n")
    network = client.networks.create("wide", driver="overlay", attachable=True)
    return {
        "name": "all", "labels": {"a": "b"}, "container_labels": {"in": "side"}, "env": ["A=1"], "user": "1000:1000",
        "groups": ["1001"], "hostname": "h-{{.Task.Slot}}", "workdir": "/tmp", "hosts": {"other": "10.9.8.7"},
        "dns_config": DNSConfig(nameservers=["10.1.1.1"], search=["x.y"], options=["ndots:3"]), "read_only": True,
        "secrets": [SecretReference(secret.id, "hidden", uid="1000", mode=0o400)], "tty": True, "open_stdin": True,
        "configs": [ConfigReference(config.id, "shown", filename="/etc/shown.conf")], "networks": [network.id],
        "mounts": [Mount("/data", "data", type="volume"), "/etc:/host-etc:ro"], "cap_add": ["CAP_NET_ADMIN"],
        "cap_drop": ["CAP_CHOWN"], "privileges": Privileges(), "sysctls": {"net.ipv4.ip_forward": "1"},
        "mode": ServiceMode("replicated", 1), "constraints": ["node.role==manager"],
        "preferences": [("spread", "node.labels.zone")], "maxreplicas": 2, "platforms": [],
        "endpoint_spec": EndpointSpec("vip", {8089: (80, "tcp", "host")}), "stop_grace_period": 0,
        "stop_signal": "SIGTERM", "log_driver": "json-file", "log_driver_options": {"max-size": "1m"},
        "resources": Resources(500_000_000, 64 << 20, cpu_reservation=1_000_000, mem_reservation=8 << 20),
        "restart_policy": RestartPolicy("on-failure", delay=0, max_attempts=2, window=0),
        "update_config": UpdateConfig(2, 0, "rollback", 100_000_000, 0.5, "start-first"),
        "rollback_config": RollbackConfig(1, 0, "pause", 100_000_000, 0, "stop-first"),
        "healthcheck": Healthcheck(test=["CMD", "true"], interval=100_000_000, retries=2), "isolation": "default",
    }  # fmt: skip


def test_a_service_with_every_option(client):
    options = every_option(client)
    command = ["sh", "-c", f"{INSIDE} exec sleep 1000"]
    service = client.services.create("busybox", command, **options)
    (task,) = wait_for(lambda: running(service), "it is healthy", 30)
    container = client.containers.get(task["Status"]["ContainerStatus"]["ContainerID"])
    wait_for(lambda: b"terminal" in container.logs(), "it has said all")
    said = container.logs().decode().split("\r\n")
    assert said[:3] == ["uid=1000 gid=1000 groups=1000,1001", "h-1", "/tmp"]
    text = "\n".join(said)
    for line in ("10.9.8.7\tother", "search x.y", "secret", "shown", "NoNewPrivs:\t0", "1", "terminal"):
        assert line in said, line
    assert "touch: /x: Read-only file system" in text
    assert "ndots:3" in text
    attributes = container.attrs
    assert (attributes["Config"]["Labels"]["in"], attributes["State"]["Health"]["Status"]) == ("side", "healthy")
    assert attributes["HostConfig"]["CapDrop"] == ["CAP_CHOWN"]
    assert attributes["NetworkSettings"]["Ports"] == {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8089"}]}
    # what is read back can be sent again, and nothing is replaced by it
    service.reload()
    spec = service.attrs["Spec"]
    service.update(fetch_current_spec=True)
    service.reload()
    assert service.attrs["Spec"]["TaskTemplate"] == spec["TaskTemplate"]
    assert [each["ID"] for each in running(service)] == [task["ID"]]
    service.remove()
    wait_for(lambda: client.api.containers(all=True) == [], "it has gone")
    for kind, name in ((client.secrets, "hidden"), (client.configs, "shown"), (client.networks, "wide")):
        (found,) = kind.list(filters={"name": name})
        found.remove()
    client.volumes.get("data").remove()


def test_execs(client):
    container = client.containers.run("busybox", ["sleep", "1000"], detach=True, environment={"B": "2"})
    assert container.exec_run("echo hi") == (0, b"hi\n")
    words = ["sh", "-c", "echo $A$B; id -u; pwd; echo err >&2; exit 3"]
    code, output = container.exec_run(words, environment={"A": "1"}, user="5", workdir="/tmp", demux=True)
    assert (code, output) == (3, (b"12\n5\n/tmp\n", b"err\n"))
    code, stream = container.exec_run(["sh", "-c", "echo a; echo b"], stream=True)
    assert (code, b"".join(stream)) == (None, b"a\nb\n")
    assert container.exec_run("tty", tty=True) == (0, b"/dev/pts/0\r\n")
    _, raw = container.exec_run(["wc", "-c"], stdin=True, socket=True)
    raw._sock.sendall(b"12345")
    raw._sock.shutdown(socket.SHUT_WR)
    assert b"".join(payload for _, payload in frames(raw.read())) == b"5\n"
    raw.close()
    made = client.api.exec_create(container.id, ["sleep", "1000"])["Id"]
    assert client.api.exec_start(made, detach=True) == ""
    assert client.api.exec_inspect(made)["Running"]
    code, output = container.exec_run("nothing")
    assert (code, b'exec: "nothing": executable file not found in $PATH' in output) == (127, True)


def test_logs_and_health(client):
    command = ["sh", "-c", "echo one; sleep 0.2; echo two; echo err >&2; touch /ready; exec sleep 1000"]
    check = Healthcheck(test="test -e /ready", interval=100_000_000, start_period=0)
    events = client.events(decode=True, filters={"event": "health_status"})
    container = client.containers.run("busybox", command, detach=True, healthcheck=check, name="talker")
    assert next(events)["status"].startswith("health_status: ")
    events.close()
    wait_for(lambda: container.reload() or container.health == "healthy", "it is healthy")
    assert container.attrs["State"]["Health"]["Log"][-1]["ExitCode"] == 0
    assert container.logs() == b"one\ntwo\nerr\n"
    assert container.logs(stderr=False, tail=1) == b"two\n"
    stamped = container.logs(timestamps=True, stdout=False).decode()
    assert stamped.endswith("Z err\n")
    since = dt.datetime.fromisoformat(f"{stamped[:26]}+00:00").timestamp()
    assert b"one" not in container.logs(since=since)
    assert container.logs(until=since - 60) == b""
    followed = container.logs(stream=True, follow=True)
    assert next(followed) == b"one\n"
    followed.close()
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.remove()
    assert client.containers.run("busybox", ["echo", "gone"], remove=True) == b"gone\n"
    with pytest.raises(docker.errors.ContainerError, match="returned non-zero exit status 4"):
        client.containers.run("busybox", ["sh", "-c", "exit 4"], remove=True)
