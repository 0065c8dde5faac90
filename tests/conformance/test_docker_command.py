"""The stock docker command against a real daemon with real containers: what the everyday commands print and do."""

import json
import re
import subprocess
import sys
from collections import Counter
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.conformance.conftest import SERVE_HOSTNAME
from tests.system.daemon import running_daemon, wait_for

pytestmark = pytest.mark.root

PEER = Path(__file__).parents[1] / "system" / "network" / "peer.py"
WEB = ("busybox", "sh", "-c", SERVE_HOSTNAME)
LOCAL = ("--no-resolve-image", "--stop-grace-period", "0s")
REPLICAS = ("service", "ls", "--format", "{{.Name}} {{.Replicas}}")


def fetch(daemon, port, address="127.0.0.1"):
    return daemon.execute("curl", "-sS", "--max-time", "5", f"http://{address}:{port}", check=False).stdout.strip()


def shown(docker, *words):
    """Return the JSON of an inspect of one object."""
    return json.loads(docker(*words))[0]


def states(docker, service):
    lines = docker("service", "ps", "--format", "{{.Name}}|{{.CurrentState}}|{{.Error}}", "--no-trunc", service)
    return [line.split("|") for line in lines.splitlines()]


def create(docker, name, *words):
    """Create a service and wait until it runs: without the five seconds that the command watches it for."""
    docker("service", "create", *LOCAL, "-d", "--name", name, *words)
    wait_until_all_run(docker, name)


def wait_until_all_run(docker, name):
    pattern = re.compile(rf"^{name} (\d+)/\1$", re.MULTILINE)
    wait_for(lambda: pattern.search(docker(*REPLICAS)), f"all of {name} run")


def wait_until_updated(docker, name, state="completed"):
    status = ("service", "inspect", "--format", "{{if .UpdateStatus}}{{.UpdateStatus.State}}{{end}}", name)
    wait_for(lambda: docker(*status).strip() == state, f"the update of {name} is {state}")
    wait_until_all_run(docker, name)


def container_of(docker, task_name):
    return docker("ps", "-q", "--no-trunc", "--filter", f"name={task_name}").strip()


def test_swarm_init_and_leave():
    with running_daemon() as daemon:
        printed = daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1").stdout
        node_id = re.search(r"current node \((\w{25})\) is now a manager", printed)[1]
        assert re.search(r"docker swarm join --token SWMTKN-1-[0-9a-z]{50}-[0-9a-z]{25} 127.0.0.1:2377", printed)
        assert "docker swarm join-token manager" in printed
        again = daemon.docker("swarm", "init", check=False)
        assert again.returncode == 1
        assert 'This node is already part of a swarm. Use "docker swarm leave" to leave' in again.stderr
        assert node_id in daemon.docker("node", "ls", "-q").stdout
        leave = daemon.docker("swarm", "leave", check=False)
        assert leave.returncode == 1
        assert "Removing the last manager erases all current state of the swarm. Use `--force`" in leave.stderr
        assert daemon.docker("swarm", "leave", "--force").stdout == "Node left the swarm.\n"
        outside = daemon.docker("service", "ls", check=False)
        assert "This node is not a swarm manager" in outside.stderr
        assert "Swarm: inactive" in daemon.docker("info").stdout
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        daemon.docker("swarm", "leave", "--force")


def test_info_version_and_nodes(daemon, docker):
    assert "API version:" in docker("version")
    info = docker("info")
    for line in ("Swarm: active", "Is Manager: true", "Managers: 1", "Nodes: 1", "Node Address: 127.0.0.1"):
        assert line in info
    node_id, hostname = docker("node", "ls", "--format", "{{.ID}} {{.Hostname}}").split()
    assert (
        docker("node", "ls", "--format", "{{.Status}} {{.Availability}} {{.ManagerStatus}}") == "Ready Active Leader\n"
    )
    assert shown(docker, "node", "inspect", "self")["ID"] == node_id
    assert f"Hostname:              \t{hostname}" in docker("node", "inspect", "--pretty", hostname)


