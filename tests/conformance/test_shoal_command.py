"""The commands of the demo, with the stock docker command and with shoal, side by side on one real daemon."""

import json
import re
import shutil
import sys
import tempfile
from pathlib import Path

import pytest

from shoal.lab.image import busybox_archive
from tests.system.daemon import running_daemon, wait_for

pytestmark = pytest.mark.root

HTTPD = ("busybox", "httpd", "-f", "-v", "-p", "80", "-h", "/www")
CREATE = ("service", "create", "--no-resolve-image", "--update-monitor", "100ms", "--stop-grace-period", "0s")


@pytest.fixture(scope="module")
def daemon():
    with running_daemon() as made:
        yield made


@pytest.fixture(params=["docker", "shoal"])
def swarm(daemon, request):
    """A swarm of one node with busybox; `.run` drives it with the command under test."""
    if request.param == "docker" and shutil.which("docker") is None:
        pytest.skip("there is no docker command on the PATH")
    daemon.run = daemon.docker if request.param == "docker" else daemon.shoal
    daemon.run("swarm", "init", "--advertise-addr", "127.0.0.1")
    daemon.import_busybox()
    yield daemon
    daemon.request("POST", "/swarm/leave?force=1")


def column(daemon, template, *words):
    return daemon.run(*words, "--format", template).stdout.split("\n")[:-1]


def fetch(daemon, port=8888):
    return daemon.execute("curl", "-sS", "--fail", "--max-time", "5", f"localhost:{port}").stdout


def test_life_of_a_service(swarm):
    created = swarm.run(*CREATE, "--name", "web", "--replicas", "3", "-p", "8888:80", *HTTPD).stdout
    assert "overall progress: 3 out of 3 tasks" in created
    assert "converged" in created
    assert column(swarm, "{{.Name}} {{.Mode}} {{.Replicas}} {{.Image}} {{.Ports}}", "service", "ls") == [
        "web replicated 3/3 busybox:latest *:8888->80/tcp"
    ]
    assert sorted(column(swarm, "{{.Name}} {{.DesiredState}}", "service", "ps", "web")) == [
        "web.1 Running", "web.2 Running", "web.3 Running",
    ]  # fmt: skip
    assert [fetch(swarm) for _ in range(6)] == ["hello\n"] * 6
    pretty = swarm.run("service", "inspect", "--pretty", "web").stdout
    for text in (" Replicas:\t3", "PublishedPort = 8888", "Image:\t\tbusybox"):
        assert text in pretty

    metrics = swarm.execute("curl", "-sS", "--fail", "--unix-socket", str(swarm.socket_path), "http://d/metrics").stdout
    assert 'shoal_service_tasks_running{service="web"} 3.0\n' in metrics
    used = re.findall(r'^shoal_container_memory_bytes\{.*service="web".*\} (.*)$', metrics, re.MULTILINE)
    assert len(used) == 3
    assert all(float(value) > 0 for value in used)

    def served():
        shown = swarm.run("service", "logs", "web")
        lines = (shown.stdout + shown.stderr).splitlines()
        return {line.split(".")[1] for line in lines if "response:200" in line} == {"1", "2", "3"}

    wait_for(served, "a line of each replica in the log")

    assert "web scaled to 5" in swarm.run("service", "scale", "web=5").stdout
    assert len(column(swarm, "{{.ID}}", "ps")) == 5
    swarm.run("service", "update", "--replicas", "1", "--env-add", "COLOUR=blue", "web")
    assert column(swarm, "{{json .Spec.TaskTemplate.ContainerSpec.Env}}", "service", "inspect", "web") == [
        '["COLOUR=blue"]'
    ]
    wait_for(lambda: len(column(swarm, "{{.ID}}", "ps")) == 1, "one container")
    swarm.run("service", "rollback", "web")
    assert column(swarm, "{{json .Spec.TaskTemplate.ContainerSpec.Env}}", "service", "inspect", "web") in (
        ["null"],
        ["<no value>"],
    )
    assert column(swarm, "{{.Replicas}}", "service", "ls") == ["5/5"]
    assert swarm.run("service", "rm", "web").stdout == "web\n"
    wait_for(lambda: column(swarm, "{{.ID}}", "ps") == [], "no container")


