"""Writing answers: JSON, errors, long lists in slices that never hold the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec
from aiohttp import web

from shoal.model.objects import Service, Task

SLICE_ITEMS = 200
ENCODED_MOST = 10_000
JSON_TYPE = "application/json"

_encoder = msgspec.json.Encoder()


T = TypeVar("T", Service, Task)


class EncodedObjects:
    """Objects as they were last encoded: one that has not changed is not encoded again for the next list."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[tuple[int, ...], msgspec.Raw]] = {}

    def of(self, value: T, view: Callable[[T], Any], *seen_versions: int) -> msgspec.Raw:
        """Return an object's JSON, made by `view` if this state was not seen yet.

        `seen_versions` are those of other objects that the view shows, too.
        """
        versions = (value.meta.version, *seen_versions)
        known = self._known.get(value.id)
        if known is not None and known[0] == versions:
            return known[1]
        if len(self._known) >= ENCODED_MOST:
            self._known.clear()
        encoded = msgspec.Raw(_encoder.encode(view(value)))
        self._known[value.id] = (versions, encoded)
        return encoded


ENCODED_SERVICES: web.AppKey[EncodedObjects] = web.AppKey("shoal_encoded_services")
ENCODED_TASKS: web.AppKey[EncodedObjects] = web.AppKey("shoal_encoded_tasks")


def json_response(value: Any, status: int = 200) -> web.Response:
    """Answer with JSON."""
    return web.Response(body=_encoder.encode(value) + b"\n", status=status, content_type=JSON_TYPE)


def error_response(status: int, message: str) -> web.Response:
    """Answer with Docker's form of an error."""
    return json_response({"message": message}, status)


def empty_response(status: int = 200) -> web.Response:
    """Answer with nothing."""
    return web.Response(status=status, headers={"Content-Length": "0"} if status != 204 else {})


def encode(value: Any) -> bytes:
    """Encode a value as JSON."""
    return _encoder.encode(value)


async def list_response(items: Iterable[Any]) -> web.Response:
    """Answer with a JSON list; other work goes on between slices of `SLICE_ITEMS`."""
    parts: list[bytes] = []
    for position, item in enumerate(items):
        parts.append(_encoder.encode(item))
        if position % SLICE_ITEMS == SLICE_ITEMS - 1:
            await asyncio.sleep(0)
    return web.Response(body=b"[" + b",".join(parts) + b"]\n", content_type=JSON_TYPE)
