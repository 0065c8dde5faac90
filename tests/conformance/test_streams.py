"""exec, attach, stats, top, logs, pause and rename through the stock docker command and docker-py."""

from __future__ import annotations

import asyncio
import gc
import hashlib
import json
import os
import socket
import subprocess
import threading
import time
import warnings
from contextlib import contextmanager
from pathlib import Path

import aiohttp
import docker as docker_py
import pytest
from docker.types import RestartPolicy
from docker.utils.socket import frames_iter

from tests.conformance.terminal import check_shell, on_terminal
from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

LOCAL = ("--no-resolve-image", "--stop-grace-period", "0s", "-d")
NOT_FOUND = (
    "OCI runtime exec failed: exec failed: unable to start container process: "
    'exec: "nope": executable file not found in $PATH: unknown'
)


@pytest.fixture
def client(daemon):
    client = docker_py.DockerClient(base_url=daemon.host, timeout=30)
    yield client
    client.close()
    with warnings.catch_warnings():
        # docker-py leaves the sockets of its streams to the collector: not in the middle of another test
        warnings.simplefilter("ignore", ResourceWarning)
        gc.collect()


def container_of(daemon, service):
    """Return the id of a service's only container, once it runs."""

    def look():
        return daemon.docker("ps", "-q", "--no-trunc", "--filter", f"name={service}.1.").stdout.strip()

    return wait_for(look, f"a container of {service}")


@pytest.fixture(scope="module")
def sleeper(daemon):
    """A container without terminal, with a variable of its own."""
    daemon.docker("service", "create", *LOCAL, "--name", "sleeper", "-e", "OF=container", "busybox", "sleep", "9999")
    yield container_of(daemon, "sleeper")
    daemon.docker("service", "rm", "sleeper")
    wait_for(lambda: not daemon.docker("ps", "-aq").stdout.strip(), "no container")


@contextmanager
def shell_with_input(daemon, name, *, tty):
    """Run a shell that reads its stdin: docker's command has no flag for that, its API has."""
    container = {"Image": "busybox", "Command": ["sh"], "TTY": tty, "OpenStdin": True, "StopGracePeriod": 0}
    task = {"ContainerSpec": container, "RestartPolicy": {"Condition": "none"}}
    status, answer = daemon.request("POST", "/services/create", {"Name": name, "TaskTemplate": task})
    assert status == 201, answer
    try:
        yield container_of(daemon, name)
    finally:
        daemon.docker("service", "rm", name)
        gone = ("ps", "-aq", "--filter", f"name={name}.1.")
        wait_for(lambda: not daemon.docker(*gone).stdout.strip(), "it has gone")


def environment(daemon):
    return {"DOCKER_HOST": daemon.host, "TERM": "xterm"}


def open_descriptors(daemon):
    return len(list(Path(f"/proc/{daemon.pid}/fd").iterdir()))


def test_exec_output_and_exit_codes(daemon, sleeper):
    def run(*words, **keywords):
        done = daemon.docker("exec", *words, check=False, **keywords)
        return done.returncode, done.stdout, done.stderr

    assert run(sleeper, "sh", "-c", "echo out; echo err >&2") == (0, "out\n", "err\n")
    assert run(sleeper, "sh", "-c", "exit 3")[0] == 3
    assert run(sleeper, "sh", "-c", "kill -9 $$")[0] == 137
    code, out, _ = run(sleeper, "nope")
    assert (code, out.strip()) == (127, NOT_FOUND)
    code, out, _ = run(sleeper, "/etc/passwd")
    assert code == 126
    assert 'exec: "/etc/passwd": permission denied: unknown' in out
    assert run(sleeper, "sh", "-c", "nope")[0] == 127
    assert run("-i", sleeper, "cat", input="hi\n") == (0, "hi\n", "")
    printed = run("-e", "MINE=1", "-w", "/tmp", "-u", "7:8", sleeper, "sh", "-c", "echo $OF $MINE; pwd; id")[1]
    assert printed == "container 1\n/tmp\nuid=7 gid=8 groups=8\n"
    code, out, _ = run("-w", "/none", sleeper, "pwd")
    assert 'chdir to cwd ("/none") set in config.json failed: no such file or directory' in out
    assert "unable to find user who: no matching entries in passwd file" in run("-u", "who", sleeper, "id")[1]
    assert "privileged exec is refused" in run("--privileged", sleeper, "id")[2]
    assert "No such container: nobody" in run("nobody", "true")[2]
    assert run("-d", sleeper, "sh", "-c", "echo x > /tmp/made")[0] == 0
    wait_for(lambda: run(sleeper, "cat", "/tmp/made")[1] == "x\n", "what the detached command makes")