def test_global_service_and_its_container(swarm):
    swarm.run(*CREATE, "--name", "everywhere", "--mode", "global", "busybox", "sh", "-c", "echo started; sleep 1000")
    assert column(swarm, "{{.Mode}} {{.Replicas}}", "service", "ls") == ["global 1/1"]
    (container,) = column(swarm, "{{.ID}}", "ps", "--filter", "name=everywhere")
    wait_for(lambda: swarm.run("logs", container).stdout == "started\n", "the container's output")
    assert [name.split(".")[0] for name in column(swarm, "{{.Name}}", "node", "ps")] == ["everywhere"]
    refused = swarm.run("service", "scale", "everywhere=2", check=False)
    assert refused.returncode == 1
    assert "scale can only be used with replicated" in refused.stderr
    refused = swarm.run("service", "update", "--replicas", "2", "everywhere", check=False)
    assert "replicas can only be used with replicated mode" in refused.stderr


def test_service_that_cannot_run_says_why(swarm):
    swarm.run(*CREATE, "--name", "nowhere", "--detach", "--constraint", "node.role==worker", "busybox", "sleep", "1")

    def reason():
        return column(swarm, "{{.Error}}", "service", "ps", "--no-trunc", "nowhere")

    wait_for(lambda: reason() and "no suitable node" in reason()[0], "why it does not run")


def test_nodes(swarm):
    (line,) = column(swarm, "{{.Status}} {{.Availability}} {{.ManagerStatus}}", "node", "ls")
    assert line == "Ready Active Leader"
    swarm.run("node", "update", "--label-add", "zone=a", "--availability", "drain", "self", check=False)
    (node_id,) = column(swarm, "{{.ID}}", "node", "ls")
    swarm.run("node", "update", "--label-add", "zone=a", "--availability", "drain", node_id)
    assert column(swarm, "{{.Spec.Labels.zone}} {{.Spec.Availability}}", "node", "inspect", "self") == ["a drain"]
    missing = swarm.run("node", "update", "--label-rm", "none", node_id, check=False)
    assert missing.returncode == 1
    assert "key none doesn't exist in node's labels" in missing.stderr
    assert "Availability:" in swarm.run("node", "inspect", "--pretty", "self").stdout
    assert swarm.run("node", "demote", node_id, check=False).returncode == 1


def test_tokens_and_info(swarm):
    worker, manager = (swarm.run("swarm", "join-token", "-q", role).stdout.strip() for role in ("worker", "manager"))
    assert worker.startswith("SWMTKN-1-")
    assert worker != manager
    assert f"--token {worker} 127.0.0.1:2377" in swarm.run("swarm", "join-token", "worker").stdout
    rotated = swarm.run("swarm", "join-token", "-q", "--rotate", "worker").stdout.strip()
    assert rotated not in ("", worker)
    swarm.run("swarm", "update", "--task-history-limit", "2")
    assert swarm.request("GET", "/swarm")[1]["Spec"]["Orchestration"]["TaskHistoryRetentionLimit"] == 2
    shown = swarm.run("info").stdout
    assert "Swarm: active" in shown
    assert "Is Manager: true" in shown


def test_refusals_carry_dockers_text(swarm):
    again = swarm.run("swarm", "init", "--advertise-addr", "127.0.0.1", check=False)
    assert again.returncode == 1
    assert "already part of a swarm" in again.stderr
    stay = swarm.run("swarm", "leave", check=False)
    assert stay.returncode == 1
    assert "--force" in stay.stderr
    absent = swarm.run("service", "rm", "absent", check=False)
    assert absent.returncode == 1
    # clients before 23 have words of their own for a 404
    assert "service absent not found" in absent.stderr or "No such service: absent" in absent.stderr
    both = swarm.run("service", "inspect", "absent", check=False)
    assert (both.returncode, both.stdout) == (1, "[]\n")
    assert swarm.run("service", "create", "--no-such-flag", "x", check=False).returncode == 125


