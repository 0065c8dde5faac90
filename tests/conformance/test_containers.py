"""Plain containers through the stock docker command and docker-py: run, stop, start again, restart, remove."""

from __future__ import annotations

import io
import json
import socket
import tarfile
from pathlib import Path

import docker as docker_py
import pytest

from tests.conformance.conftest import SERVE_HOSTNAME
from tests.conformance.terminal import on_terminal
from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

SLEEP = ("busybox", "sleep", "1000")


@pytest.fixture(autouse=True)
def no_container_is_left(daemon):
    yield
    left = daemon.docker("ps", "-aq").stdout.split()
    if left:
        daemon.docker("rm", "-f", *left)


@pytest.fixture
def client(daemon):
    client = docker_py.DockerClient(base_url=daemon.host, timeout=30)
    yield client
    client.close()


def state_of(daemon, name):
    return json.loads(daemon.docker("inspect", name, "--format", "{{json .State}}").stdout)


def fetch(daemon, port):
    return daemon.execute("curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{port}", check=False).stdout.strip()


def test_run_in_the_foreground(daemon):
    said = daemon.docker("run", "--rm", "busybox", "sh", "-c", "echo out; echo err >&2; exit 7", check=False)
    assert (said.returncode, said.stdout, said.stderr) == (7, "out\n", "err\n")
    # what is piped in ends the container's input
    read = daemon.docker("run", "-i", "--rm", "busybox", "sh", "-c", "wc -c; echo done", input="x" * 200_000)
    assert read.stdout == "200000\ndone\n"
    shell = ("docker", "run", "-it", "--rm", "busybox", "sh")
    with on_terminal(*shell, environment={"DOCKER_HOST": daemon.host, "TERM": "xterm"}) as terminal:
        terminal.wait_for("# ")
        terminal.type("tty; exit 3\n")
        terminal.wait_for("/dev/pts/0")
        assert terminal.wait() == 3
    assert daemon.docker("ps", "-aq").stdout == ""


def test_a_container_is_started_again_over_what_it_left(daemon, client):
    container = client.containers.create(
        "busybox", ["sh", "-c", "echo run >> /runs; wc -l < /runs; exec sleep 1000"], name="again", labels={"a": "b"}
    )
    assert (container.status, container.labels) == ("created", {"a": "b"})
    container.start()
    wait_for(lambda: container.logs() == b"1\n", "it runs")
    container.stop(timeout=0)
    assert container.wait()["StatusCode"] == 137
    container.start()
    wait_for(lambda: container.logs() == b"1\n2\n", "it runs again")
    container.restart(timeout=0)
    wait_for(lambda: container.logs() == b"1\n2\n3\n", "three runs over one filesystem")
    container.pause()
    container.reload()
    assert container.status == "paused"
    container.unpause()
    container.rename("other")
    daemon.docker("kill", "other")
    assert state_of(daemon, "other")["ExitCode"] == 137
    # attached to one that has ended: what the next run says, and its code
    daemon.docker("run", "--name", "once", "busybox", "sh", "-c", "echo here; exit 4", check=False)
    once = daemon.docker("start", "-a", "once", check=False)
    assert (once.returncode, once.stdout) == (4, "here\n")


def test_restart_policies(daemon):
    daemon.docker("run", "-d", "--name", "fails", "--restart", "on-failure:2", "busybox", "sh", "-c", "exit 3")
    daemon.docker("run", "-d", "--name", "stays", "--restart", "always", *SLEEP)
    before = state_of(daemon, "stays")["Pid"]
    daemon.execute("kill", "-9", str(before))
    wait_for(lambda: state_of(daemon, "stays")["Pid"] not in (0, before), "it runs again")
    daemon.docker("stop", "-t", "0", "stays")
    state = state_of(daemon, "stays")
    assert (state["Status"], state["Running"]) == ("exited", False)
    wait_for(lambda: state_of(daemon, "fails")["Status"] == "exited", "its restarts are used up")
    count = daemon.docker("inspect", "fails", "--format", "{{.RestartCount}} {{.HostConfig.RestartPolicy}}").stdout
    assert count == "2 {on-failure 2}\n"