def test_exec_carries_much_both_ways(daemon, sleeper):
    content = os.urandom(3 << 20)
    command = ["nsenter", f"--net=/run/netns/{daemon.netns}", "docker", "exec", "-i", sleeper, "cat"]
    settings = {**os.environ, **environment(daemon)}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=settings) as process:

        def send():
            process.stdin.write(content)
            process.stdin.close()

        sender = threading.Thread(target=send)
        sender.start()
        # what is not read holds all up, to the sender: only then it is read, and nothing is lost
        sender.join(1.0)
        assert sender.is_alive(), "three megabytes do not fit on the way"
        received = process.stdout.read()
        sender.join()
        assert process.wait() == 0
    assert hashlib.sha256(received).digest() == hashlib.sha256(content).digest()


def test_exec_on_a_terminal(daemon, sleeper):
    with on_terminal("docker", "exec", "-it", sleeper, "sh", environment=environment(daemon)) as terminal:
        check_shell(terminal)
    command = ("docker", "exec", "-it", sleeper, "sh", "-c", "exec sleep 4321")
    with on_terminal(*command, environment=environment(daemon)) as terminal:
        wait_for(lambda: "sleep 4321" in daemon.docker("top", sleeper).stdout, "it runs")
        terminal.type("\x10\x11")
        terminal.wait()
        assert "read escape sequence" in terminal.said
    assert "sleep 4321" in daemon.docker("top", sleeper).stdout
    daemon.docker("exec", sleeper, "sh", "-c", "kill -9 $(pidof sleep | tr ' ' '\\n' | grep -vx 1)")


def raw_request(daemon, path, body=None):
    """Send a POST that asks for an upgrade; return the connection and the head of the answer."""
    connection = socket.socket(socket.AF_UNIX)
    connection.settimeout(20)
    connection.connect(str(daemon.socket_path))
    content = json.dumps(body).encode() if body is not None else b""
    head = f"POST {path} HTTP/1.1\r\nHost: d\r\nContent-Type: application/json\r\nContent-Length: {len(content)}\r\n"
    connection.sendall(f"{head}Connection: Upgrade\r\nUpgrade: tcp\r\n\r\n".encode() + content)
    answer = b""
    while b"\r\n\r\n" not in answer:
        answer += connection.recv(1)
    return connection, answer.decode()


def let_go(raw):
    """Close a socket of docker-py and all it hangs on."""
    connection = raw._sock
    raw._response.close()
    connection.close()


def exec_of(daemon, container, **body):
    status, answer = daemon.request("POST", f"/containers/{container}/exec", body)
    assert status == 201, answer
    return answer["Id"]


def inspect_exec(daemon, exec_id):
    return daemon.request("GET", f"/exec/{exec_id}/json")[1]


