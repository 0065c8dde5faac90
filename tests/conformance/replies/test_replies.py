"""Replays what a real Docker was asked and answered against Shoal's API: status, shape and error text.

The swarm behind the recording stands in a real store under its own ids (world.py). `LEFT_OUT` says of each file that
is not replayed why; `ALLOWED` of each place where Shoal's answer differs on purpose.
"""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import pytest

from shoal.lib.clock import ManualClock
from shoal.lib.units import parse_time_ns
from shoal.model.container import LogLine
from shoal.model.objects import Cluster, Node, Secret, Service
from shoal.model.states import LocalNodeState
from shoal.store.view import View
from tests.conformance.replies.vectors import Vector, differences, find_replies, frames, load
from tests.conformance.replies.world import add_container, fill, make_daemon
from tests.doubles.daemon import MemoryDaemon
from tests.doubles.http import Api, serve

LATER = "what the recording did before this request changed the swarm behind it; the unit tests cover the reply"
LEFT_OUT = {
    "err-join-badtoken": "joining is the daemon's part: system/test_many_nodes.py, docs/reference/differences.md",
    "err-join-noremote": "joining is the daemon's part: system/test_many_nodes.py, docs/reference/differences.md",
    "err-join-notoken": "joining is the daemon's part: system/test_many_nodes.py, docs/reference/differences.md",
    "err-join-wrongsecret": "joining is the daemon's part: system/test_many_nodes.py, docs/reference/differences.md",
    "network-create-overlay": LATER,
    "network-create-overlay-opts": LATER,
    "networks-worker": "a worker does not tell which swarm networks it takes part in yet",
    "err-secret-update-data": "other data is taken and rolls the services; conformance/test_payloads.py tests it",
    "err-noquorum-create": "needs several managers",
    "err-noquorum-nodes": "needs several managers",
    "info-noquorum": "needs several managers",
    "err-unlock-badkey": "unlocking is the daemon's part: system/test_many_nodes.py",
    "swarm-unlock": "unlocking is the daemon's part: system/test_many_nodes.py",
    "info-unlocked": "as info, after a part of the daemon",
    "swarm-unlockkey-autolock": LATER,
    "swarm-leave-worker": "leaving as a worker is the daemon's part",
    "node-inspect-after-leave": LATER,
    "node-inspect-demoted": LATER,
    "node-inspect-drained": LATER,
    "node-inspect-labelled": LATER,
    "node-inspect-promoted": LATER,
    "nodes-filter-nodelabel": LATER,
    "node-delete-down": LATER,
    "service-inspect-updating": LATER,
    "service-inspect-updated": LATER,
    "service-inspect-rollback": LATER,
    "services-status": "counts were taken later than the tasks recorded; the unit tests count",
    "services-v1.41-status": "counts were taken later than the tasks recorded; the unit tests count",
    "swarm-after-rotate": LATER,
    "tasks-after-drain": LATER,
    "secrets-filter-label": LATER,
}
EXTRA_KEYS = re.compile(
    # the recording is of API 1.45; these came until 1.50
    r"\.(EnableIPv4|Descriptor|DefaultRuntime|FirewallBackend|DiscoveredDevices): not in Docker's reply$"
)
IN_USE = ((r"\.Containers: null expected", "recorded before a task came to the network"),)
ALLOWED: dict[str, tuple[tuple[str, str], ...]] = {
    "info": (
        (r"\.(KernelMemoryTCP|Expected): missing$", "gone in API 1.50"),
        (r"\.Plugins\.\w+: \d+ items expected", "Shoal's own drivers"),
        (r"\.DriverStatus: \d+ items expected", "facts of the machine"),
        (r"\.Runtimes\.", "runc only"),
        (r"\.RemoteManagers: \d+ items expected", "one manager in the test"),
    ),
    "version": (
        (r"\.Components: \d+ items expected", "Shoal's own parts"),
        (r"\.Components\[\]", "Shoal's own parts"),
    ),
    "networks": (
        (r"\[(c667|8c86|adf3|1d25|[0-9a-f]{64})[0-9a-f]*\]", "the node's own networks have ids of their own"),
        (r"\[aimj76q14r68sfdl72ljwo6em\]", "recorded before its allocator had looked at it"),
    ),
    "network-inspect-overlay-byname-verbose": (
        *IN_USE,
        (r"\.(Peers|Services): not in", "any manager tells them, not only one that takes part"),
    ),
    "network-inspect-overlay-in-use-verbose": ((r"\.Containers\.lb-ov1: missing", "no address a node for balancing"),),
    "network-inspect-ingress": (
        *IN_USE,
        (r"\.Peers: missing", "told with verbose, as for other networks"),
        (r"\.Containers\.", "recorded before its service; there is no container for balancing"),
        (r"\.Labels", "null, as Docker has it for networks without labels elsewhere"),
    ),
    "network-inspect-overlay": IN_USE,
    "network-inspect-scope": IN_USE,
    "container-of-task-inspect": (
        (r"\.GraphDriver\.Data", "directories of the storage driver are not told"),
        (r"\.NetworkSettings\.Networks", "names of networks are not told yet"),
        (r"\.(MaskedPaths|ReadonlyPaths): \d+ items expected", "not told yet"),
    ),
    "container-of-task-list": (
        (r"^\[6da7[0-9a-f]+\]: missing$", "the engine of the test has one of the two"),
        (r"\.Networks", "names of networks are not told yet"),
    ),
    "system-df": (
        (r"\.RepoDigests: null expected, list found", "a list, as Docker 28 has it"),
        (r"\.Images\[.*\]: (missing|not in)", "another image"),
    ),
    "service-create-full": ((r"\.Warnings", "an option of another driver is told"),),
    "err-service-create-badconstraint": (),
    "err-service-create-badconstraintkey": ((r"\.", "a refusal has a message, no id"),),
}
STATUSES = {
    "err-service-create-badconstraint": (500, 400, "bad input is 400"),
    "err-service-create-badconstraintkey": (201, 400, "no node can ever have the key"),
    "err-service-create-nonet": (500, 404, "Docker's 500 for an absent network is a slip"),
}
CURRENT_VERSION = re.compile(r"version=\d+")
KEPT_VERSIONS = {"err-service-update-stale-version", "err-node-update-stale", "err-swarm-update-badversion"}
OUTSIDE_SWARM = {"err-notswarm-services", "err-notswarm-swarm", "err-swarm-init-badjson", "info-left"}

