"""Requests made up out of Docker's description of its API, against a shoald of its own: see scripts/fuzz."""

from __future__ import annotations

import base64
import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.lab.image import busybox_archive
from tests.conformance.replies.vectors import find_replies
from tests.system.daemon import RunningDaemon, running_daemon, wait_for
from tests.system.left import kept, memory_kilobytes, processes_with, twice_the_same

PORT = 2375
USUAL_MINUTES = 10.0
REQUEST_SECONDS = 10.0
# after the time is up schemathesis ends the request that it is at
END_SECONDS = 120.0
REST_SECONDS = 60.0
WORLD_SECONDS = 3.0
SLOWEST = 8
# how schemathesis labels scenarios that go through several operations
STATEFUL = "Stateful tests"
# the executor of asyncio keeps its threads; it has no more than these
EXECUTOR_THREADS = 32
# of caches and of what the swarm keeps: its log, history, services that were asked for
MOST_GROWTH_KILOBYTES = 64 << 10
IMAGES = ("busybox:latest", "ubuntu:latest", "nginx:alpine", "redis:latest", "example-image:1.0")
SLEEP = ["sh", "-c", "trap 'exit 0' TERM; while :; do sleep 0.2; done"]

# what a request may find by name; made anew when a request has removed it
WORLD: tuple[tuple[str, dict[str, Any]], ...] = (
    ("/networks/create", {"Name": "net", "Driver": "overlay", "Attachable": True}),
    ("/networks/create", {"Name": "local"}),
    ("/volumes/create", {"Name": "volume"}),
    ("/secrets/create", {"Name": "secret", "Data": base64.b64encode(b"x").decode()}),
    ("/configs/create", {"Name": "config", "Data": base64.b64encode(b"x").decode()}),
    ("/containers/create?name=box", {"Image": "busybox", "Cmd": SLEEP, "HostConfig": {"NetworkMode": "local"}}),
    ("/containers/box/start", {}),
    (
        "/services/create",
        {
            "Name": "web",
            "TaskTemplate": {
                "ContainerSpec": {"Image": "busybox", "Command": SLEEP},
                "Networks": [{"Target": "net"}],
            },
            "EndpointSpec": {"Ports": [{"TargetPort": 80, "PublishedPort": 8888}]},
        },
    ),
)

# it ends the swarm, after which nothing is worth asking
LEFT_OUT = ("SwarmLeave",)

# operations whose answer lasts as long as the client asks for, or as what it is about lasts
LASTING = {
    "GET /events": "until the client goes",
    "GET /containers/{id}/logs": "follow",
    "GET /services/{id}/logs": "follow",
    "GET /tasks/{id}/logs": "follow",
    "GET /containers/{id}/stats": "stream",
    "POST /containers/{id}/attach": "stream",
    "GET /containers/{id}/attach/ws": "stream",
    "POST /containers/{id}/wait": "until the container ends",
    "POST /containers/{id}/stop": "as long as t says",
    "POST /containers/{id}/restart": "as long as t says",
    "POST /exec/{id}/start": "until the command ends",
}

# status, what the text says, and why it is right
KNOWN = (
    (500, "update out of sequence", "Docker's code and text for an update of another version"),
    (500, "choose at least one stream", "Docker's code for logs of services and tasks"),
    (503, "cannot be reached", "the registry: there is none in this network namespace"),
    (501, "", "not built, and the text says so"),
    (503, "already part of a swarm", "Docker's code: swarm init and join on a node of a swarm"),
)


@dataclass(frozen=True)
class Exchange:
    """One request; `status` is None if no whole answer came in time."""

    operation: str
    request: dict[str, Any]
    status: int | None
    text: str
    seconds: float

    def sample(self) -> str:
        body = decoded(self.request.get("body"))
        return f"{self.request['method']} {self.request['uri']}" + (f"\n      {body[:600]}" if body else "")


def decoded(content: Any) -> str:
    """Return a body as schemathesis reports it as text."""
    if isinstance(content, dict) and "$base64" in content:
        return base64.b64decode(content["$base64"]).decode(errors="replace")
    return "" if content is None else str(content)


def exchanges(report: Path) -> Iterator[Exchange]:
    """Read the requests and answers of a report, one event a line."""
    with report.open() as lines:
        for line in lines:
            name, event = next(iter(json.loads(line).items()))
            if name == "NonFatalError" and event["value"]["type"] == "ConnectionError":
                # without the request: the client gave up, or the daemon has cut the connection
                method, _, path = event["label"].partition(" ")
                yield Exchange(
                    event["label"], {"method": method, "uri": path}, None, event["value"]["message"], REQUEST_SECONDS
                )
            if name != "ScenarioFinished":
                continue
            recorder = event["recorder"]
            for case_id, one in recorder.get("interactions", {}).items():
                operation = recorder["label"]
                if operation == STATEFUL:
                    case = recorder["cases"][case_id]["value"]
                    operation = f"{case['method']} {case['path']}"
                answer = one["response"]
                text = decoded(answer.get("content"))
                yield Exchange(operation, one["request"], answer["status_code"], text, answer["elapsed"])


