"""Which container a request means: one of this node or, on a manager, of any node (architecture.md 4.4)."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from aiohttp import web

from shoal.api.context import CONTEXT, ManagerView
from shoal.api.requests import QUORUM_PERIOD_SECONDS
from shoal.core.container import TASK_ID_LABEL
from shoal.engine.handles import ContainerHandle, ExecHandle, LocalContainer, LocalExec
from shoal.engine.protocol import Engine
from shoal.errors import NotFound, ShoalError
from shoal.manager.lookup import find_container
from shoal.store.view import View


@asynccontextmanager
async def found_container(request: web.Request) -> AsyncIterator[ContainerHandle]:
    """Hold the container that the path names for as long as it is needed.

    Raises:
        NotFound: `No such container: …`.
        InvalidArgument: the beginning of several ids.
        Unavailable: its node does not answer.
    """
    context = request.app[CONTEXT]
    reference = request.match_info["id"]
    try:
        local = _local_container(context.engine, reference)
    except NotFound:
        manager = context.manager()
        if manager is None:
            raise
    else:
        yield local
        return
    task = find_container(await _latest_view(manager), reference)
    if not task.node_id:
        raise NotFound(f"No such container: {reference}: its task was not given to a node yet")
    if task.node_id == context.node_id:
        if reference.endswith(f".{task.id}"):
            # what had the task's name here has another one now
            raise NotFound(f"No such container: {reference}")
        yield _local_container(context.engine, task.id)
        return
    async with manager.remote_containers.container(task.node_id, task.id) as remote:
        yield remote


def _local_container(engine: Engine, reference: str) -> LocalContainer:
    """Return a container of this node by its id or name, or by the id of its task. Raises NotFound."""
    try:
        return LocalContainer(engine, reference)
    except NotFound:
        for container in engine.list():
            if container.config.labels.get(TASK_ID_LABEL) == reference:
                return LocalContainer(engine, container.id)
        raise


async def _latest_view(manager: ManagerView) -> View:
    """Return what this manager knows: all that was acknowledged before now, if that can be told in a moment."""
    with contextlib.suppress(TimeoutError, ShoalError):
        async with asyncio.timeout(QUORUM_PERIOD_SECONDS):
            await manager.store.barrier()
    return manager.store.view


@asynccontextmanager
async def found_exec(request: web.Request) -> AsyncIterator[ExecHandle]:
    """Hold the command that the path names. Raises as `found_container`, with `No such exec instance: …`."""
    context = request.app[CONTEXT]
    exec_id = request.match_info["id"]
    try:
        local = LocalExec(context.engine, exec_id)
    except NotFound:
        manager = context.manager()
        if manager is None:
            raise
    else:
        yield local
        return
    async with manager.remote_containers.command(exec_id) as remote:
        yield remote