def test_exec_as_bytes(daemon, sleeper):
    attached = {"AttachStdin": True, "AttachStdout": True, "AttachStderr": True}
    exec_id = exec_of(daemon, sleeper, Cmd=["sh", "-c", "echo out; exit 4"], **attached)
    before = inspect_exec(daemon, exec_id)
    assert (before["Running"], before["ExitCode"], before["Pid"], before["CanRemove"]) == (False, None, 0, False)
    assert before["ProcessConfig"] == {
        "tty": False, "entrypoint": "sh", "arguments": ["-c", "echo out; exit 4"], "privileged": False,
    }  # fmt: skip
    connection, head = raw_request(daemon, f"/v1.45/exec/{exec_id}/start", {"Detach": False, "Tty": False})
    assert head.startswith(
        "HTTP/1.1 101 UPGRADED\r\nContent-Type: application/vnd.docker.multiplexed-stream\r\n"
        "Connection: Upgrade\r\nUpgrade: tcp\r\n"
    )
    with connection, connection.makefile("rb") as stream:
        assert stream.read() == b"\1\0\0\0\0\0\0\4out\n"
    after = inspect_exec(daemon, exec_id)
    assert (after["Running"], after["ExitCode"]) == (False, 4)
    again = f"Error: Exec command {exec_id} has already run"
    assert daemon.request("POST", f"/exec/{exec_id}/start", {"Detach": True}) == (409, {"message": again})
    assert daemon.request("POST", f"/exec/{exec_id}/resize?h=1&w=1")[0] == 404
    assert daemon.request("POST", f"/exec/{exec_id}/resize?h=a&w=1")[0] == 400
    assert daemon.request("GET", "/exec/nope/json") == (404, {"message": "No such exec instance: nope"})
    assert daemon.request("POST", f"/containers/{sleeper}/exec", {"Cmd": []}) == (
        400, {"message": "No exec command specified"},
    )  # fmt: skip
    assert daemon.request("POST", f"/containers/{sleeper}/exec", {"Cmd": ["x"], "DetachKeys": "ctrl-"}) == (
        400, {"message": "Invalid escape keys (ctrl-) provided"},
    )  # fmt: skip
    failing = exec_of(daemon, sleeper, Cmd=["nope"])
    assert daemon.request("POST", f"/exec/{failing}/start", {"Detach": True}) == (400, {"message": NOT_FOUND})


def test_a_client_that_goes_away_leaves_the_command_and_nothing_else(daemon, sleeper):
    before = open_descriptors(daemon)
    attached = {"AttachStdout": True, "AttachStderr": True}
    # it says far more than pipes hold: nobody reads, and yet it must get on
    script = "echo go; i=0; while [ $i -lt 40000 ]; do echo line $i of many; i=$((i+1)); done; echo x > /tmp/through"
    exec_id = exec_of(daemon, sleeper, Cmd=["sh", "-c", script], **attached)
    connection, _ = raw_request(daemon, f"/exec/{exec_id}/start", {})
    assert connection.recv(8)[:1] == b"\1"
    connection.close()
    wait_for(lambda: inspect_exec(daemon, exec_id)["ExitCode"] == 0, "it comes to its end")
    assert daemon.docker("exec", sleeper, "cat", "/tmp/through").stdout == "x\n"
    wait_for(lambda: open_descriptors(daemon) <= before, "all descriptors are closed")
    # one that is silent, whose client half-closes and then goes
    exec_id = exec_of(daemon, sleeper, Cmd=["sleep", "8765"], AttachStdin=True, **attached)
    connection, _ = raw_request(daemon, f"/exec/{exec_id}/start", {})
    connection.shutdown(socket.SHUT_WR)
    wait_for(lambda: inspect_exec(daemon, exec_id)["Running"], "it runs")
    connection.close()
    pid = inspect_exec(daemon, exec_id)["Pid"]
    os.kill(pid, 9)
    wait_for(lambda: inspect_exec(daemon, exec_id)["ExitCode"] == 137, "its end is seen")
    wait_for(lambda: open_descriptors(daemon) <= before, "all descriptors are closed")


