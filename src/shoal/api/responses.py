"""Writing answers: JSON, errors, long lists in slices that never hold the loop."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any

import msgspec
from aiohttp import web

SLICE_ITEMS = 200
JSON_TYPE = "application/json"

_encoder = msgspec.json.Encoder()


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