def test_images(daemon, docker, tmp_path):
    assert "busybox" in docker("images")
    docker("tag", "busybox", "other:one")
    saved = tmp_path / "saved.tar"
    docker("save", "-o", str(saved), "other:one")
    assert docker("rmi", "other:one") == "Untagged: other:one\n"
    assert "other" not in docker("images")
    assert docker("load", "-i", str(saved)) == "Loaded image: other:one\n"
    assert shown(docker, "image", "inspect", "other:one")["Id"] == shown(docker, "image", "inspect", "busybox")["Id"]
    docker("rmi", "other:one")
    archive = tmp_path / "root.tar"
    subprocess.run(["tar", "-cf", archive, "-C", str(tmp_path), "--exclude=*.tar", "."], check=True)
    assert docker("import", "-c", 'CMD ["x"]', str(archive), "made:here").startswith("sha256:")
    assert shown(docker, "image", "inspect", "made:here")["Config"]["Cmd"] == ["x"]
    assert docker("rmi", "made:here").startswith("Untagged: made:here\nDeleted: sha256:")
    assert "No such image: nope" in docker("rmi", "nope", check=False)
    assert "No such image: nope" in docker("image", "inspect", "nope", check=False)


def test_service_life(daemon, docker):
    printed = docker("service", "create", *LOCAL, "--name", "web", "--replicas", "3", "-p", "8080:80", *WEB)
    assert "verify: Service" in printed
    assert "converged" in printed
    assert docker("service", "ls", "--format", "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}") == (
        "web replicated 3/3 busybox:latest *:8080->80/tcp\n"
    )
    tasks = states(docker, "web")
    assert [name for name, _, _ in tasks] == ["web.1", "web.2", "web.3"]
    assert all(
        re.fullmatch(r"Running (less than a second|\d+ seconds?|about a minute) ago", state) for _, state, _ in tasks
    )
    pretty = docker("service", "inspect", "--pretty", "web")
    for piece in (
        "Service Mode:\tReplicated\n Replicas:\t3",
        "Image:\t\tbusybox:latest",
        "PublishedPort = 8080",
        "PublishMode = ingress",
    ):
        assert piece in pretty
    assert shown(docker, "service", "inspect", "web")["Spec"]["EndpointSpec"]["Ports"][0]["PublishedPort"] == 8080
    assert len(docker("ps", "-q").split()) == 3
    assert "web scaled to 2" in docker("service", "scale", "-d", "web=2")
    wait_until_all_run(docker, "web")
    assert docker("service", "ls", "--format", "{{.Replicas}}") == "2/2\n"
    wait_for(lambda: len(docker("ps", "-q").split()) == 2, "two containers")
    assert "web scaled to 0" in docker("service", "scale", "-d", "web=0")
    wait_for(lambda: docker("service", "ls", "--format", "{{.Replicas}}") == "0/0\n", "none")
    assert docker("service", "rm", "web") == "web\n"
    assert "no such service: web" in docker("service", "inspect", "web", check=False)
    # clients before 23 have words of their own for a 404
    gone = docker("service", "rm", "web", check=False)
    assert "service web not found" in gone or "No such service: web" in gone
    wait_for(lambda: docker("ps", "-qa") == "", "no container")


def test_update_and_rollback(daemon, docker):
    docker("tag", "busybox", "busybox:two")
    create(docker, "web", "--replicas", "3", "--update-monitor", "100ms", "--rollback-monitor", "100ms",
           "--update-parallelism", "1", "--update-delay", "200ms", *WEB)  # fmt: skip
    first = set(docker("ps", "-q").split())
    docker("service", "update", "-d", "--no-resolve-image", "--image", "busybox:two", "--env-add", "A=b", "web")
    wait_until_updated(docker, "web")
    assert docker("ps", "--format", "{{.Image}}").split() == ["busybox:two"] * 3
    assert not first & set(docker("ps", "-q").split())
    assert " State:\t\tcompleted" in docker("service", "inspect", "--pretty", "web")
    container = shown(docker, "inspect", container_of(docker, "web.1"))
    assert "A=b" in container["Config"]["Env"]
    history = docker("service", "ps", "--format", "{{.Name}} {{.DesiredState}}", "web").splitlines()
    assert [line.split()[-1] for line in history].count("Shutdown") == 3
    assert "\\_ web.1" in docker("service", "ps", "web")
    docker("service", "update", "-d", "--replicas", "2", "web")
    docker("service", "update", "-d", "--replicas", "3", "--env-rm", "A", "--env-add", "B=c", "web")
    wait_until_updated(docker, "web")
    docker("service", "rollback", "-d", "web")
    wait_until_updated(docker, "web", "rollback_completed")
    container = shown(docker, "inspect", container_of(docker, "web.1"))
    assert "A=b" in container["Config"]["Env"]
    assert docker("service", "ls", "--format", "{{.Replicas}}") == "2/2\n"
    before = set(docker("ps", "-q").split())
    docker("service", "update", "-d", "--force", "web")
    wait_until_updated(docker, "web")
    assert not before & set(docker("ps", "-q").split())
    assert shown(docker, "service", "inspect", "web")["Spec"]["TaskTemplate"]["ForceUpdate"] == 1