def test_limits(daemon):
    limits = ("--memory", "32m", "--cpus", "0.5", "--pids-limit", "50", "--ulimit", "nofile=99:99")
    daemon.docker("run", "-d", "--name", "box", *limits, *SLEEP)
    assert daemon.docker("exec", "box", "sh", "-c", "ulimit -n").stdout == "99\n"
    usage = ("stats", "--no-stream", "--format", "{{.MemUsage}} {{.PIDs}}", "box")
    assert "/ 32MiB" in daemon.docker(*usage).stdout
    daemon.docker("update", "--memory", "64m", "--pids-limit", "60", "--restart", "always", "box")
    assert "/ 64MiB" in daemon.docker(*usage).stdout
    shown = json.loads(daemon.docker("inspect", "box", "--format", "{{json .HostConfig}}").stdout)
    found = [shown[key] for key in ("Memory", "NanoCpus", "PidsLimit", "RestartPolicy")]
    assert found == [64 << 20, 500_000_000, 60, {"Name": "always", "MaximumRetryCount": 0}]
    more = ("--cpu-shares", "512", "--cpuset-cpus", "0", "--memory-reservation", "16m", "--memory-swap", "-1")
    daemon.docker("run", "-d", "--name", "shared", *more, "--memory", "32m", *SLEEP)
    allowed = ("exec", "shared", "grep", "Cpus_allowed_list", "/proc/self/status")
    assert daemon.docker(*allowed).stdout.split() == ["Cpus_allowed_list:", "0"]
    daemon.docker("update", "--cpu-shares", "256", "--cpu-quota", "50000", "--cpu-period", "100000", "shared")
    view = json.loads(daemon.docker("inspect", "shared", "--format", "{{json .HostConfig}}").stdout)
    found = [view[key] for key in ("CpuShares", "CpuQuota", "CpuPeriod", "CpusetCpus", "MemoryReservation")]
    assert found == [256, 50_000, 100_000, "0", 16 << 20]
    for words, text in (
        (("--cpuset-cpus", "900"), "Requested CPUs are not available - requested 900"),
        (("--blkio-weight", "50"), "HostConfig.BlkioWeight is not built"),
    ):
        assert text in daemon.docker("run", "--rm", *words, "busybox", "true", check=False).stderr


def test_namespaces_of_the_node_and_of_others(daemon):
    daemon.docker("run", "-d", "--name", "box", "busybox", "sleep", "1234")
    shared = daemon.docker("run", "--rm", "--pid", "container:box", "busybox", "ps").stdout
    assert "1 root     sleep 1234" in shared
    links = {kind: str(Path(f"/proc/self/ns/{kind}").readlink()) for kind in ("pid", "ipc", "uts")}
    read = "for kind in pid ipc uts; do readlink /proc/self/ns/$kind; done; hostname"
    said = daemon.docker("run", "--rm", "--pid", "host", "--ipc", "host", "--uts", "host", "busybox", "sh", "-c", read)
    assert said.stdout.split() == [*links.values(), socket.gethostname()]
    own = daemon.docker("run", "--rm", "busybox", "sh", "-c", read).stdout.split()
    assert not set(own) & set(links.values())
    # what it leaves running in the node's processes ends with it
    daemon.docker("run", "--rm", "--pid", "host", "busybox", "sh", "-c", "sleep 4321 & exit 0")
    wait_for(lambda: "sleep 4321" not in daemon.execute("ps", "ax").stdout, "its processes have gone")
    words = ("--pid", "host", "--uts", "host", "--name", "wide")
    daemon.docker("create", *words, *SLEEP)
    view = json.loads(daemon.docker("inspect", "wide", "--format", "{{json .HostConfig}}").stdout)
    assert (view["PidMode"], view["UTSMode"], view["IpcMode"]) == ("host", "host", "private")


