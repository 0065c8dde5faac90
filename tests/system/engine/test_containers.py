from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from shoal.engine.engine import RuncEngine
from shoal.errors import Conflict, InvalidArgument, NameConflict, NotFound
from shoal.model.container import Container, ContainerConfig, FileInContainer, LogOptions
from shoal.model.container_spec import BindOptions, Mount, TmpfsOptions, Ulimit
from tests.system.engine.conftest import Ground, run_program, until

pytestmark = pytest.mark.root


async def start(engine: RuncEngine, *command: str, name: str = "test", **changes: object) -> Container:
    await engine.create(ContainerConfig(name=name, image="busybox:test", command=command, **changes))
    return await engine.start(name)


async def output(engine: RuncEngine, *command: str, name: str = "test", **changes: object) -> str:
    await start(engine, *command, name=name, **changes)
    await engine.wait(name)
    lines = [line.data async for line in engine.logs(name, LogOptions(follow=True))]
    return b"".join(lines).decode()


def test_life_of_a_container(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        script = "trap 'exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.02; done"
        started = await start(engine, "sh", "-c", script)
        assert started.state.pid > 0
        heard = engine.logs("test", LogOptions(follow=True))
        assert {(await anext(heard)).data, (await anext(heard)).data} == {b"out\n", b"err\n"}
        await engine.kill("test", "TERM")
        status = await engine.wait("test")
        assert status.code == 3
        assert engine.get(started.id[:10]).state.status == "exited"
        lines = [(line.stream, line.data) async for line in engine.logs("/test", LogOptions())]
        assert sorted(lines) == [("stderr", b"err\n"), ("stdout", b"out\n")]
        await engine.remove("test")
        with pytest.raises(NotFound, match="No such container: test"):
            engine.get("test")

    ground.run(work)


def test_refusals_and_failed_starts(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        with pytest.raises(NotFound, match="No such image: nothing:latest"):
            await engine.create(ContainerConfig(name="test", image="nothing"))
        with pytest.raises(InvalidArgument, match=r'exec: "nope": executable file not found in \$PATH: unknown'):
            await start(engine, "nope")
        assert engine.get("test").state.exit_code == 127
        assert (await engine.wait("test")).code == 127
        with pytest.raises(InvalidArgument, match="permission denied"):
            await start(engine, "/etc/passwd", name="denied")
        assert engine.get("denied").state.exit_code == 126
        with pytest.raises(InvalidArgument, match="unable to find user eve"):
            await start(engine, "true", name="eve", user="eve")
        with pytest.raises(NameConflict, match='container name "/test" is already in use'):
            await engine.create(ContainerConfig(name="test", image="busybox:test", command=("true",)))
        with pytest.raises(InvalidArgument, match="bind source path does not exist"):
            mounts = (Mount(type="bind", source="/does/not/exist", target="/x"),)
            await engine.create(ContainerConfig(name="bind", image="busybox:test", command=("true",), mounts=mounts))
        with pytest.raises(NotFound):
            engine.get("bind")

    ground.run(work)


def test_stop_and_kill(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        script = "trap 'exit 7' USR1; echo ready; while :; do sleep 0.05; done"
        await start(engine, "sh", "-c", script, stop_signal="SIGUSR1")
        with pytest.raises(Conflict, match="container is running"):
            await engine.remove("test")
        await _line(engine, "test", b"ready\n")
        await engine.stop("test")
        assert (await engine.wait("test")).code == 7
        # the first process of a namespace ignores TERM, once it is no longer runc's
        await start(engine, "sh", "-c", "echo ready; exec sleep 1000", name="stubborn")
        await _line(engine, "stubborn", b"ready\n")
        await engine.stop("stubborn", timeout_seconds=0.2)
        assert (await engine.wait("stubborn")).code == 137
        with pytest.raises(Conflict, match="is not running"):
            await engine.kill("stubborn")
        again = await engine.start("stubborn")
        assert again.state.status == "running"
        await engine.remove("stubborn", force=True)

    ground.run(work)


async def _line(engine: RuncEngine, name: str, wanted: bytes) -> None:
    async with asyncio.timeout(20):
        async for line in engine.logs(name, LogOptions(follow=True)):
            if line.data == wanted:
                return


def test_what_is_inside(ground: Ground) -> None:
    bound = ground.directory / "bound"
    bound.mkdir()
    (bound / "hello").write_text("bound\n")

    async def work(engine: RuncEngine) -> None:
        files = (FileInContainer(path="/run/secrets/s", content=b"secret\n", uid=1000, gid=1000, mode=0o400),)
        mounts = (
            Mount(type="bind", source=str(bound), target="/bound", read_only=True, bind_options=BindOptions()),
            Mount(type="tmpfs", target="/scratch", tmpfs_options=TmpfsOptions(size_bytes=1 << 20)),
            Mount(type="volume", source="kept", target="/data"),
        )
        script = (
            "id; cat /run/secrets/s /bound/hello /data/seed /etc/hostname; grep me /etc/hosts; cat /etc/resolv.conf; "
            "echo $HOSTNAME $A; touch /bound/x /scratch/y; ulimit -n; echo $PWD"
        )
        text = await output(
            engine,
            "sh",
            "-c",
            script,
            files=files,
            mounts=mounts,
            user="bob",
            groups=("1234",),
            env=("A=b",),
            hostname="me",
            working_dir="/made/for/it",
            addresses=("10.1.2.3/24",),
            dns_nameservers=("10.9.9.9",),
            dns_search=("example",),
            ulimits=(Ulimit(name="nofile", soft=100, hard=200),),
        )
        assert "uid=1000(bob) gid=1000(bob) groups=1000(bob),1001(extra),1234" in text
        for part in ("secret\n", "bound\n", "from the image\n", "me\n", "10.1.2.3\tme\n", "nameserver 10.9.9.9\n"):
            assert part in text
        for part in ("search example\n", "me b\n", "/bound/x: Read-only file system\n", "\n100\n", "/made/for/it\n"):
            assert part in text
        record = (ground.directory / "data/containers" / engine.get("test").id / "container.json").read_bytes()
        assert b"secret\n" not in record
        assert b"c2VjcmV0" not in record

    ground.run(work)


def test_limits_reach_the_kernel(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        eater = "x=$(yes | head -c 100000000); echo never"
        await start(engine, "sh", "-c", eater, memory_bytes=16 << 20)
        status = await engine.wait("test")
        assert status.oom_killed
        assert status.code != 0
        # runc's own threads count, too, until the command runs
        many = "for number in $(seq 60); do sleep 1 & done; echo"
        text = await output(engine, "sh", "-c", many, name="pids", pids_limit=30)
        assert "can't fork" in text

    ground.run(work)


def test_read_only_terminal_and_capabilities(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        text = await output(engine, "sh", "-c", "touch /x; test -t 1 && echo terminal", read_only=True, tty=True)
        assert "Read-only file system" in text
        assert "terminal\r\n" in text
        text = await output(
            engine,
            "sh",
            "-c",
            "mount -t tmpfs x /tmp || echo refused; grep -e CapEff -e NoNew -e Seccomp: /proc/self/status",
            name="caps",
        )
        assert "refused" in text
        assert "00000000a80425fb" in text
        assert "Seccomp:\t2" in text

    ground.run(work)


def test_logs_tail_follow_and_rotation(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        options = {"max-size": "20k", "max-file": "3"}
        gate = ground.directory / "gate"
        gate.mkdir()
        mounts = (Mount(type="bind", source=str(gate), target="/gate"),)
        script = "seq 1 50; until test -e /gate/open; do sleep 0.01; done; seq 51 2000"
        await start(engine, "sh", "-c", script, log_options=options, mounts=mounts)
        numbers: list[int] = []

        async def follow() -> None:
            async for line in engine.logs("test", LogOptions(follow=True)):
                numbers.append(int(line.data))  # noqa: PERF401 - watched as it grows

        task = asyncio.create_task(follow())
        await until(lambda: len(numbers) == 50)
        (gate / "open").touch()
        await asyncio.wait_for(task, 20)
        assert numbers[:50] == list(range(1, 51))
        assert numbers == sorted(set(numbers))
        assert numbers[-1] == 2000
        tail = [int(line.data) async for line in engine.logs("test", LogOptions(tail=3))]
        assert tail == [1998, 1999, 2000]
        names = sorted(
            path.name for path in (ground.directory / "data/containers" / engine.get("test").id).glob("*.log*")
        )
        assert len(names) == 3
        with pytest.raises(InvalidArgument, match="no log driver named 'moon'"):
            await start(engine, "true", name="moon", log_driver="moon")

    ground.run(work)


def test_many_at_once(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        async def one(number: int) -> None:
            text = await output(engine, "echo", str(number), name=f"many-{number}")
            assert text == f"{number}\n"

        await asyncio.gather(*(one(number) for number in range(20)))

    ground.run(work)


def test_a_network_namespace_that_exists_is_joined(ground: Ground) -> None:
    name = f"{ground.daemon_id}n"
    run_program("ip", "netns", "add", name)
    try:

        async def work(engine: RuncEngine) -> None:
            inode = Path(f"/run/netns/{name}").stat().st_ino
            text = await output(engine, "ls", "-l", "/proc/self/ns/net", network_namespace=f"/run/netns/{name}")
            assert f"net:[{inode}]" in text
            text = await output(engine, "ls", "-l", "/proc/self/ns/net", name="own")
            assert f"net:[{inode}]" not in text
            assert f"net:[{Path('/proc/self/ns/net').stat().st_ino}]" not in text

        ground.run(work)
    finally:
        run_program("ip", "netns", "del", name)


def test_a_container_that_is_removed_while_it_starts_leaves_nothing(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        for turns in (0, 1, 3, 10, 30):
            container = await engine.create(ContainerConfig(name="test", image="busybox:test", command=("sleep", "99")))
            starting = asyncio.create_task(engine.start(container.id))
            for _ in range(turns):
                await asyncio.sleep(0)
            await engine.remove(container.id, force=True)
            await asyncio.gather(starting, return_exceptions=True)
            left = list(Path("/sys/fs/cgroup").glob(f"*/*{ground.daemon_id}*/{container.id}"))
            assert left == [], f"removed {turns} turns after its start began"

    ground.run(work)