def test_container_of_many_options(daemon, docker, tmp_path):
    (tmp_path / "file").write_text("from the host")
    tmp_path.chmod(0o755)
    create(docker, "all", "--hostname", "h-{{.Service.Name}}-{{.Task.Slot}}",
           "--env", "NODE={{.Node.Hostname}}", "--env", "PLAIN=1", "--user", "1000:1001", "--workdir", "/tmp",
           "--label", "on=service", "--container-label", "on=container", "--limit-memory", "64M", "--limit-cpu", "0.5",
           "--mount", f"type=bind,source={tmp_path},target=/host,readonly", "--constraint", "node.role==manager",
           "--mount", "type=tmpfs,target=/scratch,tmpfs-size=1M", "busybox", "sh", "-c",
           "hostname; echo $NODE $PLAIN; id -u; id -g; pwd; cat /host/file; echo; touch /host/no; df /scratch; "
           "exec sleep 9999")  # fmt: skip
    lines = wait_for(
        lambda: (found := docker("service", "logs", "--raw", "all")) and "scratch" in found and found, "output"
    )
    hostname = docker("node", "ls", "--format", "{{.Hostname}}").strip()
    assert lines.splitlines()[:6] == ["h-all-1", f"{hostname} 1", "1000", "1001", "/tmp", "from the host"]
    assert re.search(r"tmpfs +1024 ", lines)
    assert not (tmp_path / "no").exists()
    service = shown(docker, "service", "inspect", "all")
    assert service["Spec"]["Labels"] == {"on": "service"}
    container = shown(docker, "inspect", container_of(docker, "all.1"))
    assert container["Config"]["Labels"]["on"] == "container"
    assert container["HostConfig"]["Memory"] == 64 << 20
    assert container["HostConfig"]["NanoCpus"] == 500_000_000
    cgroup = [
        line for line in Path(f"/proc/{container['State']['Pid']}/cgroup").read_text().splitlines() if "memory" in line
    ]
    if cgroup:
        limit = Path("/sys/fs/cgroup/memory" + cgroup[0].split(":", 2)[2]) / "memory.limit_in_bytes"
        assert int(limit.read_text()) == 64 << 20
    pretty = docker("service", "inspect", "--pretty", "all")
    assert "Limits:\n  CPU:\t\t0.5\n  Memory:\t64MiB" in pretty


def test_constraints_and_global(daemon, docker):
    hostname = docker("node", "ls", "--format", "{{.Hostname}}").strip()
    docker(
        "service",
        "create",
        *LOCAL,
        "-d",
        "--name",
        "nowhere",
        "--constraint",
        "node.labels.x==y",
        "busybox",
        "sleep",
        "999",
    )
    wait_for(
        lambda: "no suitable node (scheduling constraints not satisfied on 1 node)" in str(states(docker, "nowhere")),
        "a reason",
    )
    assert docker("service", "ls", "--format", "{{.Replicas}}") == "0/1\n"
    docker("node", "update", "--label-add", "x=y", hostname)
    wait_for(lambda: docker("service", "ls", "--format", "{{.Replicas}}") == "1/1\n", "it is placed")
    docker("node", "update", "--label-rm", "x", hostname)
    docker("service", "rm", "nowhere")
    create(docker, "everywhere", "--mode", "global", "busybox", "sleep", "999")
    assert docker("service", "ls", "--format", "{{.Mode}} {{.Replicas}}") == "global 1/1\n"


def test_drain_and_active(daemon, docker):
    hostname = docker("node", "ls", "--format", "{{.Hostname}}").strip()
    create(docker, "web", "--replicas", "2", *WEB)
    docker("node", "update", "--availability", "drain", hostname)
    wait_for(lambda: docker("ps", "-q") == "", "a drained node runs nothing")
    assert docker("service", "ls", "--format", "{{.Replicas}}") == "0/2\n"
    assert docker("node", "ls", "--format", "{{.Availability}}") == "Drain\n"
    docker("node", "update", "--availability", "active", hostname)
    wait_for(lambda: docker("service", "ls", "--format", "{{.Replicas}}") == "2/2\n", "the tasks are back")