def test_exec_by_docker_py(client, sleeper):
    container = client.containers.get(sleeper)
    assert container.exec_run(["sh", "-c", "echo out; echo err >&2; exit 2"], demux=True) == (2, (b"out\n", b"err\n"))
    _, output = container.exec_run(["sh", "-c", "echo a; echo b"], stream=True)
    assert b"".join(output) == b"a\nb\n"
    _, raw = container.exec_run("cat", stdin=True, socket=True)
    raw._sock.sendall(b"typed\n")
    raw._sock.shutdown(socket.SHUT_WR)
    assert b"".join(data for _, data in frames_iter(raw, tty=False)) == b"typed\n"
    let_go(raw)
    assert container.exec_run("tty", tty=True).output.startswith(b"/dev/pts/")


def test_attach_to_a_terminal(daemon):
    with shell_with_input(daemon, "typed", tty=True) as container:
        with on_terminal("docker", "attach", container, environment=environment(daemon)) as terminal:
            terminal.type_until("\n", "# ")
            terminal.type("echo a$((1+1))b\n")
            terminal.wait_for("a2b")
            terminal.type_until("stty size\n", "30 100")
            terminal.resize(13, 57)
            terminal.type_until("stty size\n", "13 57")
            terminal.type("\x10\x11")
            assert terminal.wait() == 1
            assert "read escape sequence" in terminal.said
        # the daemon knows the keys, too
        connection, head = raw_request(
            daemon, f"/containers/{container}/attach?stream=1&stdin=1&stdout=1&detachKeys=ctrl-x,z"
        )
        assert "application/vnd.docker.raw-stream" in head
        with connection, connection.makefile("rb") as stream:
            connection.sendall(b"echo b$((2+2))c\n\x18z")
            stream.read()
        wait_for(lambda: "b4c" in daemon.docker("logs", container).stdout, "what was typed before the keys")
        assert daemon.request("POST", f"/containers/{container}/resize?h=9&w=19")[0] == 200
        assert daemon.request("POST", f"/containers/{container}/resize?h=9&w=99999")[0] == 400
        with on_terminal("docker", "attach", container, environment=environment(daemon)) as terminal:
            terminal.type_until("\n", "# ")
            terminal.type("exit 6\n")
            assert terminal.wait() == 6


def pieces_of(stream):
    """Return what stands in the frames of a stream, by number."""
    pieces = {1: b"", 2: b""}
    while stream:
        length = int.from_bytes(stream[4:8], "big")
        pieces[stream[0]] += stream[8 : 8 + length]
        stream = stream[8 + length :]
    return pieces


def test_attach_without_a_terminal(daemon, client):
    with shell_with_input(daemon, "piped", tty=False) as container:
        # what came before, and what comes: each once, also what is no line yet
        raw = client.api.attach_socket(container, {"stdin": 1, "stdout": 1, "stderr": 1, "stream": 1})
        raw._sock.sendall(b"echo first; printf prompt\n")
        frames = frames_iter(raw, tty=False)
        said = b""
        while not said.endswith(b"prompt"):
            said += next(frames)[1]
        assert said == b"first\nprompt"
        connection, head = raw_request(daemon, f"/containers/{container}/attach?logs=1&stream=1&stdout=1&stderr=1")
        assert "application/vnd.docker.multiplexed-stream" in head
        with connection, connection.makefile("rb") as stream:
            raw._sock.sendall(b"echo ' >'; echo to-err >&2; exit 7\n")
            rest = stream.read()
        assert pieces_of(rest) == {1: b"first\nprompt >\n", 2: b"to-err\n"}
        assert b"".join(data for number, data in frames if number == 1) == b" >\n"
        let_go(raw)
        # not by docker-py: it loses what comes in one piece with the head of the answer
        connection, _ = raw_request(daemon, f"/containers/{container}/attach?logs=1&stdout=1&stderr=1")
        with connection, connection.makefile("rb") as stream:
            assert pieces_of(stream.read()) == {1: b"first\nprompt >\n", 2: b"to-err\n"}