def test_images_by_shoal(daemon):
    with tempfile.TemporaryDirectory() as scratch:
        archive = Path(scratch) / "rootfs.tar"
        archive.write_bytes(busybox_archive())
        imported = daemon.shoal("import", str(archive), "mine:1").stdout.strip()
    assert imported.startswith("sha256:")
    daemon.shoal("tag", "mine:1", "localhost:5000/yours:2")
    shown = daemon.shoal("images", "--no-trunc", "--format", "{{.Repository}}:{{.Tag}} {{.ID}}").stdout.splitlines()
    assert {f"mine:1 {imported}", f"localhost:5000/yours:2 {imported}"} <= set(shown)
    assert "Untagged: mine:1" in daemon.shoal("rmi", "mine:1").stdout
    assert daemon.shoal("rmi", "mine:1", check=False).returncode == 1


def test_lists_of_both_commands_are_alike(daemon):
    """The tables of shoal are those of docker 28, to the letter."""
    if shutil.which("docker") is None:
        pytest.skip("there is no docker command on the PATH")
    version = daemon.docker("version", "--format", "{{.Client.Version}}").stdout.strip()
    if int(version.partition(".")[0]) < 28:
        pytest.skip(f"docker {version} lists in other forms than docker 28")
    daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    try:
        daemon.import_busybox()
        daemon.shoal(*CREATE, "--quiet", "--name", "a", "--replicas", "2", "-p", "8888:80", *HTTPD)
        daemon.shoal(*CREATE, "--quiet", "--name", "everywhere", "--mode", "global", "busybox", "sleep", "1000")
        for words in (
            ("service", "ls"),
            ("service", "ls", "-q"),
            ("service", "ls", "--format", "{{.ID}} {{.Name}} {{.Replicas}}"),
            ("service", "ps", "-q", "a"),
            ("service", "ps", "--format", r"{{.Name}}\t{{.Node}}\t{{.DesiredState}}", "a", "everywhere"),
            ("node", "ls"),
            ("swarm", "join-token", "-q", "worker"),
            ("images", "--format", "{{.Repository}} {{.Tag}} {{.ID}} {{.Size}}"),
            ("ps", "-q", "--no-trunc"),
            ("service", "inspect", "--pretty", "a"),
            ("node", "inspect", "--pretty", "self"),
            ("node", "ls", "--format", "{{json .}}"),
            ("service", "ls", "--format", "json"),
            ("service", "ps", "--format", "{{json .Name}} {{json .Image}} {{.Ports}}", "a"),
            ("service", "ls", "--format", r"table {{.Name}}\t{{.Replicas}}"),
        ):
            assert daemon.shoal(*words).stdout == daemon.docker(*words).stdout, words
        assert json.loads(daemon.shoal("service", "inspect", "a").stdout) == json.loads(
            daemon.docker("service", "inspect", "a").stdout
        )
    finally:
        daemon.request("POST", "/swarm/leave?force=1")


def test_pipe_that_ends_early_is_no_traceback(daemon):
    done = daemon.execute("sh", "-c", f"{sys.executable} -m shoal.cli.main --help | true")
    assert "Traceback" not in done.stderr


