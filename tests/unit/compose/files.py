"""Compose files in memory."""

from __future__ import annotations

import posixpath
from collections.abc import Mapping
from typing import Any

from shoal.compose.project import Loader, Project
from shoal.compose.stack import Stack, make_stack
from shoal.errors import NotFound


class Files:
    """Files by path below /p; the first is the Compose file if no other is named."""

    def __init__(self, files: Mapping[str, str]) -> None:
        self._files = {posixpath.join("/p", path): text for path, text in files.items()}

    def read(self, path: str) -> str:
        whole = posixpath.normpath(path)
        if whole not in self._files:
            raise NotFound(f"{whole}: there is no such file")
        return self._files[whole]

    def project(
        self, *paths: str, environment: Mapping[str, str] | None = None, profiles: tuple[str, ...] = ()
    ) -> Project:
        named = [posixpath.join("/p", path) for path in paths] or [next(iter(self._files))]
        return Loader(self.read, environment or {}, profiles).load(named)

    def stack(self, *paths: str, environment: Mapping[str, str] | None = None, profiles: tuple[str, ...] = ()) -> Stack:
        project = self.project(*paths, environment=environment, profiles=profiles)
        return make_stack(project, "st", "/p", self.read, environment or {})


def values(text: str, **environment: str) -> Any:
    """Return the values of one file."""
    return Files({"c.yml": text}).project(environment=environment).values


def service(text: str, **environment: str) -> Any:
    """Return the spec of the service `a`; `text` is what stands below its image."""
    lines = "".join(f"    {line}\n" for line in text.splitlines())
    whole = f"services:\n  a:\n    image: i\n{lines}"
    return Files({"c.yml": whole}).stack(environment=environment).services["st_a"]
