"""`/_ping`, `/version`, `/info`, `/auth`, `/system/df`."""

from __future__ import annotations

import re
from collections import Counter
from urllib.parse import urlsplit

from aiohttp import web

import shoal
from shoal.api.context import CONTEXT, ApiContext, ManagerView
from shoal.api.requests import read_body
from shoal.api.responses import json_response
from shoal.api.routes.containers import container_summaries
from shoal.api.routing import Route
from shoal.api.views.cluster import cluster_view
from shoal.api.views.image import image_summary_view
from shoal.api.views.info import info_view, version_view
from shoal.api.views.shared import Json
from shoal.api.views.volume import volume_usage_view
from shoal.core.reference import DEFAULT_REGISTRY
from shoal.engine.protocol import RegistryCredentials
from shoal.errors import InvalidArgument
from shoal.model.container_request import LoginRequest
from shoal.model.objects import Node
from shoal.model.states import LocalNodeState, Role

DISK_KINDS = frozenset({"image", "container", "volume", "build-cache"})
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
    paused = sum(1 for container in containers if container.state.paused)
    return {
        "Containers": len(containers),
        "ContainersRunning": running - paused,
        "ContainersPaused": paused,
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
    """Answer with what images, containers and volumes take, or those that `type` names."""
    context = request.app[CONTEXT]
    kinds = set(request.query.getall("type", [])) or DISK_KINDS
    if unknown := sorted(kinds - DISK_KINDS):
        raise InvalidArgument(f"unknown object type: {unknown[0]}: use {', '.join(sorted(DISK_KINDS))}")
    view: Json = {}
    if "image" in kinds:
        usage = context.engine.images.usage()
        used = Counter(container.image_id for container in context.engine.list())
        view["LayersSize"] = usage.layers_bytes
        view["Images"] = [
            image_summary_view(image, used[image.id], usage.shared_bytes.get(image.id, 0))
            for image in context.engine.images.list()
        ]
    if "container" in kinds:
        view["Containers"] = await container_summaries(context, context.engine.list(), with_sizes=True)
    if "volume" in kinds:
        volumes = context.engine.volumes
        view["Volumes"] = [
            volume_usage_view(usage, volumes.directory(usage.volume.name)) for usage in await volumes.usage()
        ]
    if "build-cache" in kinds:
        view["BuildCache"] = []
    return json_response(view)


async def prune_build_cache(_request: web.Request) -> web.Response:
    """Say that nothing was built here, and so nothing is left of it: `docker system prune` asks for it."""
    return json_response({"CachesDeleted": None, "SpaceReclaimed": 0})


_REGISTRY = re.compile(r"(?:[A-Za-z0-9][A-Za-z0-9._-]*|\[[0-9A-Fa-f:.]+\])(?::\d{1,5})?")


async def check_login(request: web.Request) -> web.Response:
    """Ask a registry whether it takes credentials, as `docker login` does."""
    asked = await read_body(request, LoginRequest)
    registry = urlsplit(asked.server_address).netloc or asked.server_address.partition("/")[0]
    if registry in ("", "index.docker.io"):
        registry = DEFAULT_REGISTRY
    if not _REGISTRY.fullmatch(registry):
        raise InvalidArgument(f"serveraddress: {registry!r} is no registry: write HOST or HOST:PORT")
    if not asked.username or "\0" in asked.username:
        raise InvalidArgument("username: give the name of a user of the registry, and its password")
    # without one the program that asks the registry would want it typed in
    if not asked.password:
        raise InvalidArgument("password: give that of the user, or an access token of the registry")
    credentials = RegistryCredentials(username=asked.username, password=asked.password)
    await request.app[CONTEXT].engine.images.check_login(registry, credentials)
    return json_response({"Status": "Login Succeeded", "IdentityToken": ""})


async def list_plugins(_request: web.Request) -> web.Response:
    """Answer that there are no plugins of an engine: what asks for them goes on."""
    return json_response([])


ROUTES = (
    Route("GET", "/plugins", list_plugins),
    Route("GET", "/_ping", ping),
    Route("HEAD", "/_ping", ping),
    Route("GET", "/version", version),
    Route("GET", "/info", info),
    Route("GET", "/system/df", disk_usage),
    Route("POST", "/build/prune", prune_build_cache),
    Route("POST", "/auth", check_login),
)
