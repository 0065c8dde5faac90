"""Execs and attached clients of real containers, below HTTP: what survives which death."""

from __future__ import annotations

import asyncio
import os
from pathlib import Path

import pytest

from shoal.engine.engine import RuncEngine
from shoal.engine.protocol import ContainerStream
from shoal.errors import Conflict, Unavailable
from shoal.model.container import ContainerConfig
from shoal.model.streams import AttachOptions, ExecConfig
from tests.system.engine.conftest import Ground, kill_hard, run_program, until

pytestmark = pytest.mark.root

SLEEPER = ContainerConfig(name="sleeper", image="busybox:test", command=("sleep", "999"), stop_timeout_seconds=0)
ALL = {"attach_stdin": True, "attach_stdout": True, "attach_stderr": True}


async def read_all(stream: ContainerStream) -> dict[str, bytes]:
    said = {"stdout": b"", "stderr": b""}
    async with asyncio.timeout(20):
        while (piece := await stream.read()) is not None:
            said[piece.stream] += piece.data
    return said


def shell(script: str, **more: bool) -> ExecConfig:
    return ExecConfig(arguments=("sh", "-c", script), **more)


async def started(engine: RuncEngine, config: ContainerConfig = SLEEPER) -> str:
    container = await engine.create(config)
    await engine.start(container.id)
    return container.id


def has_unread(path: Path) -> bool:
    """Tell whether something was sent to a program that listens at a path, and it has not read it."""
    return any(int(line.split()[2]) for line in run_program("ss", "-xH", "src", str(path)).splitlines())


