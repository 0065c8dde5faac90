"""Containers of another node, over memory: both ends of the protocol with the fake engine behind."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator

import msgspec
import pytest

from shoal.agent.streams import StreamServer
from shoal.core.container import NODE_ID_LABEL, TASK_ID_LABEL
from shoal.engine.fake import FakeEngine
from shoal.errors import Conflict, InvalidArgument, NotBuilt, NotFound
from shoal.lib.clock import ManualClock
from shoal.lib.ids import Ids
from shoal.manager import remote_containers
from shoal.manager.remote_containers import RemoteContainers, RemoteStream
from shoal.model.container import ContainerConfig, FileInContainer, LogLine, LogOptions
from shoal.model.relay import (
    INPUT_FRAMES_MOST,
    Done,
    Input,
    InputEnded,
    InputTaken,
    Opened,
    Said,
    StartExec,
    StillThere,
)
from shoal.model.streams import AttachOptions, ExecConfig, Output
from shoal.rpc import relay
from shoal.rpc.link import LinkClosed, LinkSilent, MemoryFrames, make_frame_pair
from shoal.rpc.relay import FRAMES_QUEUED_MOST, ManagerEnd, NodeEnd, splice

DEADLINE_SECONDS = 10.0
OURS = {TASK_ID_LABEL: "t1", NODE_ID_LABEL: "n1"}


class World:
    """A node with a running container of task t1 and one that is nobody's business, and a manager."""

    def __init__(self) -> None:
        self.engine = FakeEngine(ManualClock(), Ids())
        self.server = StreamServer(self.engine, "n1")
        self.remote = RemoteContainers(self.open)
        self.serving: set[asyncio.Task[None]] = set()
        self.node_frames: list[MemoryFrames] = []

    async def open(self, node_id: str) -> ManagerEnd:
        assert node_id == "n1"
        ours, theirs = make_frame_pair(FRAMES_QUEUED_MOST)
        self.node_frames.append(theirs)
        task = asyncio.create_task(self.server.serve(theirs))
        self.serving.add(task)
        return ManagerEnd(ours, "h1")

    async def all_served(self) -> None:
        await asyncio.gather(*self.serving)


@contextlib.asynccontextmanager
async def world() -> AsyncIterator[World]:
    async with asyncio.timeout(DEADLINE_SECONDS):
        made = World()
        secret = FileInContainer(path="/run/secrets/s", content=b"secret")
        ours = ContainerConfig(name="web.1.t1", image="busybox", labels=OURS, files=(secret,))
        other = ContainerConfig(name="other", image="busybox", labels={TASK_ID_LABEL: "t2"})
        for config in (ours, other):
            await made.engine.start((await made.engine.create(config)).id)
        yield made
        # whoever asks ends its streams: nothing is left at the node
        await made.all_served()


def test_calls_are_answered_as_the_engine_would() -> None:
    async def scenario() -> None:
        async with world() as made:
            made.engine.write("web.1.t1", b"one\n")
            made.engine.write("web.1.t1", b"two\n", "stderr")
            local = made.engine.get("web.1.t1")
            async with made.remote.container("n1", "t1") as found:
                assert found.container.id == local.id
                assert found.container.config.files == (), "secrets stay on their node"
                assert found.container.config.labels == OURS
                lines = [line async for line in found.logs(LogOptions(tail=1))]
                assert lines == [LogLine(stream="stderr", at_ns=lines[0].at_ns, data=b"two\n")]
                assert await found.stats() == await made.engine.stats(local.id)
                assert await found.top("-ef") == await made.engine.top(local.id)
                await found.resize(3, 4)
                waiting = asyncio.create_task(found.wait())
                await asyncio.sleep(0)
                made.engine.finish(local.id, 7)
                assert (await waiting).code == 7
            async with made.remote.container("n1", "t1") as found:
                assert found.container.state.exit_code == 7
                with pytest.raises(Conflict, match="is not running"):
                    await found.resize(3, 4)
                with pytest.raises(Conflict, match="is not running"):
                    await found.exec_create(ExecConfig(arguments=("x",)))

    asyncio.run(scenario())


def test_only_containers_of_this_nodes_tasks_are_shown() -> None:
    async def scenario() -> None:
        async with world() as made:
            record = made.engine.exec_create("other", ExecConfig(arguments=("x",)))
            for task_id in ("t2", "t3", ""):
                with pytest.raises(NotFound, match="No such container"):
                    async with made.remote.container("n1", task_id):
                        pass
            end = await made.open("n1")
            with pytest.raises(NotFound, match="No such exec instance"):
                await end.ask(StartExec(exec_id=record.id), Opened)
            end.close()

    asyncio.run(scenario())


def test_a_command_is_created_started_resized_and_asked_about() -> None:
    async def scenario() -> None:
        async with world() as made:
            async with made.remote.container("n1", "t1") as found:
                with pytest.raises(InvalidArgument, match="No exec command specified"):
                    await found.exec_create(ExecConfig(arguments=()))
                record = await found.exec_create(ExecConfig(arguments=("cat",), attach_stdin=True))
            async with made.remote.command(record.id) as command:
                stream = await command.start()
                assert stream is not None
                await stream.write(b"typed")
                assert await stream.read() == Output(stream="stdout", data=b"typed")
                async with made.remote.command(record.id) as same:
                    await same.resize(3, 4)
                    assert same.record.running
                    with pytest.raises(Conflict, match="has already run"):
                        await same.start()
                await stream.close_input()
                assert await stream.read() is None
                assert made.engine.streams.streams[0].size == (3, 4)
                assert made.engine.streams.streams[0].is_closed
                # typed when it had ended: nobody minds
                await stream.write(b"late")
                await stream.close_input()
            async with made.remote.command(record.id) as command:
                assert command.record.exit_code == 0
            with pytest.raises(NotFound, match="No such exec instance: none"):
                async with made.remote.command("none"):
                    pass
            async with made.remote.container("n1", "t1") as found:
                detached = await found.exec_create(ExecConfig(arguments=("x",)))
            async with made.remote.command(detached.id) as command:
                assert await command.start(detach=True) is None

    asyncio.run(scenario())


