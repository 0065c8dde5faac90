"""What clients see of containers of other nodes: logs of nodes that do not answer, and whose container is meant."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from shoal.agent.streams import StreamServer
from shoal.api.routes import logs as logs_module
from shoal.core.container import NODE_ID_LABEL, TASK_ID_LABEL
from shoal.engine.fake import FakeEngine
from shoal.errors import Unavailable
from shoal.lib.clock import SystemClock
from shoal.lib.ids import Ids
from shoal.model.actions import Create
from shoal.model.container import ContainerConfig, LogLine, LogOptions
from shoal.model.objects import ContainerStatus, Task, TaskStatus
from shoal.model.states import TaskState
from shoal.rpc.link import make_frame_pair
from shoal.rpc.relay import ManagerEnd
from tests.doubles.http import Api, run_api

SPEC: dict[str, Any] = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}


async def add_tasks(api: Api, *tasks: tuple[str, str], container_id: str = "") -> str:
    """Add running tasks, pairs (id, node), of a new service; returns its id."""
    service = (await api.call("POST", "/services/create", SPEC)).json["ID"]
    assert api.daemon.the_manager is not None
    for slot, (task_id, node_id) in enumerate(tasks, 1):
        status = TaskStatus(state=TaskState.RUNNING, container=ContainerStatus(container_id=container_id))
        task = Task(id=task_id, service_id=service, spec_version=1, slot=slot, node_id=node_id, status=status)
        await api.daemon.the_manager.store.update(lambda _view, task=task: [Create(object=task)])  # type: ignore[misc]
    return str(service)


class Output:
    """What tasks say: a text is a line, None a node that goes away there."""

    def __init__(self, **said: list[str | None]) -> None:
        self.said = said
        self.asked: list[tuple[str, LogOptions]] = []

    async def __call__(self, task: Task, options: LogOptions) -> AsyncIterator[LogLine]:
        self.asked.append((task.id, options))
        pieces = self.said[task.id]
        for number in range(len(pieces)):
            text = pieces.pop(0)
            if text is None:
                raise Unavailable(f"node {task.node_id} is down")
            yield LogLine(stream="stdout", at_ns=1000 + number, data=text.encode())


WARNING = (
    "warning: incomplete log stream. some logs could not be retrieved for the following reasons: node n2 is down\n"
)


def frames_of(body: bytes) -> list[tuple[int, str]]:
    frames = []
    while body:
        length = int.from_bytes(body[4:8], "big")
        frames.append((body[0], body[8 : 8 + length].decode()))
        body = body[8 + length :]
    return sorted(frames)


def test_a_node_that_does_not_answer_is_one_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    async def test(api: Api) -> None:
        await add_tasks(api, ("a", "n1"), ("b", "n2"), ("c", "n2"))
        output = Output(a=["one\n", "two\n"], b=[None], c=[None])
        monkeypatch.setattr(api.daemon, "task_logs", output)
        body = (await api.call("GET", "/services/web/logs?stdout=1&stderr=1")).body
        assert frames_of(body) == [(1, "one\n"), (1, "two\n"), (2, WARNING)]
        # as any line: the docker command parses what stands before it
        output.said = {"a": [], "b": [None], "c": []}
        body = (await api.call("GET", "/services/web/logs?stdout=1&stderr=1&details=1&timestamps=1")).body
        ((stream, text),) = frames_of(body)
        stamp, details, rest = text.split(" ", 2)
        assert (stream, rest) == (2, WARNING)
        assert stamp.endswith("Z")
        assert "com.docker.swarm.node.id=n2,com.docker.swarm.service.id=" in details

    run_api(test)


def test_what_is_followed_goes_on_when_the_node_is_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs_module, "RETRY_FIRST_SECONDS", 0.001)
    monkeypatch.setattr(logs_module, "RETRY_MOST_SECONDS", 0.001)

    async def test(api: Api) -> None:
        await add_tasks(api, ("b", "n2"))
        output = Output(b=["one\n", None, None, "two\n", None])
        monkeypatch.setattr(api.daemon, "task_logs", output)
        async with api.session.get("http://docker/services/web/logs?stdout=1&stderr=1&follow=1&tail=5") as response:
            for stream, text in ((1, "one\n"), (2, WARNING), (1, "two\n"), (2, WARNING)):
                head = await response.content.readexactly(8)
                said = await response.content.readexactly(int.from_bytes(head[4:], "big"))
                assert (head[0], said.decode()) == (stream, text)
            first, second, *_ = [options for _, options in output.asked]
            assert (first.since_ns, first.tail) == (0, 5)
            assert (second.since_ns, second.tail) == (1001, None), "what was passed on is not asked for again"

    run_api(test)


class Node:
    """Node n2 with a container of task b."""

    def __init__(self) -> None:
        self.engine = FakeEngine(SystemClock(), Ids())
        self._server = StreamServer(self.engine, "n2")
        self._serving: set[asyncio.Task[None]] = set()

    async def open(self, node_id: str) -> ManagerEnd:
        if node_id != "n2":
            raise Unavailable(f"node {node_id} is down")
        ours, theirs = make_frame_pair()
        self._serving.add(asyncio.create_task(self._server.serve(theirs)))
        return ManagerEnd(ours, "h2")


def test_containers_are_looked_up_in_the_swarm() -> None:
    async def test(api: Api) -> None:
        node = Node()
        api.daemon.engine = FakeEngine(SystemClock(), Ids())  # type: ignore[assignment]
        labels = {TASK_ID_LABEL: "b", NODE_ID_LABEL: "n2"}
        config = ContainerConfig(name="web.2.b", image="busybox", labels=labels)
        container = await node.engine.start((await node.engine.create(config)).id)
        node.engine.write("web.2.b", b"said\n")
        await add_tasks(api, ("a", "n1"), ("b", "n2"), container_id=container.id)
        manager = api.daemon.the_manager
        assert manager is not None
        manager.remote_containers._open_stream = node.open
        # by name it is a container, by the task's id what Docker says of the task, too
        assert "NodeID" not in await api.get("/containers/web.2.b/json")
        shown = await api.get("/containers/b/json")
        assert (shown["Id"], shown["ID"], shown["NodeID"]) == (container.id, "b", "n2")
        assert (await api.get("/containers/web.2/top"))["Processes"] == [[str(container.state.pid), "fake"]]
        sample = await api.get("/containers/web.2/stats?stream=0&one-shot=1")
        assert sample["pids_stats"]["current"] == 1
        assert (await api.call("GET", "/containers/web.2/logs?stdout=1")).body[8:] == b"said\n"
        created = await api.call("POST", "/containers/web.2/exec", {"Cmd": ["x"]})
        exec_id = created.json["Id"]
        assert (await api.call("POST", f"/exec/{exec_id}/start", {"Detach": True})).status == 200
        assert (await api.get(f"/exec/{exec_id}/json"))["ExitCode"] == 0
        assert (await api.call("POST", f"/exec/{exec_id}/resize?h=1&w=1")).status == 404
        assert (await api.call("POST", "/containers/web.2/kill")).status == 204
        waited = await api.call("POST", "/containers/web.2/wait")
        assert waited.json == {"StatusCode": 137}
        for path, status, words in (
            ("/containers/web.1/json", 503, "node n1 is down"),
            ("/containers/nothing/json", 404, "No such container: nothing"),
            ("/containers/web/json", 404, "No such container: web"),
            ("/exec/nothing/json", 404, "No such exec instance: nothing"),
        ):
            refused = await api.call("GET", path)
            assert (refused.status, refused.message) == (status, words)
        # a worker looks at its own only
        api.daemon.the_manager = None
        assert (await api.call("GET", "/containers/web.2.b/json")).status == 404

    run_api(test)