def test_attach_by_websocket(daemon, client):
    with shell_with_input(daemon, "socketed", tty=False) as container:

        async def talk():
            connector = aiohttp.UnixConnector(str(daemon.socket_path))
            path = f"http://d/containers/{container}/attach/ws?stream=1&stdin=1&stdout=1"
            async with aiohttp.ClientSession(connector=connector) as session, session.ws_connect(path) as connection:
                await connection.send_str("echo over; exit 0\n")
                return b"".join([message.data async for message in connection])

        assert asyncio.run(talk()) == b"over\n"


def test_stats_and_top(daemon, client, sleeper):
    busy = exec_of(daemon, sleeper, Cmd=["sh", "-c", "while :; do :; done"])
    assert daemon.request("POST", f"/exec/{busy}/start", {"Detach": True})[0] == 200
    shown = json.loads(daemon.docker("stats", "--no-stream", "--format", "json", sleeper).stdout)
    assert sleeper.startswith(shown["ID"])
    assert float(shown["CPUPerc"].removesuffix("%")) > 5
    assert shown["PIDs"] == "2"
    container = client.containers.get(sleeper)
    sample = container.stats(stream=False)
    assert sample["precpu_stats"]["cpu_usage"]["total_usage"] < sample["cpu_stats"]["cpu_usage"]["total_usage"]
    assert 0 < sample["memory_stats"]["usage"] < sample["memory_stats"]["limit"]
    assert sample["name"] == f"/{container.name}"
    one = daemon.request("GET", f"/containers/{sleeper}/stats?stream=0&one-shot=1")[1]
    assert one["preread"] == "0001-01-01T00:00:00Z"
    streamed = container.stats(decode=True)
    first, second = next(streamed), next(streamed)
    assert second["preread"] == first["read"]
    streamed.close()
    table = container.top(ps_args="-eo pid,args")
    assert table["Titles"] == ["PID", "COMMAND"]
    assert sorted(process[1] for process in table["Processes"]) == ["sh -c while :; do :; done", "sleep 9999"]
    assert "sleep 9999" in daemon.docker("top", sleeper).stdout
    assert daemon.request("GET", f"/containers/{sleeper}/top?ps_args=-eo%20comm") == (
        400, {"message": "ps_args: Couldn't find PID field in ps output"},
    )  # fmt: skip
    os.kill(inspect_exec(daemon, busy)["Pid"], 9)


def test_pause_and_rename(daemon, sleeper):
    name = daemon.docker("inspect", "--format", "{{.Name}}", sleeper).stdout.strip().removeprefix("/")
    daemon.docker("pause", sleeper)
    assert "(Paused)" in daemon.docker("ps").stdout
    assert daemon.docker("ps", "-q", "--filter", "status=paused").stdout
    assert f"Container {name} is paused, unpause the container before exec" in (
        daemon.docker("exec", sleeper, "true", check=False).stderr
    )
    assert f"Container {sleeper} is already paused" in daemon.docker("pause", sleeper, check=False).stderr
    daemon.docker("unpause", sleeper)
    assert daemon.docker("exec", sleeper, "echo", "on").stdout == "on\n"
    assert f"Container {sleeper} is not paused" in daemon.docker("unpause", sleeper, check=False).stderr
    daemon.docker("rename", sleeper, "other")
    assert daemon.docker("inspect", "--format", "{{.Id}}", "other").stdout.strip() == sleeper
    # (a manager still finds it by the name of its task)
    assert name not in daemon.docker("ps", "--format", "{{.Names}}").stdout.split()
    same = daemon.docker("rename", "other", "other", check=False).stderr
    assert "Renaming a container with the same name as its current name" in same
    daemon.docker("rename", "other", name)


def test_a_renamed_container_is_still_its_tasks(daemon):
    daemon.docker("service", "create", *LOCAL, "--name", "renamed", "busybox", "sleep", "9999")
    container = container_of(daemon, "renamed")
    daemon.docker("rename", container, "wanderer")
    daemon.docker("service", "rm", "renamed")
    wait_for(lambda: container[:12] not in daemon.docker("ps", "-aq").stdout, "it goes with its service")


