"""`/volumes`: the named volumes of this node."""

from __future__ import annotations

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.filters import Filters, matches_labels, parse_boolean, parse_filters, passes_labels
from shoal.api.requests import flag, read_body
from shoal.api.responses import empty_response, json_response
from shoal.api.routing import Route, api_version
from shoal.api.views.volume import volume_view
from shoal.core.volume import ANONYMOUS, LOCAL_DRIVER
from shoal.engine.protocol import Volumes
from shoal.errors import NotBuilt, NotFound
from shoal.model.base import replace
from shoal.model.volume import Volume, VolumeRequest

FILTERS = frozenset({"name", "driver", "label", "dangling"})
PRUNE_FILTERS = frozenset({"label", "label!", "all"})
# since then volumes with names are pruned only when all are asked for
ANONYMOUS_ONLY_SINCE = (1, 42)


def _volumes(request: web.Request) -> Volumes:
    return request.app[CONTEXT].engine.volumes


async def list_volumes(request: web.Request) -> web.Response:
    """Answer with the volumes that pass the filters."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    volumes = _volumes(request)
    dangling = parse_boolean(filters.get("dangling", ()), "dangling")
    used = volumes.used()
    found = [
        volume
        for volume in volumes.list()
        if _passes(volume, filters) and (dangling is None or dangling == (volume.name not in used))
    ]
    views = [volume_view(volume, volumes.directory(volume.name)) for volume in found]
    return json_response({"Volumes": views, "Warnings": None})


def _passes(volume: Volume, filters: Filters) -> bool:
    names, drivers = filters.get("name", ()), filters.get("driver", ())
    return (
        (not names or any(name in volume.name for name in names))
        and (not drivers or LOCAL_DRIVER in drivers)
        and matches_labels(volume.labels, filters.get("label", ()))
    )


async def create(request: web.Request) -> web.Response:
    """Make a volume; one of that name is answered as it is."""
    asked = await read_body(request, VolumeRequest)
    if asked.cluster_volume_spec is not None:
        raise NotBuilt("cluster volumes (CSI) are not built: use a volume of the local driver, with type nfs or bind")
    if not asked.name:
        asked = replace(asked, name=request.app[CONTEXT].ids.new_hex(), labels={**asked.labels, ANONYMOUS: ""})
    volume = await _volumes(request).create(asked)
    return json_response(volume_view(volume, _volumes(request).directory(volume.name)), status=201)


async def inspect(request: web.Request) -> web.Response:
    """Answer with a volume."""
    volume = _volumes(request).get(request.match_info["name"])
    return json_response(volume_view(volume, _volumes(request).directory(volume.name)))


async def remove(request: web.Request) -> web.Response:
    """Remove a volume; with `force` one that is not there is no failure."""
    try:
        await _volumes(request).remove(request.match_info["name"])
    except NotFound:
        if not flag(request, "force"):
            raise
    return empty_response(204)


async def update(_request: web.Request) -> web.Response:
    """Refuse: only cluster volumes can be changed."""
    raise NotBuilt("cluster volumes (CSI) are not built; a local volume cannot be changed")


async def prune(request: web.Request) -> web.Response:
    """Remove what no container names: since API 1.42 only what nobody has named either, unless `all` says otherwise."""
    filters = parse_filters(request.query.get("filters"), PRUNE_FILTERS)
    takes_named = parse_boolean(filters.get("all", ()), "all") or api_version(request) < ANONYMOUS_ONLY_SINCE

    def is_wanted(volume: Volume) -> bool:
        return (takes_named or ANONYMOUS in volume.labels) and passes_labels(volume.labels, filters)

    removed, freed_bytes = await _volumes(request).prune(is_wanted)
    return json_response({"VolumesDeleted": list(removed) or None, "SpaceReclaimed": freed_bytes})


ROUTES = (
    Route("GET", "/volumes", list_volumes),
    Route("POST", "/volumes/create", create),
    Route("POST", "/volumes/prune", prune),
    Route("GET", "/volumes/{name}", inspect),
    Route("PUT", "/volumes/{name}", update),
    Route("DELETE", "/volumes/{name}", remove),
)
