"""`/containers/{id}/stats` and `/containers/{id}/top`: what a container uses, and what runs in it."""

from __future__ import annotations

import asyncio

from aiohttp import web

from shoal.api.container_lookup import found_container
from shoal.api.requests import flag
from shoal.api.responses import encode, json_response
from shoal.api.routing import Route
from shoal.api.streams import run_until_gone
from shoal.api.views.stats import stats_view
from shoal.errors import InvalidArgument, NotFound, Unavailable
from shoal.model.streams import ContainerStats

SAMPLE_SECONDS = 1.0


async def stats(request: web.Request) -> web.StreamResponse:
    """Answer with a sample (`stream=0`; without `one-shot` with the one a second before it), or one each second."""
    is_streamed = "stream" not in request.query or flag(request, "stream")
    if flag(request, "one-shot") and is_streamed:
        raise InvalidArgument("cannot have stream=true and one-shot=true: leave out one of the two")
    async with found_container(request) as found:
        container = found.container
        sample, earlier = await found.stats(), ContainerStats()
        if not is_streamed:
            if sample.at_ns and not flag(request, "one-shot"):
                earlier = sample
                await asyncio.sleep(SAMPLE_SECONDS)
                sample = await found.stats()
            return json_response(stats_view(sample, earlier, container.id, container.config.name))
        response = web.StreamResponse(headers={"Content-Type": "application/json"})
        await response.prepare(request)

        async def send() -> None:
            last, before = sample, earlier
            while True:
                await response.write(encode(stats_view(last, before, container.id, container.config.name)) + b"\n")
                await asyncio.sleep(SAMPLE_SECONDS)
                try:
                    before, last = last, await found.stats()
                except (NotFound, Unavailable):
                    # it was removed, or its node has gone
                    return

        await run_until_gone(request, send())
        return response


async def top(request: web.Request) -> web.Response:
    """Answer with a container's processes, as the node's `ps` shows them."""
    async with found_container(request) as found:
        table = await found.top(request.query.get("ps_args", "") or "-ef")
    return json_response({"Titles": list(table.titles), "Processes": [list(process) for process in table.processes]})


ROUTES = (
    Route("GET", "/containers/{id}/stats", stats),
    Route("GET", "/containers/{id}/top", top),
)