def test_logs_with_all_options(daemon, client):
    script = "i=0; while [ $i -lt 6 ]; do echo out$i; echo err$i >&2; i=$((i+1)); sleep 0.2; done; exec sleep 9999"
    service = client.services.create(
        "busybox", ["sh", "-c", script], name="chatty", stop_grace_period=0, env=["COLOR=red"],
        labels={}, container_labels={"team": "a&b"}, restart_policy=RestartPolicy("none"),
        log_driver="json-file",
        log_driver_options={"labels": "team", "env": "COLOR", "max-size": "200", "max-file": "9"},
    )  # fmt: skip
    container = container_of(daemon, "chatty")
    followed = client.containers.get(container).logs(stream=True, follow=True, stderr=False)
    lines = [next(followed) for _ in range(6)]
    assert [line.strip() for line in lines] == [f"out{i}".encode() for i in range(6)]

    def logs(*words):
        done = daemon.docker("logs", *words, container)
        return done.stdout.split("\n")[:-1], done.stderr.split("\n")[:-1]

    wait_for(lambda: len(logs()[1]) == 6, "all is said")
    assert (
        len(list(Path(json.loads(daemon.docker("inspect", container).stdout)[0]["LogPath"]).parent.glob("*.log*"))) > 1
    )
    assert logs("--tail", "2")[0] + logs("--tail", "2")[1] == ["out5", "err5"]
    assert logs("--details")[0][0] == "COLOR=red,team=a%26b out0"
    stamped = [line.split()[0] for line in logs("-t")[0]]
    assert stamped == sorted(stamped)
    middle = stamped[3]
    assert logs("--since", middle)[0] == ["out3", "out4", "out5"]
    assert logs("--until", middle)[0] == ["out0", "out1", "out2", "out3"]
    soon = str(time.time() + 1)
    assert len(logs("--follow", "--until", soon)[0]) == 6
    process = subprocess.Popen(
        ["nsenter", f"--net=/run/netns/{daemon.netns}", "docker", "logs", "-f", container],
        stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env={**os.environ, **environment(daemon)},
    )  # fmt: skip
    assert process.stdout.readline() == b"out0\n"
    service.remove()
    # removed while followed: the stream ends
    assert process.stdout.read().endswith(b"out5\n")
    assert process.wait(20) == 0
    process.stdout.close()
    followed.close()
    wait_for(lambda: not daemon.docker("ps", "-aq", "--filter", "name=chatty").stdout.strip(), "it has gone")


def test_the_daemon_starts_anew_while_streams_are_open(daemon, sleeper):
    settings = {**os.environ, **environment(daemon)}
    ends = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL, "env": settings}
    daemon.docker("exec", "-d", sleeper, "sleep", "5432")
    clients = [
        subprocess.Popen(["docker", "exec", "-i", sleeper, "cat"], stdin=subprocess.PIPE, **ends),
        subprocess.Popen(["docker", "attach", "--no-stdin", sleeper], **ends),
        subprocess.Popen(["docker", "logs", "-f", sleeper], **ends),
    ]
    wait_for(lambda: "cat" in daemon.docker("top", sleeper).stdout, "the attached command runs")
    assert daemon.stop() == 0
    # they end with the daemon, which does not wait for them
    assert [client.wait(20) != 0 for client in clients] == [True, True, True]
    clients[0].stdin.close()
    daemon.start()
    assert daemon.docker("ps", "-q", "--no-trunc").stdout.strip() == sleeper
    table = daemon.docker("top", sleeper, "-eo", "pid,args").stdout
    assert "sleep 5432" in table
    assert "cat" not in table
    assert daemon.docker("exec", sleeper, "echo", "on").stdout == "on\n"
