"""Short commands in containers whose output matters little: health checks. As cheap as the keeper can run them.

What a container's probes need on disk is made once a run, in the exec root, and used for all of them. A probe takes no
longer than it may: its process and what it has started are killed then. Knows nothing of what results mean.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from pathlib import Path

from shoal.engine.execs import make_process
from shoal.engine.keeper.processes import start_time
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.rootfs import Layout
from shoal.engine.start_errors import exec_error_text
from shoal.errors import ShoalError, Unavailable
from shoal.lib.files import remove_tree
from shoal.lib.ids import Ids
from shoal.model.base import Struct
from shoal.model.container import Container
from shoal.model.streams import ExecConfig

OUTPUT_BYTES_READ = 64 * 1024
OUTPUT_BYTES_KEPT = 8 * 1024
# how many are being started at a time: more would only wait in the keeper, before containers that start
STARTS_AT_ONCE_MOST = 2 * (os.cpu_count() or 1)
PREFIX = "probe-"


class ProbeRefused(ShoalError):
    """The command could not be run in the container; the text is runc's."""


class ProbeResult(Struct):
    """How a probe ended: `code` None when it took too long."""

    code: int | None
    output: bytes = b""


class Probes:
    """Runs probes. `layout`: where things lie; `keeper`: who is their parent; `ids`: names them."""

    def __init__(self, layout: Layout, keeper: KeeperClient, ids: Ids) -> None:
        self._layout = layout
        self._keeper = keeper
        self._ids = ids
        self._ends: dict[str, asyncio.Future[int]] = {}
        self._starts = asyncio.Semaphore(STARTS_AT_ONCE_MOST)

    @property
    def _directory(self) -> Path:
        return self._layout.exec_root / "probes"

    def start_up(self) -> None:
        """Take away what an earlier daemon left. Blocking."""
        remove_tree(self._directory)
        self._directory.mkdir(mode=0o700)

    def prepare(self, container: Container, arguments: tuple[str, ...]) -> None:
        """Make what the probes of a run need. Blocking."""
        spec = json.loads((self._layout.bundle(container.id) / "config.json").read_bytes())
        directory = self._directory / container.id
        remove_tree(directory)
        directory.mkdir(mode=0o700)
        process = make_process(spec["process"], ExecConfig(arguments=arguments), None)
        (directory / "process.json").write_text(json.dumps(process))
        os.mkfifo(directory / "stdout", 0o600)
        # one FIFO under two names: what is said on both comes in its order
        os.link(directory / "stdout", directory / "stderr")

    def forget(self, container_id: str) -> None:
        """Take away what `prepare` made. Blocking."""
        remove_tree(self._directory / container_id)

    async def run(self, container: Container, timeout_seconds: float) -> ProbeResult:
        """Run the probe of a container.

        Raises:
            ProbeRefused: it could not be started.
            Unavailable: the keeper died meanwhile: nobody knows how it ended.
        """
        directory = self._directory / container.id
        probe_id = f"{PREFIX}{self._ids.new_hex()}"
        ended = self._ends[probe_id] = asyncio.get_running_loop().create_future()
        output = _Output(directory / "stdout")
        try:
            async with self._starts:
                pid = await self._start(container, directory, probe_id)
            born = start_time(pid)
            try:
                async with asyncio.timeout(timeout_seconds):
                    code = await asyncio.shield(ended)
            except TimeoutError:
                _kill(pid, born, ended)
                # the next one must not pile up on it
                await asyncio.shield(ended)
                return ProbeResult(code=None, output=output.take())
            except asyncio.CancelledError:
                _kill(pid, born, ended)
                raise
            return ProbeResult(code=code, output=output.take())
        finally:
            output.close()
            del self._ends[probe_id]

    async def _start(self, container: Container, directory: Path, probe_id: str) -> int:
        answer = await self._keeper.request(
            "exec",
            repeat=False,
            id=probe_id,
            container=container.id,
            directory=str(directory),
            runc_root=str(self._layout.runc_root),
            stdout=True,
            stderr=True,
        )
        if "error" in answer:
            raise ProbeRefused(exec_error_text(str(answer["error"])))
        return int(answer["pid"])

    def on_exit(self, probe_id: str, code: int) -> bool:
        """Take the end of a command from the keeper; False if it is none of these."""
        ended = self._ends.get(probe_id)
        if ended is not None and not ended.done():
            ended.set_result(code)
        return probe_id.startswith(PREFIX)

    def on_hello(self, known: list[str]) -> None:
        """Compare with what a new keeper has: how the others ended nobody knows."""
        for probe_id, ended in self._ends.items():
            if probe_id not in known and not ended.done():
                ended.set_exception(Unavailable("the keeper died while it was at this"))
                # whoever started it may have been told by the request itself
                ended.exception()


def _kill(pid: int, born: int, ended: asyncio.Future[int]) -> None:
    """Kill a probe and its group."""
    if not ended.done() and born and start_time(pid) == born:
        for send in (os.killpg, os.kill):
            with contextlib.suppress(ProcessLookupError):
                send(pid, signal.SIGKILL)


class _Output:
    """What a probe says: read as it comes, so that it never waits for us; the beginning is kept."""

    def __init__(self, path: Path) -> None:
        self._kept = b""
        self._descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        # left by children of an earlier probe
        self._read()
        self._kept = b""
        # written as long as there is a writer; without one it is readable at once, at its end
        self._loop = asyncio.get_running_loop()
        self._writer = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        self._loop.add_reader(self._descriptor, self._read)

    def _read(self) -> None:
        with contextlib.suppress(BlockingIOError):
            data = os.read(self._descriptor, OUTPUT_BYTES_READ)
            self._kept += data[: OUTPUT_BYTES_KEPT - len(self._kept)]

    def take(self) -> bytes:
        """Return what was said up to now."""
        self._read()
        return self._kept

    def close(self) -> None:
        """Stop listening."""
        self._loop.remove_reader(self._descriptor)
        os.close(self._descriptor)
        os.close(self._writer)