replies = find_replies()
pytestmark = pytest.mark.skipif(replies is None, reason="no shared/vectors/docker-replies here, and no SHOAL_VECTORS")
names = sorted(path.stem for path in replies.glob("*.json")) if replies else []


def version_of(view: View, path: str) -> int:
    """Return the present version of the object an update's path names."""
    _, collection, reference = path.partition("?")[0].split("/")[:3]
    if collection == "swarm":
        return view.all(Cluster)[0].meta.version
    kind = {"services": Service, "nodes": Node, "secrets": Secret}[collection]
    found = view.get(kind, reference)
    assert found is not None, path
    return found.meta.version


def stand_in(vector: Vector) -> MemoryDaemon:
    daemon = make_daemon(vector.node if vector.name.startswith(("err-worker", "info-worker")) else "h1")
    if vector.name in OUTSIDE_SWARM:
        daemon.node_id, daemon.state, daemon.the_manager = "", LocalNodeState.INACTIVE, None
    if vector.name in {"err-locked-nodes", "info-locked"}:
        daemon.node_id, daemon.state, daemon.the_manager = "", LocalNodeState.LOCKED, None
        daemon.error = "Swarm is encrypted"
    if vector.name.startswith("container-of-task"):
        add_container(daemon)
    return daemon


async def prepare(vector: Vector, api: Api) -> str:
    """Bring the swarm to where the request was made; returns its path with the version it would send now."""
    manager = api.daemon.the_manager
    if manager is None:
        return vector.path
    await fill(manager.store, without=vector.name)
    if vector.name == "service-update-rollback-previous":
        update = load("service-update")
        path = CURRENT_VERSION.sub(f"version={version_of(manager.store.view, update.path)}", update.path)
        assert (await api.call("POST", path, update.request_body)).status == 200
    if "version=" in vector.path and vector.name not in KEPT_VERSIONS and vector.name != "err-service-update-notfound":
        return CURRENT_VERSION.sub(f"version={version_of(manager.store.view, vector.path)}", vector.path)
    if "logs" in vector.name and vector.status == 200:
        feed_lines(vector, api.daemon)
    if vector.name == "events-swarm":
        assert isinstance(api.daemon.clock, ManualClock)
        api.daemon.clock.advance(3600)
    return vector.path


