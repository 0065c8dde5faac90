"""`/swarm`: make, read, change, leave, join, unlock."""

from __future__ import annotations

import base64

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.decode import decode_body
from shoal.api.requests import (
    actor_of,
    flag,
    read_body,
    read_view,
    require_manager,
    version_number,
)
from shoal.api.responses import empty_response, json_response
from shoal.api.routing import Route, Scope
from shoal.api.views.cluster import swarm_view
from shoal.core.validate.cluster import prepare_cluster
from shoal.core.validate.node import parse_availability
from shoal.errors import InvalidArgument, Unauthenticated
from shoal.manager.control import Rotation
from shoal.manager.lookup import require_cluster
from shoal.model.requests import BackupRequest, JoinRequest, RestoreRequest, UnlockRequest
from shoal.model.specs import ClusterSpec, InitRequest

RESTORE_HEADER = "X-Shoal-Restore"
BACKUP_BYTES_MOST = 1 << 30
SUBNET_SIZE_MOST = 29
DATA_PATH_PORTS = range(1024, 49152)


async def init(request: web.Request) -> web.Response:
    """Make a swarm; answers the node's id as a bare JSON string."""
    body = await read_body(request, InitRequest)
    prepare_cluster(body.spec)
    if body.availability:
        parse_availability(body.availability)
    if body.data_path_port and body.data_path_port not in DATA_PATH_PORTS:
        raise InvalidArgument(f"Datapath port number is not in valid range (1024-49151) : {body.data_path_port}")
    if body.subnet_size > SUBNET_SIZE_MOST:
        raise InvalidArgument(f"subnet size is out of range: {body.subnet_size}")
    return json_response(await request.app[CONTEXT].init_swarm(body))


async def inspect(request: web.Request) -> web.Response:
    """Answer with the swarm and its join tokens."""
    view = await read_view(request)
    return json_response(swarm_view(require_cluster(view)))


async def update(request: web.Request) -> web.Response:
    """Write the swarm's spec; make tokens or the unlock key anew."""
    spec = await read_body(request, ClusterSpec)
    version = version_number(request, "swarm")
    rotation = Rotation(
        worker_token=flag(request, "rotateWorkerToken"),
        manager_token=flag(request, "rotateManagerToken"),
        unlock_key=flag(request, "rotateManagerUnlockKey"),
        # Shoal's own
        network_keys=flag(request, "rotateNetworkKeys"),
    )
    await require_manager(request).control.update_cluster(version, spec, rotation, actor_of(request))
    return empty_response()


async def join(request: web.Request) -> web.Response:
    """Join a swarm."""
    body = await read_body(request, JoinRequest)
    await request.app[CONTEXT].join_swarm(body)
    return empty_response()


async def leave(request: web.Request) -> web.Response:
    """Leave the swarm."""
    await request.app[CONTEXT].leave_swarm(flag(request, "force"))
    return empty_response()


async def unlock_key(request: web.Request) -> web.Response:
    """Answer with the unlock key, empty without autolock."""
    view = await read_view(request)
    return json_response({"UnlockKey": require_cluster(view).unlock_key})


async def unlock(request: web.Request) -> web.Response:
    """Unlock this manager."""
    body = await read_body(request, UnlockRequest)
    if not body.unlock_key:
        raise Unauthenticated("unlock key is required")
    await request.app[CONTEXT].unlock_swarm(body.unlock_key)
    return empty_response()


async def back_up(request: web.Request) -> web.StreamResponse:
    """Answer with the swarm in a sealed file (Shoal's own)."""
    body = await read_body(request, BackupRequest)
    require_manager(request)
    pieces = await request.app[CONTEXT].back_up_swarm(body.passphrase)
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)
    async for piece in pieces:
        await response.write(piece)
    await response.write_eof()
    return response


async def restore(request: web.Request) -> web.Response:
    """Make a swarm out of such a file; answers the node's id as a bare JSON string."""
    try:
        options = base64.b64decode(request.headers.get(RESTORE_HEADER, ""), validate=True)
    except ValueError:
        raise InvalidArgument(f"{RESTORE_HEADER} is not base64 of JSON") from None
    asked = decode_body(options, RestoreRequest)
    content = bytearray()
    async for piece in request.content.iter_any():
        content += piece
        if len(content) > BACKUP_BYTES_MOST:
            raise InvalidArgument(f"the backup is larger than {BACKUP_BYTES_MOST} bytes")
    return json_response(await request.app[CONTEXT].restore_swarm(asked, bytes(content)))


ROUTES = (
    Route("POST", "/shoal/swarm/backup", back_up),
    Route("POST", "/shoal/swarm/restore", restore),
    Route("POST", "/swarm/init", init),
    Route("GET", "/swarm", inspect),
    Route("POST", "/swarm/update", update, Scope.LEADER),
    Route("POST", "/swarm/join", join),
    Route("POST", "/swarm/leave", leave),
    Route("GET", "/swarm/unlockkey", unlock_key),
    Route("POST", "/swarm/unlock", unlock),
)