def test_volumes(swarm):
    run = swarm.run
    assert run("volume", "create", "--label", "a=b", "kept").stdout == "kept\n"
    options = ("-o", "type=tmpfs", "-o", "device=tmpfs", "-o", "o=size=1m,uid=7")
    run("volume", "create", *options, "memory")
    shown = json.loads(run("volume", "inspect", "kept").stdout)[0]
    assert (shown["Driver"], shown["Labels"], shown["Options"], shown["Scope"]) == ("local", {"a": "b"}, None, "local")
    mounts = ("--mount", "type=volume,source=kept,target=/kept", "--mount", "type=volume,source=memory,target=/memory")
    made = ("--mount", "type=volume,source=made,target=/made,volume-label=by=service")
    script = "grep -c '/memory tmpfs' /proc/mounts; stat -c %u /memory; date > /kept/date; exec sleep 1000"
    run(*CREATE, "--name", "user", *mounts, *made, "busybox", "sh", "-c", script)
    wait_for(lambda: run("service", "logs", "--raw", "user").stdout == "1\n7\n", "a mounted volume")
    assert column(swarm, "{{.Name}}", "volume", "ls") == ["kept", "made", "memory"]
    assert column(swarm, "{{.Name}}", "volume", "ls", "-f", "dangling=true") == []
    assert column(swarm, "{{.Name}}", "volume", "ls", "-f", "label=by=service") == ["made"]
    refused = run("volume", "rm", "kept", check=False)
    assert refused.returncode == 1
    assert "remove kept: volume is in use - [" in refused.stderr
    mountpoint = Path(column(swarm, "{{.Mountpoint}}", "volume", "inspect", "memory")[0])
    assert str(mountpoint) in swarm.execute("cat", "/proc/mounts").stdout
    run("service", "rm", "user")
    wait_for(lambda: column(swarm, "{{.ID}}", "ps") == [], "the end of the container")
    wait_for(lambda: str(mountpoint) not in swarm.execute("cat", "/proc/mounts").stdout, "an unmounted volume")
    wait_for(lambda: not swarm.request("GET", "/containers/json?all=1")[1], "the removal of the container")
    assert (Path(shown["Mountpoint"]) / "date").read_text(), "what a task wrote outlives it"
    assert run("volume", "rm", "kept").stdout == "kept\n"
    assert "get kept: no such volume" in run("volume", "rm", "kept", check=False).stderr
    assert "Total reclaimed space: 0B" in run("volume", "prune", "-f").stdout
    pruned = run("volume", "prune", "-f", "-a").stdout.split("\n")
    assert sorted(pruned[1:3]) == ["made", "memory"]
    assert column(swarm, "{{.Name}}", "volume", "ls") == []


def test_secrets_and_configs(swarm):
    run = swarm.run
    for kind in ("secret", "config"):
        made = run(kind, "create", "-l", "a=b", "file", "-", input="one").stdout.strip()
        assert column(swarm, "{{.ID}} {{.Name}}", kind, "ls", "-f", "label=a=b") == [f"{made} file"]
        assert json.loads(run(kind, "inspect", "file").stdout)[0]["Spec"]["Labels"] == {"a": "b"}
        pretty = run(kind, "inspect", "--pretty", "file").stdout
        assert re.search(rf"ID:\s+{made}\nName:\s+file\nLabels:\n - a=b\n", pretty)
        assert (
            pretty == (swarm.docker if run == swarm.shoal else swarm.shoal)(kind, "inspect", "--pretty", "file").stdout
        )
        again = run(kind, "create", "file", "-", input="two", check=False)
        assert again.returncode == 1
        assert "already exists" in again.stderr
        assert run(kind, "rm", "file").stdout in {f"{made}\n", "file\n"}
        assert run(kind, "ls", "-q").stdout == ""


def test_other_data_of_a_config_reaches_its_users(swarm):
    swarm.run("config", "create", "page", "-", input="one")
    web = ("busybox", "httpd", "-f", "-p", "80", "-h", "/etc/web")
    swarm.run(*CREATE, "--name", "web", "-p", "8889:80", "--config", "source=page,target=/etc/web/index.html", *web)

    def page():
        # none while the one task is replaced
        return swarm.execute("curl", "-sS", "--max-time", "5", "localhost:8889", check=False).stdout

    wait_for(lambda: page() == "one", "the first page")
    swarm.shoal("config", "update", "page", "-", input="two")
    wait_for(lambda: page() == "two", "the second page")
    state = ("service", "inspect", "web")
    wait_for(lambda: column(swarm, "{{.UpdateStatus.State}}", *state) == ["completed"], "the end of the update")
    swarm.run("service", "update", "--config-rm", "page", "--config-add", "source=page,target=/etc/web/b.html", "web")
    assert swarm.execute("curl", "-sS", "--fail", "localhost:8889/b.html").stdout == "two"
    swarm.run("service", "rm", "web")
    swarm.run("config", "rm", "page")
