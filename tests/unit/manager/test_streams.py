"""Streams that the leader has nodes open, with real sessions over memory; and whose container a reference means."""

from __future__ import annotations

import asyncio

import pytest

from shoal.agent import agent as agent_module
from shoal.errors import InvalidArgument, NotBuilt, NotFound, Unavailable
from shoal.lib.clock import ManualClock
from shoal.lib.ids import Ids
from shoal.manager import streams as streams_module
from shoal.manager.lookup import find_container
from shoal.manager.streams import NodeStreams
from shoal.model.actions import Create
from shoal.model.messages import OpenStream, StreamRefused
from shoal.model.objects import ContainerStatus, Service, Task, TaskStatus
from shoal.model.relay import InspectContainer
from shoal.model.specs import ServiceSpec
from shoal.model.states import TaskState
from shoal.rpc.link import LinkClosed, MemoryLink, make_frame_pair, make_pair
from shoal.rpc.relay import ManagerEnd
from tests.doubles.cluster import running_cluster
from tests.doubles.consensus import make_store


def begun(link: MemoryLink) -> NodeStreams:
    streams = NodeStreams(link, Ids(), is_served=True)
    streams.begin()
    return streams


async def opened(streams: NodeStreams, link: MemoryLink) -> tuple[asyncio.Task[object], str]:
    """Ask for a stream, as the node hears it."""
    opening: asyncio.Task[object] = asyncio.create_task(streams.open())
    asked = await link.receive()
    assert isinstance(asked, OpenStream)
    return opening, asked.stream_id


def test_a_stream_is_opened_once_by_who_was_asked() -> None:
    async def scenario() -> None:
        ours, theirs = make_pair()
        streams = begun(ours)
        opening, stream_id = await opened(streams, theirs)
        with pytest.raises(NotFound):
            streams.take("another", make_frame_pair()[0])
        one, other = make_frame_pair()
        streams.take(stream_id, one)
        for again in (streams.expects, lambda id_: streams.take(id_, make_frame_pair()[0])):
            with pytest.raises(NotFound):
                again(stream_id)
        stream = await opening
        await other.send(b"frame")
        assert await stream.receive() == b"frame"
        stream.close()
        await stream.wait_closed()
        with pytest.raises(LinkClosed):
            await other.receive()
        with pytest.raises(NotFound):
            streams.expects(stream_id)

    asyncio.run(scenario())


def test_a_stream_that_is_not_opened(monkeypatch: pytest.MonkeyPatch) -> None:
    async def scenario() -> None:
        ours, theirs = make_pair()
        streams = begun(ours)
        opening, stream_id = await opened(streams, theirs)
        streams.refuse(StreamRefused(stream_id="another", message="no"))
        streams.refuse(StreamRefused(stream_id=stream_id, message="the node serves enough"))
        with pytest.raises(Unavailable, match="the node serves enough"):
            await opening
        # the session ends: what is awaited fails, what is open ends
        opening, stream_id = await opened(streams, theirs)
        one, other = make_frame_pair()
        streams.take(stream_id, one)
        await opening
        waiting, _ = await opened(streams, theirs)
        streams.close("the session has ended")
        with pytest.raises(Unavailable, match="the session has ended"):
            await waiting
        with pytest.raises(LinkClosed):
            await other.receive()
        monkeypatch.setattr(streams_module, "OPEN_SECONDS", 0.01)
        with pytest.raises(Unavailable, match=r"has not opened a stream within 0\.01 s"):
            await streams.open()
        with pytest.raises(NotBuilt, match="upgrade it"):
            await NodeStreams(ours, Ids(), is_served=False).open()

    asyncio.run(scenario())


def test_who_does_not_wait_any_more_leaves_no_stream_open() -> None:
    async def scenario() -> None:
        ours, theirs = make_pair()
        streams = begun(ours)
        opening, stream_id = await opened(streams, theirs)
        one, other = make_frame_pair()
        streams.take(stream_id, one)
        opening.cancel()
        with pytest.raises(asyncio.CancelledError):
            await opening
        with pytest.raises(LinkClosed):
            await other.receive()

    asyncio.run(scenario())


def test_the_agent_opens_streams_and_ends_them_with_its_session(tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(agent_module, "STREAMS_MOST", 2)

    async def scenario() -> None:
        async with running_cluster(tmp_path, 1) as cluster:
            node = cluster.nodes[0]
            session = cluster.leader.dispatcher.session_of(node.id)
            ends = [ManagerEnd(await session.streams.open(), "h1") for _ in range(2)]
            with pytest.raises(Unavailable, match="the node serves 2 streams already"):
                await session.streams.open()
            for end in ends:
                await end.send(InspectContainer(task_id="none"))
                with pytest.raises(NotFound, match="No such container"):
                    await end.receive()
            ends[0].close()
            await cluster.until(lambda: len(node.agent._open_streams) == 1, "one has ended")
            node.agent.reconnect("the test wants it")
            with pytest.raises(LinkClosed):
                await ends[1].receive()
            await cluster.until(lambda: not node.agent._open_streams, "none is left")

    asyncio.run(scenario())


def task(id_: str, state: TaskState = TaskState.RUNNING, container_id: str = "", slot: int = 1) -> Task:
    status = TaskStatus(state=state, container=ContainerStatus(container_id=container_id))
    return Task(id=id_, service_id="s1", spec_version=1, slot=slot, node_id="n1", status=status)


def test_whose_container_a_reference_means() -> None:
    async def scenario() -> None:
        store = make_store(ManualClock())
        objects = (
            Service(id="s1", spec=ServiceSpec(name="web")),
            task("old", TaskState.FAILED, "aa11"),
            task("one", container_id="ab22"),
            task("new", TaskState.PREPARING),
            task("two", container_id="abb33", slot=2),
            task("global", container_id="cc44", slot=0),
        )
        for value in objects:
            await store.update(lambda _view, value=value: (Create(object=value),))
        view = store.view

        def found(reference: str) -> str:
            return find_container(view, reference).id

        for reference in ("one", "on", "ab22", "ab2", "web.1.one", "/web.1.one", "web.1"):
            assert found(reference) == "one"
        assert found("aa") == "old"
        assert found("web.1.old") == "old"
        assert found("web.n1") == found("web.n1.global") == "global"
        for reference in ("", "none", "web", "web.3", "web.2.one", "WEB.1", "web.1.", "other.1.one", "dd"):
            with pytest.raises(NotFound, match="No such container"):
                found(reference)
        with pytest.raises(InvalidArgument, match="multiple IDs found with provided prefix: ab"):
            found("ab")

    asyncio.run(scenario())