def test_ports_and_networks(daemon):
    serve = ("busybox", "sh", "-c", SERVE_HOSTNAME)
    web = daemon.docker("run", "-d", "--name", "web", "-p", "8080:80", "-p", "81", *serve).stdout[:12]
    wait_for(lambda: fetch(daemon, 8080) == web, "it answers")
    assert "0.0.0.0:8080->80/tcp" in daemon.docker("ps").stdout
    assert daemon.docker("port", "web", "81").stdout.startswith("0.0.0.0:")
    taken = daemon.docker("run", "-d", "-p", "8080:80", *serve, check=False)
    assert "Bind for 0.0.0.0:8080 failed: port is already allocated" in taken.stderr
    shared = ("run", "--rm", "--network", "container:web", "busybox", "wget", "-qO-", "127.0.0.1")
    assert web in daemon.docker(*shared).stdout
    links = ("busybox", "ls", "/sys/class/net")
    assert daemon.docker("run", "--rm", "--network", "none", *links).stdout == "lo\n"
    assert "ingh-" in daemon.docker("run", "--rm", "--network", "host", *links).stdout
    daemon.docker("stop", "-t", "0", "web")
    assert fetch(daemon, 8080) == ""
    assert "8080" not in daemon.docker("ps", "-a", "--filter", "name=web").stdout


def test_lists_and_clients_that_wait(daemon):
    daemon.docker("create", "--name", "first", "--expose", "81", *SLEEP)
    daemon.docker("run", "-d", "--name", "second", "--network", "none", *SLEEP)

    def listed(*filters):
        words = [word for each in filters for word in ("--filter", each)]
        return daemon.docker("ps", "-a", "--format", "{{.Names}}", *words).stdout.split()

    assert listed("since=first") == listed("network=none") == ["second"]
    assert listed("before=second") == listed("expose=81/tcp") == ["first"]
    attached = socket.socket(socket.AF_UNIX)
    attached.settimeout(20)
    attached.connect(str(daemon.socket_path))
    attached.sendall(b"POST /containers/first/attach?stream=1&stdout=1 HTTP/1.1\r\nHost: d\r\n\r\n")
    assert attached.recv(4096).startswith(b"HTTP/1.1 200")
    daemon.docker("rm", "first")
    assert attached.recv(4096) == b"", "its stream ends with it"
    attached.close()


@pytest.fixture
def networks(daemon):
    """An attachable network with a service on it, and one that is not attachable."""
    daemon.docker("network", "create", "-d", "overlay", "--attachable", "open")
    daemon.docker("network", "create", "-d", "overlay", "closed")
    service = ("service", "create", "-d", "--no-resolve-image", "--stop-grace-period", "0s", "--name", "web")
    daemon.docker(*service, "--network", "open", "busybox", "sh", "-c", SERVE_HOSTNAME)
    wait_for(lambda: "1/1" in daemon.docker("service", "ls").stdout, "it runs")
    yield
    daemon.docker("rm", "-f", "one", "two", check=False)
    daemon.docker("service", "rm", "web")
    daemon.docker("network", "rm", "open", "closed")