def test_the_oldest_commands_are_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remote_containers, "EXECS_KNOWN_MOST", 2)

    async def scenario() -> None:
        async with world() as made:
            async with made.remote.container("n1", "t1") as found:
                ids = [(await found.exec_create(ExecConfig(arguments=("x",)))).id for _ in range(3)]
            with pytest.raises(NotFound):
                async with made.remote.command(ids[0]):
                    pass
            async with made.remote.command(ids[2]) as command:
                assert command.record.id == ids[2]

    asyncio.run(scenario())


def test_who_goes_away_lets_go_of_the_process() -> None:
    async def scenario() -> None:
        async with world() as made:
            async with made.remote.container("n1", "t1") as found:
                stream = await found.attach(AttachOptions(stdin=True))
                # far more than fits on the way, and nobody reads
                for _ in range(3 * FRAMES_QUEUED_MOST):
                    made.engine.streams.streams[0].say(b"x")
                assert await stream.read() == Output(stream="stdout", data=b"x")
            await made.all_served()
            assert made.engine.streams.streams[0].is_closed
            assert made.engine.get("web.1.t1").state.status == "running"

    asyncio.run(scenario())


def test_a_node_that_goes_away_ends_the_stream() -> None:
    async def scenario() -> None:
        async with world() as made, made.remote.container("n1", "t1") as found:
            stream = await found.attach(AttachOptions(stdin=True))
            made.node_frames[0].close()
            with pytest.raises(LinkClosed, match="node h1 answers no more"):
                await stream.read()
            await stream.write(b"dropped")

    asyncio.run(scenario())


def test_input_waits_for_a_process_that_takes_none() -> None:
    async def scenario() -> None:
        ours, theirs = make_frame_pair(100)
        manager, node = RemoteStream(ManagerEnd(ours, "h1")), NodeEnd(theirs)
        for number in range(INPUT_FRAMES_MOST):
            await manager.write(b"%d" % number)
        waiting = asyncio.create_task(manager.write(b"more"))
        for number in range(INPUT_FRAMES_MOST):
            assert await node.receive() == Input(data=b"%d" % number)
        await asyncio.sleep(0)
        assert not waiting.done()
        await node.send(InputTaken())
        await node.send(Said(stream="stdout", data=b"said"))
        assert await manager.read() == Output(stream="stdout", data=b"said")
        await waiting
        assert await node.receive() == Input(data=b"more")
        await manager.close_input()
        assert await node.receive() == InputEnded()
        await node.send(Done())
        assert await manager.read() is None

    asyncio.run(scenario())


def test_a_manager_that_sends_more_than_it_may_is_cut_off() -> None:
    async def scenario() -> None:
        async with world() as made:
            end = await made.open("n1")
            with pytest.raises(LinkClosed):
                while True:
                    await end.send(Input(data=b"x"))
                    await end.send(StartExec(exec_id="none"))

    asyncio.run(scenario())


def test_a_node_that_is_silent_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relay, "SILENCE_SECONDS", 0.01)

    async def scenario() -> None:
        ours, theirs = make_frame_pair()
        with pytest.raises(LinkSilent, match=r"node h1 has not answered for 0\.01 s"):
            await ManagerEnd(ours, "h1").receive()
        await NodeEnd(theirs).send(StillThere())
        await NodeEnd(theirs).send(Done())
        assert await ManagerEnd(ours, "h1").receive() == Done()

    asyncio.run(scenario())


def test_a_call_of_a_later_version_is_refused_and_the_stream_goes_on() -> None:
    async def scenario() -> None:
        async with world() as made:
            ours, theirs = make_frame_pair()
            serving = asyncio.create_task(made.server.serve(theirs))
            end = ManagerEnd(ours, "h1")
            await ours.send(msgspec.msgpack.encode({"type": "of-tomorrow"}))
            with pytest.raises(NotBuilt, match="does not know what it is asked"):
                await end.receive()
            await ours.send(msgspec.msgpack.encode({"type": "inspect-container", "task_id": "t1", "more": 1}))
            assert type(await end.receive()).__name__ == "ContainerFound"
            end.close()
            await serving

    asyncio.run(scenario())


def test_what_was_said_before_the_end_is_passed_on() -> None:
    async def scenario() -> None:
        follower, there = make_frame_pair()
        here, node = make_frame_pair()
        for number in range(100):
            await node.send(b"%d" % number)
        # nobody takes what the follower sends: the node has said its last
        await follower.send(b"typed")
        node.close()
        passing = asyncio.create_task(splice(there, here))
        assert [await follower.receive() for _ in range(100)] == [b"%d" % n for n in range(100)]
        await passing
        # and the other way: the client goes, both end
        follower, there = make_frame_pair()
        here, node = make_frame_pair()
        passing = asyncio.create_task(splice(there, here))
        await follower.send(b"last words")
        assert await node.receive() == b"last words"
        follower.close()
        await passing

    asyncio.run(scenario())
