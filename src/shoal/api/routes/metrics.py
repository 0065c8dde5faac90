"""`GET /metrics`: what Prometheus scrapes from a node. Beyond Docker, whose daemon has another port for it."""

from __future__ import annotations

from itertools import chain

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.routing import Route
from shoal.api.views.metrics import consensus_families, metrics_text, node_families, swarm_families, usage_families
from shoal.errors import ShoalError

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


async def metrics(request: web.Request) -> web.Response:
    """Answer with this node's metrics; a manager's with the swarm's, too."""
    context = request.app[CONTEXT]
    containers, samples = context.engine.list(), []
    for container in containers:
        if container.state.status == "running":
            try:
                samples.append((container, await context.engine.stats(container.id)))
            except ShoalError:
                continue  # it was removed meanwhile
    images = len(context.engine.images.list())
    families = chain(node_families(context.version, context.node_id, containers, images), usage_families(samples))
    manager = context.manager()
    if manager is not None:
        families = chain(families, consensus_families(manager.consensus_status()), swarm_families(manager.store.view))
    return web.Response(body=metrics_text(families), headers={"Content-Type": CONTENT_TYPE})


ROUTES = (Route("GET", "/metrics", metrics),)