def test_networks_of_the_swarm(daemon, client, networks):
    daemon.docker("run", "-d", "--name", "one", "--network", "open", "--network-alias", "uno", *SLEEP)
    daemon.docker("run", "-d", "--name", "two", *SLEEP)
    client.networks.get("open").connect("two", aliases=["dos"])

    def finds(container, name):
        return daemon.docker("exec", container, "nslookup", name, check=False).returncode == 0

    wait_for(lambda: finds("two", "uno") and finds("two", "one") and finds("one", "dos"), "they find each other")
    answer = daemon.docker("exec", "-i", "two", "nc", "web", "80", input="GET / HTTP/1.0\r\n\r\n").stdout
    assert "200 OK" in answer
    task = daemon.docker("ps", "-q", "--filter", "name=web.1.").stdout.strip()
    assert finds(task, "two")
    shown = daemon.docker("network", "inspect", "open", "--format", "{{range .Containers}}{{.Name}} {{end}}").stdout
    assert {name.split(".")[0] for name in shown.split()} == {"one", "two", "web"}
    assert len(daemon.docker("node", "ps", "self", "-q").stdout.split()) == 1, "no task is shown for them"
    assert "in use" in daemon.docker("network", "rm", "open", check=False).stderr
    refused = daemon.docker("network", "connect", "closed", "two", check=False)
    assert "Could not attach to network closed" in refused.stderr
    assert "PermissionDenied desc = network closed not manually attachable" in refused.stderr
    client.networks.get("open").disconnect("two")
    wait_for(lambda: not finds("one", "two"), "it has left")
    asked = ("run", "--rm", "--network", "open", "--ip", "10.0.1.77", "busybox", "ip", "-4", "addr")
    assert "10.0.1.77/24" in daemon.docker(*asked).stdout


@pytest.mark.parametrize(
    ("flags", "text"),
    [
        (("--pull", "never", "nothing"), "No such image: nothing:latest"),
        (("--name", "!", "busybox"), "Invalid container name (!), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed"),
        (("--ipc", "shareable", "busybox"), 'HostConfig.IpcMode "shareable" is not built'),
        (("--pull", "never", "--pid", "container:nobody", "busybox"), "No such container: nobody"),
        (("--network", "nowhere", "busybox", "true"), "network nowhere not found"),
        (("--rm", "busybox", "nothing"), 'exec: "nothing": executable file not found in $PATH'),
    ],
)
def test_what_is_refused(daemon, flags, text):
    done = daemon.docker("run", *flags, check=False)
    assert done.returncode in (125, 127)
    assert text in done.stderr


def test_containers_outlive_the_daemon_and_the_swarm(daemon):
    serve = ("busybox", "sh", "-c", SERVE_HOSTNAME)
    web = daemon.docker("run", "-d", "--name", "web", "-p", "8080:80", *serve).stdout[:12]
    daemon.docker("run", "-d", "--name", "ends", "--rm", *SLEEP)
    daemon.docker("run", "-d", "--name", "stopped", "--restart", "unless-stopped", *SLEEP)
    daemon.docker("stop", "-t", "0", "stopped")
    daemon.docker("run", "-d", "--name", "again", "--restart", "always", *SLEEP)
    pids = {name: state_of(daemon, name)["Pid"] for name in ("web", "ends", "again")}
    daemon.kill()
    wait_for(lambda: fetch(daemon, 8080) == web, "it answers without a daemon")
    daemon.execute("kill", "-9", str(pids["ends"]), str(pids["again"]))
    daemon.start()
    wait_for(lambda: state_of(daemon, "again")["Pid"] not in (0, pids["again"]), "it was started again")
    wait_for(lambda: daemon.docker("inspect", "ends", check=False).returncode, "it was removed")
    assert state_of(daemon, "web")["Pid"] == pids["web"]
    assert state_of(daemon, "stopped")["Status"] == "exited"
    daemon.docker("service", "create", "-d", "--no-resolve-image", "--name", "bare", *SLEEP)
    wait_for(lambda: "1/1" in daemon.docker("service", "ls").stdout, "it runs")
    daemon.docker("swarm", "leave", "--force")
    assert fetch(daemon, 8080) == web
    kept = {container[:12] for container in daemon.docker("ps", "-q").stdout.split()}
    assert {path.name for path in (daemon.exec_root / "netns").iterdir() if "-" not in path.name} == kept
    # in no swarm
    assert daemon.docker("run", "--rm", "busybox", "echo", "hi").stdout == "hi\n"
    daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    assert fetch(daemon, 8080) == web


