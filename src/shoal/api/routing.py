"""What a route is, and the API version a request speaks."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from enum import Enum
from typing import NamedTuple

from aiohttp import web

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


class Scope(Enum):
    """Who answers a route in a swarm of several managers."""

    LOCAL = "the manager or node that was asked; what it reads of the swarm is linearizable all the same"
    LEADER = "the leading manager: it alone writes, and nodes have their sessions there"


class Route(NamedTuple):
    """A method and a path (without the version), what answers it, and where."""

    method: str
    path: str
    handler: Handler
    scope: Scope = Scope.LOCAL


def api_version(request: web.Request) -> tuple[int, int]:
    """Return the API version of the request's path; without one the newest."""
    text = request.match_info.get("api_version")
    if text is None:
        return (1, 50)
    major, _, minor = text.partition(".")
    return (int(major), int(minor or 0))
