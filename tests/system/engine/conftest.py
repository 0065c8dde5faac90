from __future__ import annotations

import asyncio
import io
import os
import shutil
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from shoal.engine.engine import RuncEngine

PROGRAMS = (
    *("sh", "echo", "sleep", "cat", "id", "env", "ls", "mount", "seq", "date", "head", "yes", "true", "false"),
    *("grep", "touch", "stat", "printf", "dd", "tail", "test", "kill"),
)
PASSWD = b"root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1000::/home/bob:/bin/sh\n"
GROUP = b"root:x:0:\nbob:x:1000:\nextra:x:1001:bob\n"


def make_rootfs() -> bytes:
    """A tar of a root filesystem of busybox alone."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        archive.add(shutil.which("busybox") or "busybox", "bin/busybox")
        for name in PROGRAMS:
            link = tarfile.TarInfo(f"bin/{name}")
            link.type, link.linkname = tarfile.SYMTYPE, "busybox"
            archive.addfile(link)
        for name, content in (("etc/passwd", PASSWD), ("etc/group", GROUP), ("data/seed", b"from the image\n")):
            member = tarfile.TarInfo(name)
            member.size, member.mode = len(content), 0o644
            archive.addfile(member, io.BytesIO(content))
        temporary = tarfile.TarInfo("tmp")
        temporary.type, temporary.mode = tarfile.DIRTYPE, 0o1777
        archive.addfile(temporary)
    return buffer.getvalue()


async def stream(content: bytes) -> AsyncIterator[bytes]:
    yield content


class Ground:
    """Directories of one test, and the engines made on them."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.daemon_id = directory.name.replace("_", "")

    def engine(self) -> RuncEngine:
        root = self.directory
        return RuncEngine(root / "data", root / "exec", root / "images", self.daemon_id)

    async def ready(self) -> RuncEngine:
        engine = self.engine()
        await engine.start_up()
        if not engine.images.list():
            await engine.images.import_root(stream(make_rootfs()), "busybox:test")
        return engine

    def run(self, work: Callable[[RuncEngine], Awaitable[None]]) -> None:
        """Run a test with an engine; remove all containers and stop the keeper at the end."""

        async def whole() -> None:
            engine = await self.ready()
            try:
                await asyncio.wait_for(work(engine), 90)
            finally:
                for container in engine.list():
                    await engine.remove(container.id, force=True)
                await engine.close(stop_keeper=True)

        asyncio.run(whole())

    def leftovers(self) -> list[str]:
        mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(self.directory) in line]
        cgroups = [str(path) for path in Path("/sys/fs/cgroup").glob(f"*/*{self.daemon_id}*")]
        processes = []
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                text = path.read_bytes().replace(b"\0", b" ").decode()
            except OSError:
                continue
            if str(self.directory) in text and "pytest" not in text:
                processes.append(f"{path.parent.name}: {text}")
        return mounts + cgroups + processes


@pytest.fixture
def ground() -> Iterator[Ground]:
    directory = Path(tempfile.mkdtemp(prefix="shoal-e-"))
    ground = Ground(directory)
    yield ground
    left = ground.leftovers()
    if left:
        asyncio.run(_clean(ground))
    shutil.rmtree(directory, ignore_errors=True)
    assert left == []


async def _clean(ground: Ground) -> None:
    """After a failed test: nothing may stay behind for the next."""
    engine = ground.engine()
    await engine.start_up()
    for container in engine.list():
        await engine.remove(container.id, force=True)
    await engine.close(stop_keeper=True)


async def until(condition: Callable[[], bool], seconds: float = 20.0) -> None:
    """Wait until `condition` holds; fail after `seconds`."""
    async with asyncio.timeout(seconds):
        while not condition():  # noqa: ASYNC110 - what is waited for happens outside of this loop
            await asyncio.sleep(0.01)


def kill_hard(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def run_program(*arguments: str) -> str:
    return subprocess.run(arguments, check=True, capture_output=True, text=True).stdout
