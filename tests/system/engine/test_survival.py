"""What outlives a killed keeper and a killed daemon: containers, their output, their records."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from shoal.engine.engine import RuncEngine
from shoal.engine.keeper.processes import start_time
from shoal.engine.rootfs import MOUNTPOINTS
from shoal.errors import Conflict
from shoal.model.base import replace
from shoal.model.container import ContainerConfig, LogOptions
from shoal.model.container_spec import Mount
from tests.system.engine.conftest import Ground, until

pytestmark = pytest.mark.root

# counts until it is told to stop, so that it runs however long the kills take
COUNT = "i=0; until test -e /gate/enough; do i=$((i+1)); echo $i; test $((i % 100)) != 0 || sleep 0.03; done"


async def numbers_of(engine: RuncEngine, name: str) -> list[int]:
    return [int(line.data) async for line in engine.logs(name, LogOptions())]


def counting(name: str, gate: Path) -> ContainerConfig:
    gate.mkdir()
    mount = Mount(type="bind", source=str(gate), target="/gate")
    return ContainerConfig(name=name, image="busybox:test", command=("sh", "-c", COUNT), mounts=(mount,))


def test_a_killed_keeper_loses_no_line(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        gate = ground.directory / "gate"
        await engine.create(counting("count", gate))
        before = await engine.start("count")
        kills = 0
        while kills < 3:
            seen = len(await numbers_of(engine, "count"))
            await until_lines(engine, "count", seen + 200)
            keeper = engine.keeper_pid
            os.kill(keeper, signal.SIGKILL)
            await until(lambda keeper=keeper: engine.keeper_pid not in {0, keeper})
            kills += 1
        after = engine.get("count")
        assert after.state.pid == before.state.pid
        (gate / "enough").touch()
        status = await engine.wait("count")
        assert status.code is None  # its parent was killed: nobody can know
        numbers = await numbers_of(engine, "count")
        assert len(numbers) >= 600
        assert numbers == list(range(1, len(numbers) + 1))

    ground.run(work)


async def until_lines(engine: RuncEngine, name: str, count: int) -> None:
    async with asyncio.timeout(20):
        while len(await numbers_of(engine, name)) < count:  # noqa: ASYNC110 - the file grows outside of this loop
            await asyncio.sleep(0.01)


def test_what_a_container_said_before_both_ended_is_kept(ground: Ground) -> None:
    gate = ground.directory / "gate"
    gate.mkdir()

    async def work(engine: RuncEngine) -> None:
        config = ContainerConfig(
            name="last",
            image="busybox:test",
            command=("sh", "-c", "until test -e /gate/open; do sleep 0.01; done; seq 1 500; printf end"),
            mounts=(Mount(type="bind", source=str(gate), target="/gate"),),
        )
        await engine.create(config)
        started = await engine.start("last")
        keeper = engine.keeper_pid
        os.kill(keeper, signal.SIGSTOP)  # it cannot read, and dies before it could
        (gate / "open").touch()
        await until(lambda: not alive(started.state.pid))
        os.kill(keeper, signal.SIGKILL)
        assert (await engine.wait("last")).code is None
        lines = [line.data async for line in engine.logs("last", LogOptions())]
        assert lines == [b"%d\n" % number for number in range(1, 501)] + [b"end"]

    ground.run(work)


def alive(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except OSError:
        return False
    return state != "Z"


def test_starts_under_way_when_the_keeper_is_killed(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        names = [f"start-{number}" for number in range(8)]
        for name in names:
            await engine.create(ContainerConfig(name=name, image="busybox:test", command=("sleep", "1000")))
        starts = [asyncio.create_task(engine.start(name)) for name in names]
        await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)
        os.kill(engine.keeper_pid, signal.SIGKILL)
        results = await asyncio.gather(*starts, return_exceptions=True)
        for name, result in zip(names, results, strict=True):
            if isinstance(result, BaseException):
                assert "keeper was killed while the container was starting" in str(result)
                assert engine.get(name).state.status == "created"
            else:
                assert alive(result.state.pid)
        assert any(not isinstance(result, BaseException) for result in results)

    ground.run(work)


DAEMON = """
import asyncio, sys
from pathlib import Path
from shoal.engine.engine import RuncEngine
from shoal.model.container import ContainerConfig
async def main():
    root = Path(sys.argv[1])
    engine = RuncEngine(root / "data", root / "exec", root / "images", sys.argv[2])
    await engine.start_up()
    for name, script in (("count", sys.argv[3]), ("quick", "echo quick; exit 9")):
        await engine.create(ContainerConfig(name=name, image="busybox:test", command=("sh", "-c", script)))
    print((await engine.start("count")).state.pid, flush=True)
    await engine.start("quick")
    await engine.create(ContainerConfig(name="waiting", image="busybox:test", command=("true",)))
    (engine._layout.containers / ("0" * 64)).mkdir()
    print("ready", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


def test_a_killed_daemon_takes_its_containers_up_again(ground: Ground) -> None:
    async def prepare() -> None:
        engine = await ground.ready()
        await engine.close(stop_keeper=True)

    asyncio.run(prepare())
    arguments = [sys.executable, "-c", DAEMON, str(ground.directory), ground.daemon_id, COUNT]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        lines: list[str] = []
        while "ready" not in lines:
            line = daemon.stdout.readline()
            assert line, "the daemon ended"
            lines.append(line.strip())
        pid = int(next(line for line in lines if line.isdigit()))
        started = start_time(pid)
        daemon.kill()

    async def work(engine: RuncEngine) -> None:
        assert engine.get("count").state.pid == pid
        assert start_time(pid) == started
        assert (await engine.wait("quick")).code == 9
        assert (await engine.wait("count")).code == 5
        assert await numbers_of(engine, "count") == list(range(1, 3001))
        assert engine.get("waiting").state.status == "created"
        assert not (ground.directory / "data/containers" / ("0" * 64)).exists()
        config = replace(engine.get("waiting").config, name="again")
        await engine.create(config)
        await engine.start("again")
        assert (await engine.wait("again")).code == 0

    ground.run(work)


STARTING_DAEMON = """
import asyncio, sys
from pathlib import Path
from shoal.engine.engine import RuncEngine
from shoal.model.container import ContainerConfig
from shoal.model.container_spec import Mount
SCRIPT = "echo started >> /seen/$NAME; test $((${NAME} % 2)) = 0 || exit 7; exec sleep 1000"
async def main():
    root = Path(sys.argv[1])
    engine = RuncEngine(root / "data", root / "exec", root / "images", sys.argv[2])
    await engine.start_up()
    for number in range(24):
        config = ContainerConfig(name=f"c{number}", image="busybox:test", command=("sh", "-c", SCRIPT),
                                 env=(f"NAME={number}",),
                                 mounts=(Mount(type="bind", source=str(root / "seen"), target="/seen"),))
        await engine.create(config)
    starts = [asyncio.create_task(engine.start(f"c{number}")) for number in range(24)]
    await asyncio.wait(starts, return_when=asyncio.FIRST_COMPLETED)
    print("ready", flush=True)
    await asyncio.sleep(1000)
asyncio.run(main())
"""


@pytest.mark.parametrize("pause_seconds", [0.0, 0.1, 0.2])
def test_a_start_that_a_killed_daemon_asked_for_is_made_once(ground: Ground, pause_seconds: float) -> None:
    seen = ground.directory / "seen"
    seen.mkdir()

    async def prepare() -> None:
        engine = await ground.ready()
        await engine.close(stop_keeper=True)

    asyncio.run(prepare())
    arguments = [sys.executable, "-c", STARTING_DAEMON, str(ground.directory), ground.daemon_id]
    with subprocess.Popen(arguments, stdout=subprocess.PIPE, text=True) as daemon:
        assert daemon.stdout is not None
        while (line := daemon.stdout.readline()) != "ready\n":
            assert line, "the daemon ended"
        time.sleep(pause_seconds)
        daemon.kill()

    async def work(engine: RuncEngine) -> None:
        for number in range(24):
            if engine.get(f"c{number}").state.status == "created":
                await engine.start(f"c{number}")
        for number in range(1, 24, 2):
            assert (await engine.wait(f"c{number}")).code == 7
        for number in range(0, 24, 2):
            await until(lambda number=number: alive(engine.get(f"c{number}").state.pid))
            assert engine.get(f"c{number}").state.started_at_ns > 0
        assert {path.name: path.read_text() for path in seen.iterdir()} == {str(n): "started\n" for n in range(24)}

    ground.run(work)


def test_a_cancelled_start_is_done_or_not_but_never_half(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        await engine.create(ContainerConfig(name="cut", image="busybox:test", command=("sleep", "1000")))
        start = asyncio.create_task(engine.start("cut"))
        await asyncio.sleep(0)
        start.cancel()
        with pytest.raises(asyncio.CancelledError):
            await start
        await until(lambda: engine.get("cut").state.status == "running")
        assert alive(engine.get("cut").state.pid)

    ground.run(work)


def test_two_daemons_share_an_image_root(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        root = ground.directory
        other = RuncEngine(root / "data2", root / "exec2", root / "images", f"{ground.daemon_id}b")
        await other.start_up()
        try:
            assert other.images.list() == engine.images.list()
            await other.create(ContainerConfig(name="same", image="busybox:test", command=("true",)))
            with pytest.raises(Conflict, match="another daemon that shares this image root"):
                await engine.images.remove("busybox:test")
            await engine.create(ContainerConfig(name="same", image="busybox:test", command=("true",)))
            for one in (engine, other):
                await one.start("same")
                assert (await one.wait("same")).code == 0
            await other.remove("same")
            await engine.remove("same")
            await engine.images.remove("busybox:test")
            assert other.images.list() == ()
            assert [path.name for path in engine.local_images.content.layers.iterdir()] == [MOUNTPOINTS]
        finally:
            await other.close(stop_keeper=True)

    ground.run(work)