def test_logs(daemon, docker):
    create(docker, "talk", "--replicas", "2", "busybox", "sh", "-c",
           "for i in 1 2 3 4; do echo out $i; echo err $i >&2; done; exec sleep 999")  # fmt: skip

    def all_out():
        done = daemon.docker("service", "logs", "talk")
        return (done.stdout, done.stderr) if (done.stdout + done.stderr).count("4\n") == 4 else None

    out, err = wait_for(all_out, "both replicas have spoken")
    assert out.count("out") == 8
    assert err.count("err") == 8
    assert re.search(r"^talk\.[12]\.\w{12}@\S+ +\| out 1$", out, re.MULTILINE)
    last = daemon.docker("service", "logs", "--tail", "1", "talk")
    assert len((last.stdout + last.stderr).splitlines()) == 2
    stamped = daemon.docker("service", "logs", "--timestamps", "--raw", "talk").stdout
    assert re.search(r"^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d+Z out 1$", stamped, re.MULTILINE)
    # the command takes the swarm's own details out again: none is left
    assert "|  out 1" in daemon.docker("service", "logs", "--details", "talk").stdout
    task = docker("service", "ps", "-q", "--no-trunc", "talk").split()[0]
    assert daemon.docker("service", "logs", "--raw", task).stdout == "out 1\nout 2\nout 3\nout 4\n"
    container = container_of(docker, "talk.1")
    assert daemon.docker("logs", container).stdout == "out 1\nout 2\nout 3\nout 4\n"
    assert daemon.docker("logs", "--tail", "2", container).stderr.endswith("err 4\n")


def test_containers_of_tasks(daemon, docker):
    create(docker, "web", "--restart-delay", "0s", "busybox", "sleep", "999")
    names = docker("ps", "--format", "{{.Names}} {{.Image}} {{.Command}}").strip()
    assert re.fullmatch(r'web\.1\.\w{25} busybox:latest "sleep 999"', names)
    for word in (("kill",), ("stop", "-t", "0"), ("rm", "-f")):
        container = container_of(docker, "web.1")
        assert docker(*word, container).strip() == container
        wait_for(lambda old=container: container_of(docker, "web.1") not in ("", old), f"a new container after {word}")
    assert "No such container: nope" in docker("inspect", "--type", "container", "nope", check=False)
    assert "No such container: nope" in docker("logs", "nope", check=False)


def test_ports_of_the_mesh(daemon, docker):
    create(docker, "web", "--replicas", "3", "-p", "8080:80", *WEB)
    hostnames = {name[:12] for name in docker("ps", "-q", "--no-trunc").split()}
    answers = Counter()
    wait_for(lambda: answers.update([fetch(daemon, 8080)]) or set(answers) - {""} == hostnames, "each replica answers")
    refused = docker("service", "create", *LOCAL, "--name", "second", "-p", "8080:80", *WEB, check=False)
    assert "port '8080' is already in use by service 'web' (" in refused
    assert "as an ingress port" in refused
    create(docker, "dynamic", "-p", "80", *WEB)
    (port,) = shown(docker, "service", "inspect", "dynamic")["Endpoint"]["Ports"]
    assert 30000 <= port["PublishedPort"] <= 32767
    assert len(fetch(daemon, port["PublishedPort"])) == 12
    docker("service", "update", "-d", "--publish-rm", "80", "--publish-add", "8081:80", "dynamic")
    wait_for(lambda: len(fetch(daemon, 8081)) == 12, "the new port answers")
    assert fetch(daemon, port["PublishedPort"]) == ""


def test_host_ports(daemon, docker):
    create(docker, "web", "-p", "mode=host,published=8082,target=80", *WEB)
    assert len(fetch(daemon, 8082)) == 12
    assert "*:8082->80/tcp" in docker("service", "ps", "--format", "{{.Ports}}", "web")
    assert "8082->80/tcp" in docker("ps", "--format", "{{.Ports}}")
    docker("service", "create", *LOCAL, "-d", "--name", "second", "-p", "mode=host,published=8082,target=80", *WEB)
    reason = "no suitable node (host-mode port already in use on 1 node)"
    wait_for(lambda: reason in str(states(docker, "second")), "the port is in use")
    docker("service", "rm", "second", "web")
    create(docker, "dynamic", "-p", "mode=host,target=80", *WEB)
    ports = docker("service", "ps", "--format", "{{.Ports}}", "dynamic")
    assert len(fetch(daemon, re.search(r"\*:(\d+)->80/tcp", ports)[1])) == 12