def description_for(root: Path) -> Path:
    """Copy Docker's description; what its example binds is a folder of this run, not the host's."""
    replies = find_replies()
    if replies is None:
        sys.exit("fuzz: set SHOAL_VECTORS to the folder with docker-api/v1.50.yaml")
    text = (replies.parent / "docker-api" / "v1.50.yaml").read_text()
    (root / "bound").mkdir()
    path = root / "description.yaml"
    path.write_text(text.replace('"/tmp:/tmp"', f'"{root}/bound:/tmp"'))
    return path


def make_world(daemon: RunningDaemon) -> None:
    """Make what is missing of the world; what is there refuses to be made twice."""
    for image in IMAGES:
        name, _, tag = image.partition(":")
        if daemon.request("GET", f"/images/{image}/json")[0] == 404:
            daemon.request("POST", f"/images/create?fromSrc=-&repo={name}&tag={tag}", busybox_archive())
    for path, body in WORLD:
        daemon.request("POST", path, body)
    # a node that a request has drained or paused would take no task any more
    node = daemon.request("GET", "/nodes/self")[1]
    if "Spec" in node and node["Spec"]["Availability"] != "active":
        spec = node["Spec"] | {"Availability": "active"}
        daemon.request("POST", f"/nodes/{node['ID']}/update?version={node['Version']['Index']}", spec)


def clear_world(daemon: RunningDaemon) -> None:
    """Remove all services, containers, networks, volumes, secrets and configs there are."""
    for noun in ("services", "secrets", "configs"):
        for one in daemon.request("GET", f"/{noun}")[1]:
            wait_for(lambda path=f"/{noun}/{one['ID']}": daemon.request("DELETE", path)[0] < 300, f"no {noun}", 30)
    for one in daemon.request("GET", "/containers/json?all=1")[1]:
        daemon.request("DELETE", f"/containers/{one['Id']}?force=1&v=1")
    wait_for(lambda: not daemon.request("GET", "/containers/json?all=1")[1], "no containers", REST_SECONDS)
    for network in daemon.request("GET", "/networks")[1]:
        daemon.request("DELETE", f"/networks/{network['Id']}")
    for volume in daemon.request("GET", "/volumes")[1]["Volumes"] or ():
        daemon.request("DELETE", f"/volumes/{volume['Name']}?force=1")


def state_of(daemon: RunningDaemon, daemon_id: str) -> dict[str, int]:
    """Count what the daemon has of the machine, without its files: its log and its history grow."""
    keepers = [int(line.split(":")[0]) for line in processes_with(str(daemon.root)) if "engine.keeper" in line]
    found = kept(daemon, keepers[0], daemon_id) | {"keepers": len(keepers)}
    del found["files"]
    found["threads of the daemon"] = len(list(Path(f"/proc/{daemon.pid}/task").iterdir()))
    found["containers"] = len(daemon.request("GET", "/containers/json?all=1")[1])
    return found


def fuzz(daemon: RunningDaemon, root: Path, minutes: float, arguments: list[str]) -> list[Exchange]:
    """Run schemathesis; meanwhile the world is kept whole."""
    report = root / "report.ndjson"
    left_out = [word for operation in LEFT_OUT for word in ("--exclude-operation-id", operation)]
    command = [
        "nsenter", f"--net=/run/netns/{daemon.netns}",
        "schemathesis", "run", str(description_for(root)),
        "--url", f"http://127.0.0.1:{PORT}/v1.50", "--max-time", str(int(minutes * 60)), "--continue-on-failure",
        "--checks", "not_a_server_error", "--request-timeout", str(REQUEST_SECONDS), "--generation-database", "none",
        "--warnings", "off", "--no-color", "--report", "ndjson", "--report-ndjson-path", str(report),
        *left_out, *arguments,
    ]  # fmt: skip
    with (root / "schemathesis.log").open("w") as log:
        hooks = {"SCHEMATHESIS_HOOKS": str(Path(__file__).with_name("fuzz_hooks.py")), "SHOAL_FUZZ_PORT": str(PORT)}
        process = subprocess.Popen(
            command, cwd=root, stdout=log, stderr=subprocess.STDOUT, env={**os.environ, "PYTHONPATH": "", **hooks}
        )
        try:
            deadline = time.monotonic() + minutes * 60 + END_SECONDS
            while time.monotonic() < deadline:
                make_world(daemon)
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(WORLD_SECONDS)
                    break
            else:
                print("schemathesis did not end by itself: it reads an answer that does not end")
        finally:
            process.kill()
            process.wait()
    found = list(exchanges(report)) if report.exists() else []
    if not found:
        sys.exit(f"fuzz: schemathesis made no request:\n{(root / 'schemathesis.log').read_text()}")
    return found