def test_copying_files_and_pruning(daemon, client, tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "file").write_text("hello\n")
    daemon.docker(
        "create", "--name", "box", "-v", "vol:/vol", "busybox", "sh", "-c", "cat /etc/in/file; exec sleep 1000"
    )
    # into one that does not run, and out of it
    daemon.docker("cp", str(tmp_path / "in"), "box:/etc")
    daemon.docker("cp", "box:/etc/in/file", str(tmp_path / "out"))
    assert (tmp_path / "out").read_text() == "hello\n"
    refused = daemon.docker("cp", str(tmp_path / "in"), "box:/vol", check=False)
    assert "a mount of a container that does not run" in refused.stderr
    daemon.docker("start", "box")
    wait_for(lambda: daemon.docker("logs", "box").stdout == "hello\n", "what was copied is there")
    daemon.docker("cp", str(tmp_path / "in" / "file"), "box:/vol/there")
    assert daemon.docker("exec", "box", "cat", "/vol/there").stdout == "hello\n"
    # a link inside leads nowhere outside: to the container's own file of that name
    daemon.docker("exec", "box", "ln", "-s", "/etc", "/link")
    daemon.docker("cp", "box:/link/passwd", str(tmp_path / "passwd"))
    assert (tmp_path / "passwd").read_text() == daemon.docker("exec", "box", "cat", "/etc/passwd").stdout
    assert (tmp_path / "passwd").read_text() != Path("/etc/passwd").read_text()
    missing = daemon.docker("cp", "box:/link/shadow", str(tmp_path), check=False)
    assert "Could not find the file /link/shadow" in missing.stderr
    stream, found = client.containers.get("box").get_archive("/link/in/")
    with tarfile.open(fileobj=io.BytesIO(b"".join(stream))) as archive:
        assert sorted(archive.getnames()) == ["in", "in/file"]
    assert (found["name"], found["mode"] >> 31) == ("in", 1)
    daemon.docker("create", "--name", "old", "--label", "keep", *SLEEP)
    daemon.docker("create", "--name", "older", *SLEEP)
    pruned = daemon.docker("container", "prune", "-f", "--filter", "label!=keep").stdout
    assert "Deleted Containers" in pruned
    assert set(daemon.docker("ps", "-a", "--format", "{{.Names}}").stdout.split()) == {"box", "old"}


def test_what_a_container_has_changed(daemon, client, tmp_path):
    daemon.docker("create", "--name", "fresh", "-v", "/vol", *SLEEP)
    assert daemon.docker("diff", "fresh").stdout == ""
    change = (
        "rm /etc/passwd; rm -r /www; mkdir /www; echo new >/www/new; echo y >/etc/added; ln /etc/added /etc/again;"
        "ln -s /etc/added /link; echo x >/vol/unseen; chmod 700 /tmp; sleep 1000"
    )
    labels = ("--label", "a=1", "-e", "A=1", "--expose", "80", "-w", "/tmp")
    daemon.docker("run", "-d", "--name", "box", "-v", "/vol", *labels, "busybox", "sh", "-c", change)
    wanted = ["A /etc/added", "A /etc/again", "A /link", "A /vol", "A /www/new", "C /etc", "C /tmp", "C /www",
              "D /etc/passwd", "D /www/cgi-bin", "D /www/index.html"]  # fmt: skip
    wait_for(lambda: sorted(daemon.docker("diff", "box").stdout.splitlines()) == wanted, "all is changed")
    for name in ("running", "stopped"):
        if name == "stopped":
            daemon.docker("stop", "-t", "0", "box")
        daemon.docker("export", "-o", str(tmp_path / name), "box")
        with tarfile.open(tmp_path / name) as archive:
            names = set(archive.getnames())
            assert {"bin/busybox", "etc/added", "link", "vol"} <= names
            assert not {"etc/passwd", "www/index.html", "vol/unseen"} & names
            assert archive.extractfile("www/new").read() == b"new\n"
    words = ("-a", "me", "-m", "made", "-c", "ENV B=2", "-c", 'CMD ["sh", "-c", "echo $A$B; cat /www/new; ls -l /etc"]')
    committed = daemon.docker("commit", *words, "box", "kept:1").stdout.strip()
    image = client.images.get("kept:1")
    assert image.id == committed
    config = image.attrs["Config"]
    assert (config["Labels"], config["WorkingDir"], config["ExposedPorts"]) == ({"a": "1"}, "/tmp", {"80/tcp": {}})
    assert (image.attrs["Author"], image.attrs["Comment"]) == ("me", "made")
    assert image.attrs["RootFS"]["Layers"][:-1] == client.images.get("busybox").attrs["RootFS"]["Layers"]
    said = daemon.docker("run", "--rm", "kept:1").stdout.splitlines()
    assert said[:2] == ["12", "new"]
    assert not any("passwd" in line for line in said)
    assert [line.split()[1] for line in said if line.endswith(("added", "again"))] == ["2", "2"]
    assert daemon.docker("history", "kept:1", "--format", "{{.Comment}}").stdout.splitlines()[0] == "made"
    # as docker-py does it, over a container that goes on
    daemon.docker("start", "box")
    made = client.containers.get("box").commit("kept", "2", conf={"Labels": {"b": "2"}, "Cmd": ["true"]})
    assert (made.labels, made.attrs["Config"]["Cmd"]) == ({"a": "1", "b": "2"}, ["true"])
    assert state_of(daemon, "box")["Status"] == "running"
    daemon.docker("rm", "-f", "box")
    daemon.docker("rmi", "kept:1", "kept:2")