@contextmanager
def answering(docker, container):
    """Answer UDP on port 53 and TCP on 81 within a container's namespace, with the container's id."""
    pid = shown(docker, "inspect", container)["State"]["Pid"]
    command = ["nsenter", "-t", str(pid), "-n", sys.executable, str(PEER), "serve", container[:12], "81", "53"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "ready\n"
        try:
            yield
        finally:
            process.kill()


def ask_udp(daemon, port, count=1):
    done = daemon.execute(sys.executable, str(PEER), "udp", "127.0.0.1", str(port), str(count))
    return {line.split()[0] for line in done.stdout.splitlines()}


def test_udp_ports(daemon, docker):
    docker(
        "service", "create", *LOCAL, "--name", "dns", "--replicas", "2", "-p", "5300:53/udp", "busybox", "sleep", "999"
    )
    create(docker, "one", "-p", "mode=host,published=5301,target=53,protocol=udp",
           "busybox", "sleep", "999")  # fmt: skip
    first, second, alone = (container_of(docker, name) for name in ("dns.1", "dns.2", "one.1"))
    with answering(docker, first), answering(docker, second), answering(docker, alone):
        wait_for(lambda: ask_udp(daemon, 5300, 20) == {first[:12], second[:12]}, "both answer")
        assert ask_udp(daemon, 5301) == {alone[:12]}


def test_events(daemon, docker):
    create(docker, "seen", "busybox", "sleep", "999")
    docker("service", "rm", "seen")
    events = docker("events", "--since", "10m", "--until=-1s", "--filter", "type=service")
    assert re.search(r"service create \w{25} \(name=seen\b", events)
    assert re.search(r"service remove \w{25} \(name=seen\b", events)


@contextmanager
def registry(daemon, tmp_path, port=5000):
    configuration = tmp_path / "registry.yml"
    configuration.write_text(
        f"version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {tmp_path}/registry\n  delete:\n    enabled: true\n"
        f"http:\n  addr: 127.0.0.1:{port}\n"
    )
    command = ["nsenter", f"--net=/run/netns/{daemon.netns}", "docker-registry", "serve", str(configuration)]
    with (tmp_path / "registry.log").open("wb") as log, subprocess.Popen(command, stdout=log, stderr=log) as process:
        try:
            wait_for(lambda: "{}" in fetch(daemon, f"{port}/v2/"), "the registry answers")
            yield f"127.0.0.1:{port}"
        finally:
            process.kill()


def test_pull_from_a_registry(daemon, docker, tmp_path):
    with registry(daemon, tmp_path) as address:
        docker("save", "-o", str(tmp_path / "image.tar"), "busybox")
        daemon.execute("skopeo", "copy", "-q", "--dest-tls-verify=false", f"docker-archive:{tmp_path}/image.tar",
                       f"docker://{address}/team/app:1")  # fmt: skip
        pulled = docker("pull", f"{address}/team/app:1")
        digest = re.search(r"Digest: (sha256:\w{64})", pulled)[1]
        assert f"Status: Downloaded newer image for {address}/team/app:1" in pulled
        assert "Image is up to date" in docker("pull", f"{address}/team/app:1")
        assert (
            f"{address}/team/app@{digest}" in shown(docker, "image", "inspect", f"{address}/team/app:1")["RepoDigests"]
        )
        docker("rmi", f"{address}/team/app:1")
        # the service is pinned to the digest, and its task pulls
        docker(
            "service",
            "create",
            "-d",
            "--stop-grace-period",
            "0s",
            "--name",
            "app",
            f"{address}/team/app:1",
            "sleep",
            "999",
        )
        wait_until_all_run(docker, "app")
        image = shown(docker, "service", "inspect", "app")["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
        assert image == f"{address}/team/app:1@{digest}"
        assert docker("service", "ls", "--format", "{{.Image}} {{.Replicas}}") == f"{address}/team/app:1 1/1\n"
        assert "not found" in docker("pull", f"{address}/team/none", check=False)
        docker("service", "rm", "app")
        wait_for(lambda: docker("ps", "-qa") == "", "no container")
        docker("rmi", f"{address}/team/app@{digest}")
