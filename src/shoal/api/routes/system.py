"""`/_ping`, `/version`, `/info`, `/auth`, `/system/df`."""

from __future__ import annotations

from aiohttp import web

import shoal
from shoal.api.context import CONTEXT, ApiContext, ManagerView
from shoal.api.responses import json_response
from shoal.api.routing import Route
from shoal.api.views.cluster import cluster_view
from shoal.api.views.container import container_summary_view
from shoal.api.views.image import image_summary_view
from shoal.api.views.info import info_view, version_view
from shoal.api.views.shared import Json
from shoal.api.views.volume import volume_usage_view
from shoal.errors import NotBuilt
from shoal.model.objects import Node
from shoal.model.states import LocalNodeState, Role

TWO_MANAGERS = (
    "WARNING: Running Swarm in a two-manager configuration. This configuration provides no fault tolerance, and "
    "poses a high risk to lose control over the cluster. Refer to https://docs.docker.com/engine/swarm/admin_guide/ "
    "to configure the Swarm for fault-tolerance."
)


async def ping(request: web.Request) -> web.Response:
    """Answer `OK` and say how this node stands to a swarm."""
    context = request.app[CONTEXT]
    headers = {
        "Builder-Version": "1",
        "Cache-Control": "no-cache, no-store, must-revalidate",
        "Pragma": "no-cache",
        "Swarm": _swarm_header(context),
    }
    body = b"" if request.method == "HEAD" else b"OK"
    return web.Response(body=body, headers=headers, content_type="text/plain", charset="utf-8")


def _swarm_header(context: ApiContext) -> str:
    state = context.local_state()
    if state != LocalNodeState.ACTIVE:
        return str(state)
    return "active/manager" if context.manager() is not None else "active/worker"


async def version(request: web.Request) -> web.Response:
    """Answer with versions."""
    context = request.app[CONTEXT]
    return json_response(version_view(context.version, shoal.__version__, context.host()))


async def info(request: web.Request) -> web.Response:
    """Answer with everything `docker info` prints; needs no leader."""
    context = request.app[CONTEXT]
    counts = _counts(context)
    swarm = _swarm_section(context)
    description = context.describe_node()
    return json_response(info_view(context.host(), description, context.version, counts, swarm, context.clock.now_ns()))


def _counts(context: ApiContext) -> Json:
    containers = context.engine.list()
    running = sum(1 for container in containers if container.state.status == "running")
    return {
        "Containers": len(containers),
        "ContainersRunning": running,
        "ContainersPaused": 0,
        "ContainersStopped": len(containers) - running,
        "Images": len(context.engine.images.list()),
    }


def _swarm_section(context: ApiContext) -> Json:
    host = context.host()
    manager = context.manager()
    managers = [{"NodeID": node_id, "Addr": address} for node_id, address in host.remote_managers]
    section: Json = {
        "NodeID": context.node_id,
        "NodeAddr": host.node_address,
        "LocalNodeState": str(context.local_state()),
        "ControlAvailable": manager is not None,
        "Error": context.local_error(),
        "RemoteManagers": managers or None,
    }
    if manager is not None:
        _add_cluster(section, manager)
    return section


def _add_cluster(section: Json, manager: ManagerView) -> None:
    view = manager.store.view
    cluster = view.cluster()
    if cluster is None:
        return
    nodes = view.all(Node)
    manager_count = sum(1 for node in nodes if node.spec.role == Role.MANAGER)
    section["Nodes"] = len(nodes)
    section["Managers"] = manager_count
    section["Cluster"] = cluster_view(cluster)
    if manager_count == 2:
        section["Warnings"] = [TWO_MANAGERS]


async def disk_usage(request: web.Request) -> web.Response:
    """Answer with what images, containers and volumes take; containers do not tell their size."""
    context = request.app[CONTEXT]
    images, volumes = context.engine.images.list(), context.engine.volumes
    now_ns = context.clock.now_ns()
    return json_response(
        {
            "LayersSize": sum(image.size_bytes for image in images),
            "Images": [image_summary_view(image) for image in images],
            "Containers": [container_summary_view(container, now_ns) for container in context.engine.list()],
            "Volumes": [
                volume_usage_view(usage, volumes.directory(usage.volume.name)) for usage in await volumes.usage()
            ],
            "BuildCache": [],
        }
    )


async def check_login(_request: web.Request) -> web.Response:
    """Say that logins are not checked here."""
    raise NotBuilt(
        "the daemon does not check registry logins yet: credentials are used as they are when an image is pulled"
    )


ROUTES = (
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/auth", check_login),
)