def test_ports_on_one_address_of_the_node(daemon):
    serve = ("busybox", "sh", "-c", SERVE_HOSTNAME)
    names = {}
    for address in ("127.0.0.1", "127.0.0.2"):
        names[address] = daemon.docker("run", "-d", "-p", f"{address}:8085:80", *serve).stdout[:12]

    def ask(address):
        return daemon.execute("curl", "-sS", "--max-time", "5", f"http://{address}:8085", check=False).stdout.strip()

    for address, name in names.items():
        wait_for(lambda address=address, name=name: ask(address) == name, "each address leads to its own")
    assert ask("127.0.0.3") == ""
    assert "127.0.0.2:8085->80/tcp" in daemon.docker("ps").stdout
    assert daemon.docker("port", names["127.0.0.1"], "80").stdout == "127.0.0.1:8085\n"
    for publish, text in (
        ("8085:80", "Bind for 0.0.0.0:8085 failed: port is already allocated"),
        ("127.0.0.1:8085:80", "Bind for 127.0.0.1:8085 failed: port is already allocated"),
        ("203.0.113.9:8085:80", "Bind for 203.0.113.9:8085 failed: cannot assign requested address"),
    ):
        refused = daemon.docker("run", "-d", "-p", publish, *serve, check=False)
        assert text in refused.stderr
    # the first of a range that is free
    daemon.docker("run", "-d", "--name", "any", "-p", "8084-8087:80", *serve)
    assert daemon.docker("port", "any", "80").stdout == "0.0.0.0:8084\n"
    daemon.docker("run", "-d", "--name", "other", "-p", "8084-8087:80", *serve)
    assert daemon.docker("port", "other", "80").stdout == "0.0.0.0:8086\n"
    # the node itself, from within
    reach = ("run", "--rm", "--add-host", "node:host-gateway", "busybox", "wget", "-qO-", "http://node:8084")
    assert daemon.docker("inspect", "any", "--format", "{{.Config.Hostname}}").stdout == daemon.docker(*reach).stdout
    daemon.kill()
    daemon.start()
    assert ask("127.0.0.1") == names["127.0.0.1"]
    daemon.docker("rm", "-f", names["127.0.0.1"])
    assert (ask("127.0.0.1"), ask("127.0.0.2")) == ("", names["127.0.0.2"])


