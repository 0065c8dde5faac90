"""Files of this node's containers: as tars, out and in; what was changed in them, and images made of that."""

from __future__ import annotations

import base64
import stat

from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.requests import flag, read_body
from shoal.api.responses import empty_response, encode, json_response
from shoal.api.routing import Route
from shoal.api.streams import run_until_gone
from shoal.api.views.shared import time_text
from shoal.core.image_settings import settings_of_request
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.container import CommitRequest, PathStat
from shoal.model.container_request import ContainerRequest

STAT_HEADER = "X-Docker-Container-Path-Stat"
CHUNK_BYTES = 64 * 1024
# Go's os.FileMode: the bits above those of permission, by kind of file and by what the kernel has beside them
_KINDS = {
    stat.S_IFDIR: 1 << 31,
    stat.S_IFLNK: 1 << 27,
    stat.S_IFBLK: 1 << 26,
    stat.S_IFIFO: 1 << 25,
    stat.S_IFSOCK: 1 << 24,
    stat.S_IFCHR: 1 << 26 | 1 << 21,
}
_BITS = {stat.S_ISUID: 1 << 23, stat.S_ISGID: 1 << 22, stat.S_ISVTX: 1 << 20}


def _path(request: web.Request) -> str:
    path = request.query.get("path", "")
    if not path or "\0" in path:
        raise InvalidArgument("path: name a file or directory of the container")
    return path


def stat_header(found: PathStat) -> str:
    """Return what a path is, as clients read it from a header."""
    mode = found.mode & 0o777 | _KINDS.get(stat.S_IFMT(found.mode), 0)
    mode |= sum(theirs for ours, theirs in _BITS.items() if found.mode & ours)
    view = {
        "name": found.name,
        "size": found.size_bytes,
        "mode": mode,
        "mtime": time_text(found.modified_at_ns),
        "linkTarget": found.link_target,
    }
    return base64.b64encode(encode(view)).decode()


async def look(request: web.Request) -> web.Response:
    """Say what a path is."""
    found = await request.app[CONTEXT].engine.stat_path(request.match_info["id"], _path(request))
    response = empty_response(200)
    response.headers[STAT_HEADER] = stat_header(found)
    return response


async def get(request: web.Request) -> web.StreamResponse:
    """Send a path as a tar."""
    engine, path = request.app[CONTEXT].engine, _path(request)
    container = engine.get(request.match_info["id"])
    found = await engine.stat_path(container.id, path)
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar", STAT_HEADER: stat_header(found)})
    await response.prepare(request)

    async def send() -> None:
        async for chunk in engine.read_archive(container.id, path):
            await response.write(chunk)

    await run_until_gone(request, send())
    return response


async def put(request: web.Request) -> web.Response:
    """Unpack the body, a tar, into a directory."""
    if flag(request, "copyUIDGID"):
        raise NotBuilt("copyUIDGID (docker cp -a) is not built: owners are those of the archive; leave -a out")
    archive = aiter(request.content.iter_chunked(CHUNK_BYTES))
    keeps_kinds = flag(request, "noOverwriteDirNonDir")
    await request.app[CONTEXT].engine.write_archive(request.match_info["id"], _path(request), archive, keeps_kinds)
    return empty_response(200)


async def changes(request: web.Request) -> web.Response:
    """Answer with what a container has changed (`docker diff`)."""
    found = await request.app[CONTEXT].engine.changes(request.match_info["id"])
    return json_response([{"Path": change.path, "Kind": int(change.kind)} for change in found])


async def export(request: web.Request) -> web.StreamResponse:
    """Send a container's root filesystem as a tar (`docker export`)."""
    engine = request.app[CONTEXT].engine
    container = engine.get(request.match_info["id"])
    response = web.StreamResponse(headers={"Content-Type": "application/octet-stream"})
    await response.prepare(request)

    async def send() -> None:
        async for chunk in engine.export(container.id):
            await response.write(chunk)

    await run_until_gone(request, send())
    return response


async def commit(request: web.Request) -> web.Response:
    """Make an image of a container."""
    query, engine = request.query, request.app[CONTEXT].engine
    name = query.get("container", "")
    if not name:
        raise InvalidArgument("container: name the container of which an image is to be made")
    engine.get(name)
    repository, tag = query.get("repo", ""), query.get("tag", "")
    asked = CommitRequest(
        reference=f"{repository}:{tag}" if repository and tag else repository,
        author=query.get("author", ""),
        comment=query.get("comment", ""),
        pauses="pause" not in query or flag(request, "pause"),
        settings=settings_of_request(await read_body(request, ContainerRequest)),
        changes=tuple(line for text in query.getall("changes", []) for line in text.splitlines()),
    )
    image = await engine.commit(name, asked)
    return json_response({"Id": image.id}, status=201)


ROUTES = (
    Route("POST", "/commit", commit),
    Route("GET", "/containers/{id}/changes", changes),
    Route("GET", "/containers/{id}/export", export),
    Route("HEAD", "/containers/{id}/archive", look),
    Route("GET", "/containers/{id}/archive", get),
    Route("PUT", "/containers/{id}/archive", put),
)
