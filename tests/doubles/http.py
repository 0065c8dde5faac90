"""An HTTP client of the API over a unix socket, for tests."""

from __future__ import annotations

import asyncio
import io
import json
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from yarl import URL

from shoal.api.application import make_application
from tests.doubles.daemon import MemoryDaemon

DEADLINE_SECONDS = 30.0


class Reply:
    def __init__(self, status: int, headers: dict[str, str], body: bytes) -> None:
        self.status = status
        self.headers = headers
        self.body = body

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def message(self) -> str:
        text: str = self.json["message"]
        return text


class Api:
    def __init__(self, session: aiohttp.ClientSession, daemon: MemoryDaemon, socket: str) -> None:
        self.session = session
        self.daemon = daemon
        self.socket = socket

    async def call(
        self, method: str, path: str, body: object = None, *, raw: bytes | None = None, **headers: str
    ) -> Reply:
        sent = {name.replace("_", "-"): value for name, value in headers.items()}
        url = URL("http://docker" + path, encoded=True)
        if raw is not None:
            sent.setdefault("Content-Type", "application/json")
            request = self.session.request(method, url, data=io.BytesIO(raw), headers=sent)
        else:
            request = self.session.request(method, url, json=body, headers=sent)
        async with request as response:
            return Reply(response.status, dict(response.headers), await response.read())

    async def get(self, path: str) -> Any:
        reply = await self.call("GET", path)
        assert reply.status == 200, reply.body
        return reply.json

    async def init(self) -> str:
        reply = await self.call("POST", "/swarm/init", {"ListenAddr": "0.0.0.0:2377"})
        assert reply.status == 200, reply.body
        node_id: str = reply.json
        return node_id


@asynccontextmanager
async def serve(daemon: MemoryDaemon | None = None) -> AsyncIterator[Api]:
    daemon = daemon or MemoryDaemon()
    with tempfile.TemporaryDirectory(prefix="shoal-api-") as directory:
        socket = str(Path(directory) / "shoal.sock")
        runner = web.AppRunner(make_application(daemon), shutdown_timeout=1.0)
        await runner.setup()
        await web.UnixSite(runner, socket).start()
        try:
            async with aiohttp.ClientSession(connector=aiohttp.UnixConnector(socket)) as session:
                yield Api(session, daemon, socket)
        finally:
            await runner.cleanup()


def run_api(test: Callable[[Api], Awaitable[None]], *, in_swarm: bool = True) -> None:
    async def main() -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), serve() as api:
            if in_swarm:
                await api.init()
            await test(api)

    asyncio.run(main())
