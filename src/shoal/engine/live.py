"""The containers of an engine in memory: found by id, prefix or name. Knows no keeper."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
from pathlib import Path

from shoal.errors import InvalidArgument, NameConflict, NotFound
from shoal.model.base import replace
from shoal.model.container import Container, ExitStatus, Health

_NAME = re.compile(r"/?[a-zA-Z0-9][a-zA-Z0-9_.-]+")


class Live:
    """A container in memory. `ended` is set when its last run has; `lock` orders what is done to it."""

    def __init__(self, container: Container) -> None:
        self.container = container
        self.status: ExitStatus | None = None
        self.ended = asyncio.Event()
        self.lock = asyncio.Lock()
        self.guards: list[int] = []
        self.release: asyncio.Task[None] | None = None
        self.news = asyncio.Event()

    def set_health(self, health: Health | None) -> None:
        """Take what checks say; who waits for it is told."""
        self.container = replace(self.container, state=replace(self.container.state, health=health))
        self.tell()

    def guard(self, bundle: Path) -> None:
        """Hold the FIFOs open: should the keeper and the container both die, what was written is still there."""
        for name in ("stdout", "stderr"):
            with contextlib.suppress(FileNotFoundError):
                self.guards.append(os.open(bundle / name, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC))

    def unguard(self) -> None:
        """Let the FIFOs go."""
        while self.guards:
            os.close(self.guards.pop())

    def tell(self) -> None:
        """Wake who waits for news of the container's health or end."""
        self.news.set()
        self.news = asyncio.Event()


class LiveContainers:
    """All containers of a node."""

    def __init__(self) -> None:
        self.by_id: dict[str, Live] = {}
        self._names: dict[str, str] = {}

    def add(self, container: Container) -> Live:
        """Take a container in, under its name."""
        live = self.by_id[container.id] = Live(container)
        self._names[container.config.name] = container.id
        return live

    def name(self, name: str, container_id: str) -> None:
        """Give a container a name besides those it has."""
        self._names[name] = container_id

    def unname(self, name: str) -> None:
        """Take a name away."""
        self._names.pop(name, None)

    def forget(self, container: Container) -> None:
        """Forget a container and its name."""
        self.by_id.pop(container.id, None)
        if self._names.get(container.config.name) == container.id:
            del self._names[container.config.name]

    def find(self, container: str) -> Live:
        """Return a container by id, unique prefix or name. Raises NotFound, InvalidArgument (several)."""
        key = container.removeprefix("/")
        if key in self.by_id:
            return self.by_id[key]
        if key in self._names:
            return self.by_id[self._names[key]]
        found = [container_id for container_id in self.by_id if key and container_id.startswith(key)]
        if len(found) == 1:
            return self.by_id[found[0]]
        if found:
            raise InvalidArgument(f"multiple IDs found with provided prefix: {container}")
        raise NotFound(f"No such container: {container}")

    def checked_name(self, name: str, container_id: str) -> str:
        """Return the name a container may have. Raises InvalidArgument, NameConflict."""
        name = name.removeprefix("/") or container_id[:12]
        if not _NAME.fullmatch(name):
            raise InvalidArgument(f"Invalid container name ({name}), only [a-zA-Z0-9][a-zA-Z0-9_.-] are allowed")
        if name in self._names:
            raise NameConflict(
                f'Conflict. The container name "/{name}" is already in use by container "{self._names[name]}". '
                "You have to remove (or rename) that container to be able to reuse that name."
            )
        return name

    def using(self, image_id: str) -> tuple[tuple[str, bool], ...]:
        """Return which containers use an image, and whether they run."""
        using = [live.container for live in self.by_id.values() if live.container.image_id == image_id]
        return tuple((container.id, container.state.status == "running") for container in using)
