"""What is done inside an engine's containers while they run: attach, sizes of terminals, usage, processes, execs.

The part of `RuncEngine` that changes no container; how execs are kept is `execs`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from shoal.engine.attachment import attach
from shoal.engine.execs import Execs, check_runs
from shoal.engine.host import Host
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.live import LiveContainers
from shoal.engine.process_table import pids_of, run_ps
from shoal.engine.protocol import ContainerStream
from shoal.engine.rootfs import Layout
from shoal.engine.usage import read_usage
from shoal.errors import Conflict, InvalidArgument
from shoal.lib.clock import Clock
from shoal.model.base import replace
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, ProcessTable

T = TypeVar("T")


class InsideContainers:
    """See the module; `RuncEngine` sets these and says how work is carried to its end."""

    host: Host
    _live: LiveContainers
    _layout: Layout
    _keeper: KeeperClient
    _clock: Clock
    _execs: Execs

    async def _to_the_end(self, work: Coroutine[Any, Any, T]) -> T:
        raise NotImplementedError

    async def attach(self, container: str, options: AttachOptions) -> ContainerStream:
        """Attach to a container; the stream ends with it.

        At once if it does not run; of a plain container that does not, it begins with its next start.
        """
        return await attach(self._layout, self._keeper, self._live.find(container).container, options)

    async def resize(self, container: str, height: int, width: int) -> None:
        """Give a container's terminal a size in characters. Raises Conflict if it does not run."""
        found = self._live.find(container).container
        check_runs(replace(found, state=replace(found.state, paused=False)))
        answer = await self._keeper.request("resize", id=found.id, height=height, width=width)
        if "error" in answer:
            raise InvalidArgument(f"invalid size of a terminal: {height} by {width}: {answer['error']}")

    async def stats(self, container: str) -> ContainerStats:
        """Return what a container uses now; `at_ns` 0 if it does not run."""
        found = self._live.find(container).container
        if found.state.status != "running":
            return ContainerStats()
        cgroup, now_ns = self._layout.cgroup(found.id), self._clock.now_ns()
        return await asyncio.to_thread(read_usage, self.host, cgroup, found.state.pid, now_ns)

    async def top(self, container: str, ps_arguments: str = "-ef") -> ProcessTable:
        """Return a container's processes as `ps` shows them. Raises Conflict (not running), ShoalError (no `ps`)."""
        found = self._live.find(container).container
        if found.state.status != "running":
            raise Conflict(f"container {found.id} is not running")
        pids = await asyncio.to_thread(pids_of, self.host, self._layout.cgroup(found.id))
        return await asyncio.to_thread(run_ps, ps_arguments, pids)

    def exec_create(self, container: str, config: ExecConfig) -> ExecRecord:
        """Prepare a command in a container. Raises Conflict if it does not run or is paused, InvalidArgument."""
        return self._execs.create(self._live.find(container).container, config)

    async def exec_start(
        self, exec_id: str, detach: bool = False, console_size: tuple[int, int] | None = None
    ) -> ContainerStream | None:
        """Start a command; None with `detach`. Raises NotFound, Conflict, InvalidArgument with runc's reason."""
        live = self._live.find(self._execs.get(exec_id).container_id)
        return await self._to_the_end(self._execs.start(live.container, exec_id, detach, console_size))

    async def exec_resize(self, exec_id: str, height: int, width: int) -> None:
        """Give a command's terminal a size in characters. Raises NotFound if there is none."""
        await self._execs.resize(exec_id, height, width)

    def exec_inspect(self, exec_id: str) -> ExecRecord:
        """Return a command. Raises NotFound (`No such exec instance: …`)."""
        return self._execs.get(exec_id)