def test_events(daemon):
    since = daemon.request("GET", "/info")[1]["SystemTime"]
    loop = "trap 'exit 3' TERM; while :; do sleep 0.05; done"
    for words in (
        ("run", "-d", "--name", "told", "busybox", "sh", "-c", loop), ("exec", "told", "true"), ("top", "told"),
        ("rename", "told", "tale"), ("pause", "tale"), ("unpause", "tale"), ("update", "--memory", "64m", "tale"),
        ("kill", "-s", "CONT", "tale"), ("rm", "-f", "tale"), ("run", "-d", "--name", "again", *SLEEP),
        ("stop", "-t", "0", "again"), ("start", "again"), ("restart", "-t", "0", "again"), ("rm", "-f", "again"),
    ):  # fmt: skip
        daemon.docker(*words)
    until = daemon.request("GET", "/info")[1]["SystemTime"]
    words = ("events", "--since", since, "--until", until, "--filter", "type=container", "--format", "{{json .}}")
    told = [json.loads(line) for line in daemon.docker(*words).stdout.splitlines()]
    first = told[0]["id"]
    actions = {True: [], False: []}
    for event in told:
        actions[event["id"] == first].append(event["Action"])
    assert actions[True] == [
        "create", "start", "exec_create: true", "exec_start: true", "exec_die", "top", "rename", "pause", "unpause",
        "update", "kill", "kill", "die", "destroy",
    ]  # fmt: skip
    assert [action for action in actions[False] if action != "kill"] == [
        "create", "start", "die", "stop", "start", "die", "stop", "start", "restart", "die", "destroy",
    ]  # fmt: skip
    renamed = next(event for event in told if event["Action"] == "rename")["Actor"]["Attributes"]
    assert (renamed["name"], renamed["oldName"]) == ("tale", "/told")
    ended = next(event for event in told if event["Action"] == "exec_die")["Actor"]["Attributes"]
    assert ended["exitCode"] == "0"


def test_options(daemon):
    options = (
        *("--group-add", "55", "--user", "7:8", "--hostname", "h", "--domainname", "d", "--workdir", "/tmp", "--init"),
        *("--add-host", "a:1.2.3.4", "--dns", "10.1.1.1", "--dns-search", "x.y", "--dns-option", "ndots:2"),
        *("--sysctl", "net.ipv4.ip_forward=1", "--ulimit", "nofile=50:60", "--read-only", "--tmpfs", "/tmp:size=1m"),
        *("--cap-drop", "ALL", "--cap-add", "NET_BIND_SERVICE", "--security-opt", "no-new-privileges"),
        *("--oom-score-adj", "500", "--pids-limit", "9", "--shm-size", "1m", "--stop-signal", "USR1", "-e", "A=1"),
        *("--device", "/dev/null:/dev/nothing", "--security-opt", f"seccomp={daemon.root}/profile.json"),
    )
    rules = [{"names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO"}]
    profile = {"defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules}
    (daemon.root / "profile.json").write_text(json.dumps(profile))
    look = (
        "id; hostname -f; pwd; cat /proc/1/comm; grep a$ /etc/hosts; cat /etc/resolv.conf; ulimit -n; ulimit -Hn;"
        "cat /proc/sys/net/ipv4/ip_forward /proc/self/oom_score_adj; grep -E 'CapBnd|NoNew|Seccomp:' /proc/self/status;"
        "touch /x 2>&1; df -k /tmp /dev/shm | awk 'NR>1{print $2}'; echo $A; test -c /dev/nothing && mkdir /tmp/d 2>&1"
    )
    said = daemon.docker("run", "--rm", *options, "busybox", "sh", "-c", look, check=False).stdout
    assert said.splitlines() == [
        "uid=7 gid=8 groups=8,55", "h.d", "/tmp", "docker-init", "1.2.3.4\ta", "nameserver 10.1.1.1", "search x.y",
        "options ndots:2", "50", "60", "1", "500", "CapBnd:\t0000000000000400", "NoNewPrivs:\t1", "Seccomp:\t2",
        "touch: /x: Read-only file system", "1024", "1024", "1",
        "mkdir: can't create directory '/tmp/d': Operation not permitted",
    ]  # fmt: skip