def feed_lines(vector: Vector, daemon: MemoryDaemon) -> None:
    """Let the tasks have written what was recorded."""
    for stream, payload in frames(vector.raw_body):
        text = payload.decode()
        at_ns, task_id = 0, vector.path.split("/")[2]
        if "details=1" in vector.path:
            time, details, text = text.split(" ", 2)
            at_ns, task_id = parse_time_ns(time), details.rpartition("=")[2]
        line = LogLine(stream={1: "stdout", 2: "stderr"}[stream], at_ns=at_ns, data=text.encode())
        daemon.task_lines[task_id] = (*daemon.task_lines.get(task_id, ()), line)


def complaints(vector: Vector, body: Any) -> list[str]:
    found = [text for text in differences(vector.body, body) if not EXTRA_KEYS.search(text)]
    family = next((key for key in ALLOWED if vector.name == key or vector.name.startswith(f"{key}-")), "")
    return [text for text in found if not any(re.search(pattern, text) for pattern, _ in ALLOWED.get(family, ()))]


@pytest.mark.parametrize("name", [name for name in names if name not in LEFT_OUT])
def test_reply(name: str) -> None:
    vector = load(name)

    async def replay() -> None:
        async with asyncio.timeout(30), serve(stand_in(vector)) as api:
            path = await prepare(vector, api)
            raw = vector.request_raw.encode() if vector.request_raw is not None else None
            reply = await api.call(vector.method, path, vector.request_body, raw=raw)
            expected_status = vector.status
            if name in STATUSES:
                recorded, expected_status, _why = STATUSES[name]
                assert recorded == vector.status
            assert reply.status == expected_status, reply.body
            for header in ("Ostype", "Docker-Experimental", "Api-Version", "Server"):
                assert header in reply.headers
            if vector.headers.get("Content-Type"):
                assert reply.headers["Content-Type"] == vector.headers["Content-Type"]
            if vector.message is not None:
                assert reply.message == vector.message.replace("1.45", "1.50")
            elif name == "events-swarm":
                check_events(vector, reply.body)
            elif vector.body is not None:
                assert "\n".join(complaints(vector, reply.json)) == ""
            elif "multiplexed" in vector.headers.get("Content-Type", ""):
                assert sorted(frames(reply.body)) == sorted(frames(vector.raw_body))
            else:
                assert reply.body == vector.raw_body

    asyncio.run(replay())


def check_events(vector: Vector, raw: bytes) -> None:
    recorded = [json.loads(line) for line in vector.raw_body.splitlines()]
    ours = [json.loads(line) for line in raw.splitlines()]
    assert len(ours) > 10
    kinds = {(event["Type"], event["Action"]) for event in ours}
    assert {("node", "create"), ("service", "create"), ("secret", "create"), ("network", "create")} <= kinds
    for event in ours:
        assert set(event) == set(recorded[0])
        assert set(event["Actor"]) == set(recorded[0]["Actor"])
        assert event["scope"] == "swarm"
        assert "name" in event["Actor"]["Attributes"]


def test_every_file_left_out_exists() -> None:
    assert set(LEFT_OUT) <= set(names)