def test_many_execs_at_once_each_with_its_own_streams(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        container = await started(engine)
        before = len(list(Path("/proc/self/fd").iterdir()))

        async def one(number: int) -> None:
            record = engine.exec_create(container, shell(f"cat; echo {number} >&2; exit {number}", **ALL))
            stream = await engine.exec_start(record.id)
            assert stream is not None
            await stream.write(b"in %d\n" % number)
            await stream.close_input()
            assert await read_all(stream) == {"stdout": b"in %d\n" % number, "stderr": b"%d\n" % number}
            await stream.close()
            assert engine.exec_inspect(record.id).exit_code == number

        await asyncio.gather(*(one(number) for number in range(12)))
        await until(lambda: len(list(Path("/proc/self/fd").iterdir())) <= before)
        assert list((ground.directory / "exec" / "execs").iterdir()) == []
        # the last fails, and leaves nothing either
        with pytest.raises(Conflict, match="already run"):
            failed = engine.exec_create(container, ExecConfig(arguments=("true",)))
            await engine.exec_start(failed.id, detach=True)
            await engine.exec_start(failed.id, detach=True)

    ground.run(work)


def test_a_child_that_holds_the_output_open_is_not_waited_for(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        container = await started(engine)
        record = engine.exec_create(container, shell("sleep 500 & echo done", **ALL))
        stream = await engine.exec_start(record.id)
        assert stream is not None
        assert (await read_all(stream))["stdout"] == b"done\n"
        assert engine.exec_inspect(record.id).exit_code == 0

    ground.run(work)


def test_the_engine_starts_anew_during_execs(ground: Ground) -> None:
    async def first() -> tuple[str, int, int]:
        engine = await ground.ready()
        container = await started(engine)
        detached = engine.exec_create(container, shell("sleep 1234"))
        attached = engine.exec_create(container, shell("cat", **ALL))
        await engine.exec_start(detached.id, detach=True)
        await engine.exec_start(attached.id)
        pids = engine.exec_inspect(detached.id).pid, engine.exec_inspect(attached.id).pid
        await engine.close()
        return container, *pids

    async def second(engine: RuncEngine) -> None:
        assert engine.get(container).state.status == "running"
        # the stream of the attached one has ended with its engine, and with it `cat`; the other goes on
        await until(lambda: not Path(f"/proc/{attached}").exists())
        os.kill(detached, 0)
        record = engine.exec_create(container, shell("echo still here", **ALL))
        stream = await engine.exec_start(record.id)
        assert stream is not None
        assert (await read_all(stream))["stdout"] == b"still here\n"

    container, detached, attached = asyncio.run(first())
    ground.run(second)


def test_the_keeper_dies_during_an_exec(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        container = await started(engine)
        record = engine.exec_create(container, shell("read line; echo got $line", **ALL))
        stream = await engine.exec_start(record.id)
        attached = await engine.attach(container, AttachOptions())
        assert stream is not None
        old = engine.keeper_pid
        kill_hard(old)
        assert await attached.read() is None
        await attached.close()
        await until(lambda: engine.keeper_pid not in (0, old))
        assert engine.get(container).state.status == "running"
        # its streams are not the keeper's: it goes on, only its exit code is not known any more
        await stream.write(b"word\n")
        assert (await read_all(stream))["stdout"] == b"got word\n"
        assert engine.exec_inspect(record.id).exit_code == 255
        again = engine.exec_create(container, shell("exit 3"))
        await engine.exec_start(again.id, detach=True)
        await until(lambda: engine.exec_inspect(again.id).exit_code == 3)

    ground.run(work)


def test_the_container_ends_during_execs(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        container = await started(engine)
        record = engine.exec_create(container, shell("sleep 500", tty=True, **ALL))
        stream = await engine.exec_start(record.id, console_size=(10, 20))
        attached = await engine.attach(container, AttachOptions())
        assert stream is not None
        await engine.kill(container)
        await read_all(stream)
        assert await attached.read() is None
        await attached.close()
        assert engine.exec_inspect(record.id).exit_code == 137
        await engine.wait(container)
        with pytest.raises(Conflict, match="is not running"):
            engine.exec_create(container, shell("true"))
        assert (await engine.stats(container)).at_ns == 0
        with pytest.raises(Conflict, match="is not running"):
            await engine.top(container)

    ground.run(work)


def test_an_attached_client_that_does_not_read_holds_the_container_up_and_loses_nothing(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        config = ContainerConfig(name="chatty", image="busybox:test", command=("sh", "-c", "read x; seq 1 400000"),
                                 open_stdin=True)  # fmt: skip
        container = await started(engine, config)
        attached = await engine.attach(container, AttachOptions(stdin=True))
        await attached.write(b"go\n")
        log = Path(engine.get(container).log_path)
        await until(lambda: log.stat().st_size > 100_000)
        said = await read_all(attached)
        assert said["stdout"].split() == [b"%d" % number for number in range(1, 400_001)]
        await attached.close()
        await engine.wait(container)

    ground.run(work)


def test_a_paused_container_is_found_paused_and_can_be_stopped(ground: Ground) -> None:
    async def first() -> str:
        engine = await ground.ready()
        container = await started(engine)
        await engine.pause(container)
        await engine.close()
        return container

    async def second(engine: RuncEngine) -> None:
        assert engine.get(container).state.paused
        with pytest.raises(Conflict, match="is paused"):
            await engine.attach(container, AttachOptions())
        await engine.stop(container, 0)
        assert engine.get(container).state.exit_code == 137

    container = asyncio.run(first())
    ground.run(second)


def test_an_exec_under_way_when_the_keeper_dies_is_not_run_twice(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        container = await started(engine)
        record = engine.exec_create(container, shell("true"))
        old = engine.keeper_pid
        os.kill(old, 19)  # it does not answer
        start = asyncio.create_task(engine.exec_start(record.id, detach=True))
        await until(lambda: has_unread(ground.directory / "exec" / "keeper.sock"))
        kill_hard(old)
        with pytest.raises(Unavailable, match="the keeper died"):
            await start
        await until(lambda: engine.keeper_pid not in (0, old))
        assert engine.exec_inspect(record.id).exit_code == 126

    ground.run(work)
