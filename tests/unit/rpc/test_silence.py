"""A link to a process that is stopped: its kernel acknowledges, and it says nothing."""

from __future__ import annotations

import asyncio

import pytest
from aiohttp import ClientSession, web

from shoal.rpc.link import LinkSilent
from shoal.rpc.websocket import WebSocketLink

WAIT_SECONDS = 20.0


def test_who_says_nothing_is_left_when_patience_ends() -> None:
    async def scenario() -> None:
        over = asyncio.Event()
        patience_seconds = 1e9

        async def say_nothing(request: web.Request) -> web.WebSocketResponse:
            response = web.WebSocketResponse()
            await response.prepare(request)
            # pings are answered by who reads
            await over.wait()
            return response

        application = web.Application()
        application.router.add_get("/", say_nothing)
        runner = web.AppRunner(application)
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        host, port = runner.addresses[0][:2]
        async with ClientSession() as session:
            asked = asyncio.Event()

            def patience() -> float:
                asked.set()
                return patience_seconds

            link = WebSocketLink(await session.ws_connect(f"http://{host}:{port}/"), patience)
            async with asyncio.timeout(WAIT_SECONDS):
                await asked.wait()
                receiving = asyncio.ensure_future(link.receive())
                patience_seconds = 0.1
                with pytest.raises(LinkSilent, match=r"has said nothing for 0\.1 s"):
                    await receiving
            over.set()
            await link.wait_closed()
        await runner.cleanup()

    asyncio.run(scenario())
