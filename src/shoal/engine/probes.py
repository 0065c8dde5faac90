"""Short commands in containers, run over and over: health checks. As cheap as they can be.

`runc exec` costs some 40 ms of a processor: a thousand containers that are checked every 30 s would eat more than a
core. So each has one shell that waits in it (a *prober*, confined as every exec is) and starts the command on demand:
1 to 2 ms. Where there is no /bin/sh, and where it does not start, each probe is an exec of its own. A probe that takes
too long is killed, with its prober and all it has started; the next one gets another. Probers end with this daemon.
Knows nothing of what results mean.
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
from shoal.engine.probe_pipes import ProbePipes
from shoal.engine.rootfs import Layout
from shoal.engine.start_errors import exec_error_text
from shoal.errors import ShoalError, Unavailable
from shoal.lib.files import remove_tree
from shoal.lib.ids import Ids
from shoal.model.base import Struct
from shoal.model.container import Container
from shoal.model.streams import ExecConfig

# how many are being started at a time: more would only wait in the keeper, before containers that start
STARTS_AT_ONCE_MOST = 2 * (os.cpu_count() or 1)
PREFIX = "probe-"
SHELL = "/bin/sh"
# a line for each probe; the command's exit code on stdout, what it says on stderr
PROBER_SCRIPT = 'while read -r _; do ("$@") >&2 </dev/null; echo $?; done'


class ProbeRefused(ShoalError):
    """The command could not be run in the container; the text is runc's."""


class ProbeResult(Struct):
    """How a probe ended: `code` None when it took too long."""

    code: int | None
    output: bytes = b""


class _Process:
    """A process that runs in a container: a prober, or one probe."""

    def __init__(self, pipes: ProbePipes) -> None:
        self.pipes = pipes
        self.pid = 0
        self.born = 0
        self.ended: asyncio.Future[int] = asyncio.get_running_loop().create_future()

    def kill(self) -> None:
        """Kill it and its group."""
        if not self.ended.done() and self.born and start_time(self.pid) == self.born:
            for send in (os.killpg, os.kill):
                with contextlib.suppress(ProcessLookupError):
                    send(self.pid, signal.SIGKILL)


class Probes:
    """Runs probes. `layout`: where things lie; `keeper`: who is their parent; `ids`: names them."""

    def __init__(self, layout: Layout, keeper: KeeperClient, ids: Ids) -> None:
        self._layout = layout
        self._keeper = keeper
        self._ids = ids
        self._processes: dict[str, _Process] = {}
        self._probers: dict[str, _Process] = {}
        self._without_prober: set[str] = set()
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
        remove_tree(self._directory / container.id)
        prober = (SHELL, "-c", PROBER_SCRIPT, "health", *arguments)
        for name, words in (("prober", prober), ("single", arguments)):
            directory = self._directory / container.id / name
            directory.mkdir(mode=0o700, parents=True)
            process = make_process(spec["process"], ExecConfig(arguments=words), None)
            (directory / "process.json").write_text(json.dumps(process))

    def forget(self, container_id: str) -> None:
        """Take away what `prepare` made. Blocking."""
        remove_tree(self._directory / container_id)

    def let_go(self, container_id: str) -> None:
        """End the prober of a container that is no longer probed."""
        self._without_prober.discard(container_id)
        prober = self._probers.pop(container_id, None)
        if prober is not None:
            prober.kill()
            prober.pipes.close()

    async def run(self, container: Container, timeout_seconds: float) -> ProbeResult:
        """Run the probe of a container.

        Raises:
            ProbeRefused: it could not be started.
            Unavailable: the keeper died meanwhile: nobody knows how it ended.
        """
        prober = await self._prober(container)
        if prober is None:
            return await self._run_single(container, timeout_seconds)
        prober.pipes.ask()
        answered = asyncio.ensure_future(prober.pipes.answer())
        try:
            async with asyncio.timeout(timeout_seconds):
                await asyncio.wait({answered, prober.ended}, return_when=asyncio.FIRST_COMPLETED)
            code = answered.result() if answered.done() else prober.ended.result()
            return ProbeResult(code=code, output=prober.pipes.take())
        except TimeoutError:
            prober.kill()
            await asyncio.shield(prober.ended)
            return ProbeResult(code=None, output=prober.pipes.take())
        finally:
            if not answered.done():
                # killed, ended, or given up in the middle of it: another is needed
                self.let_go(container.id)
            answered.cancel()

    async def _prober(self, container: Container) -> _Process | None:
        """Return the prober of a container, started if need be; None if it can have none."""
        prober = self._probers.get(container.id)
        if prober is not None and not prober.ended.done():
            return prober
        self._probers.pop(container.id, None)
        if prober is not None:
            prober.pipes.close()
        if container.id in self._without_prober:
            return None
        try:
            self._probers[container.id] = prober = await self._start(container, "prober")
        except ProbeRefused:
            self._without_prober.add(container.id)
            return None
        return prober

    async def _run_single(self, container: Container, timeout_seconds: float) -> ProbeResult:
        process = await self._start(container, "single")
        try:
            async with asyncio.timeout(timeout_seconds):
                code = await asyncio.shield(process.ended)
            return ProbeResult(code=code, output=process.pipes.take())
        except TimeoutError:
            process.kill()
            # the next one must not pile up on it
            await asyncio.shield(process.ended)
            return ProbeResult(code=None, output=process.pipes.take())
        finally:
            process.kill()
            process.pipes.close()

    async def _start(self, container: Container, name: str) -> _Process:
        directory = self._directory / container.id / name
        process_id = f"{PREFIX}{self._ids.new_hex()}"
        process = self._processes[process_id] = _Process(ProbePipes(directory, takes_input=name == "prober"))
        process.ended.add_done_callback(lambda _: self._processes.pop(process_id, None))
        try:
            async with self._starts:
                answer = await self._keeper.request(
                    "exec",
                    repeat=False,
                    id=process_id,
                    container=container.id,
                    directory=str(directory),
                    runc_root=str(self._layout.runc_root),
                    **dict.fromkeys(process.pipes.names, True),
                )
            if "error" in answer:
                raise ProbeRefused(exec_error_text(str(answer["error"])))
        except BaseException:
            process.pipes.close()
            process.ended.cancel()
            raise
        process.pid = int(answer["pid"])
        process.born = start_time(process.pid)
        return process

    def on_exit(self, process_id: str, code: int) -> bool:
        """Take the end of a command from the keeper; False if it is none of these."""
        process = self._processes.get(process_id)
        if process is not None and not process.ended.done():
            process.ended.set_result(code)
        return process_id.startswith(PREFIX)

    def on_hello(self, known: list[str]) -> None:
        """Compare with what a new keeper has: how the others ended nobody knows; probers are started anew."""
        for process_id, process in list(self._processes.items()):
            if process_id not in known and not process.ended.done():
                process.kill()
                process.ended.set_exception(Unavailable("the keeper died while it was at this"))
                # whoever waits may have been told by the request itself
                process.ended.exception()