def reason_of(exchange: Exchange) -> str | None:
    """Say why an answer of 5xx, or none, is right; None if it is not."""
    if exchange.status is None:
        return LASTING.get(exchange.operation) if "timed out" in exchange.text else None
    return next((why for status, text, why in KNOWN if exchange.status == status and text in exchange.text), None)


def kind_of(exchange: Exchange) -> tuple[str, str]:
    """Name what an exchange is alike to others by: its status or silence, and its text without ids and values."""
    if exchange.status is None:
        return ("no answer", exchange.operation)
    text = re.sub(r'"[^"]*"|\b[0-9a-z]{25,64}\b|\d+', "…", exchange.text.strip().removeprefix('{"message":"'))
    return (str(exchange.status), f"{exchange.operation}: {text[:160]}")


def print_answers(found: list[Exchange]) -> int:
    """Print what came back; returns how many kinds of it are wrong."""
    classes = Counter(f"{one.status // 100}xx" if one.status else "no answer" for one in found)
    print(f"{len(found)} requests of {len({one.operation for one in found})} operations:", end=" ")
    print(", ".join(f"{count} {name}" for name, count in sorted(classes.items())))
    slowest: dict[str, float] = {}
    for one in found:
        slowest[one.operation] = max(slowest.get(one.operation, 0.0), one.seconds)
    worst = sorted(slowest.items(), key=lambda item: -item[1])[:SLOWEST]
    print("slowest answers:", ", ".join(f"{operation} {seconds:.2f} s" for operation, seconds in worst))
    kinds: dict[tuple[str, str], list[Exchange]] = {}
    for one in found:
        if one.status is None or one.status >= 500:
            kinds.setdefault(kind_of(one), []).append(one)
    wrong = 0
    for (status, text), alike in sorted(kinds.items()):
        reason = reason_of(alike[0])
        wrong += reason is None
        print(f"  {status} {text} ({len(alike)} times): {reason or 'UNKNOWN'}")
        if reason is None or alike[0].status not in {None, 501}:
            print(f"      {alike[0].sample()}")
    return wrong


def print_state(before: dict[str, int], after: dict[str, int], memory: tuple[int, int]) -> int:
    """Print what the daemon had before and has after; returns how much of it has grown that should not."""
    grown = 0
    for what, count in before.items():
        slack = EXECUTOR_THREADS if what == "threads of the daemon" else 0
        leaks = after[what] > count + slack
        grown += leaks
        print(f"  {what:28} {count:7} before {after[what]:7} after{'  GROWN' if leaks else ''}")
    leaks = memory[1] - memory[0] > MOST_GROWTH_KILOBYTES
    print(f"  {'memory of the daemon, kB':28} {memory[0]:7} before {memory[1]:7} after{'  GROWN' if leaks else ''}")
    return grown + leaks


def at_rest(daemon: RunningDaemon, daemon_id: str) -> dict[str, int]:
    """Remove the world and return what is left when it no longer changes."""
    clear_world(daemon)
    return wait_for(lambda: twice_the_same(lambda: state_of(daemon, daemon_id)), "it has come to rest", REST_SECONDS)


def run(daemon: RunningDaemon, root: Path, minutes: float, arguments: list[str]) -> int:
    """Fuzz and print; returns how much is wrong."""
    daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    daemon_id = daemon.request("GET", "/info")[1]["ID"]
    pid = daemon.pid
    make_world(daemon)
    wait_for(lambda: len(daemon.request("GET", "/containers/json")[1]) == 2, "the world runs", REST_SECONDS)
    before, memory = at_rest(daemon, daemon_id), memory_kilobytes(pid)
    make_world(daemon)
    wrong = print_answers(fuzz(daemon, root, minutes, arguments))
    if not Path(f"/proc/{pid}").exists() or daemon.request("GET", "/_ping")[0] != 200:
        print(f"the daemon has ended:\n{daemon.log()[-4000:]}")
        return wrong + 1
    wrong += print_state(before, at_rest(daemon, daemon_id), (memory, memory_kilobytes(pid)))
    errors = Counter(
        re.sub(r"\S+=\S*\d\S*", "", line)[:160] for line in daemon.log().splitlines() if "level=error" in line
    )
    for line, count in errors.most_common(20):
        print(f"  logged {count} times: {line}")
    return wrong


def main() -> int:
    """Read the arguments, fuzz, return the exit code."""
    arguments = sys.argv[1:]
    minutes = USUAL_MINUTES
    if arguments[:1] == ["--minutes"]:
        minutes, arguments = float(arguments[1]), arguments[2:]
    if shutil.which("schemathesis") is None:
        sys.exit("fuzz: there is no schemathesis: the first lines of scripts/fuzz say how to install it")
    hosts = ("-H", "unix://{root}/run/shoal.sock", "-H", f"tcp://127.0.0.1:{PORT}")
    with tempfile.TemporaryDirectory(prefix="shoal-fuzz-") as name, running_daemon(*hosts) as daemon:
        wrong = run(daemon, Path(name), minutes, arguments)
    print("good" if not wrong else f"{wrong} things are wrong")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
