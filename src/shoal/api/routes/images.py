"""`/images`: the images of this node."""

from __future__ import annotations

from collections.abc import AsyncIterator
from fnmatch import fnmatchcase

import structlog
from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.filters import Filters, matches_labels, parse_boolean, parse_filters
from shoal.api.requests import decode_credentials, flag
from shoal.api.responses import empty_response, encode, json_response, list_response
from shoal.api.routing import Route
from shoal.api.streams import run_until_gone
from shoal.api.views.image import history_view, image_summary_view, image_view, progress_view
from shoal.api.views.shared import Json
from shoal.core.validate.reference import is_image_reference
from shoal.engine.protocol import Images
from shoal.errors import InvalidArgument, NotBuilt, ShoalError
from shoal.model.container import ImageRecord

_log = structlog.get_logger(__name__)

FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
IMPORT_FROM_BODY = "-"
CHUNK_BYTES = 64 * 1024


def _images(request: web.Request) -> Images:
    return request.app[CONTEXT].engine.images


async def list_images(request: web.Request) -> web.Response:
    """Answer with the images that pass the filters."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    dangling = parse_boolean(filters.get("dangling", ()), "dangling")
    images = [
        image
        for image in _images(request).list()
        if (dangling is None or dangling == (not image.tags)) and _passes(image, filters)
    ]
    return await list_response([image_summary_view(image) for image in images])


def _passes(image: ImageRecord, filters: Filters) -> bool:
    patterns = filters.get("reference", ())
    if patterns and not any(_matches(name, pattern) for name in image.tags for pattern in patterns):
        return False
    return matches_labels(image.labels, filters.get("label", ()))


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a tag matches a pattern of `docker images`: with its tag or without."""
    return fnmatchcase(name, pattern) or fnmatchcase(name.rpartition(":")[0], pattern)


async def inspect(request: web.Request) -> web.Response:
    """Answer with an image."""
    return json_response(image_view(_images(request).get(request.match_info["name"])))


async def history(request: web.Request) -> web.Response:
    """Answer with what is known of an image's making."""
    return json_response(history_view(_images(request).get(request.match_info["name"])))


async def create(request: web.Request) -> web.StreamResponse:
    """Pull an image (`fromImage`) or make one of a root filesystem in the body (`fromSrc=-`); streams progress."""
    if request.query.get("fromImage"):
        return await _pull(request)
    source = request.query.get("fromSrc", "")
    if source == IMPORT_FROM_BODY:
        return await _import(request)
    if source:
        raise NotBuilt("importing from an address is outside Shoal: send the archive with fromSrc=-")
    raise InvalidArgument("fromImage or fromSrc is needed")


def _reference(name: str, tag: str) -> str:
    if not tag:
        return name
    return f"{name}@{tag}" if ":" in tag else f"{name}:{tag}"


async def _pull(request: web.Request) -> web.StreamResponse:
    name, tag = request.query["fromImage"], request.query.get("tag", "")
    has_version = "@" in name or ":" in name.rpartition("/")[2]
    reference = _reference(name, tag) if tag else (name if has_version else f"{name}:latest")
    if not is_image_reference(reference):
        raise InvalidArgument("invalid reference format")
    credentials = decode_credentials(request.headers.get("X-Registry-Auth", ""))
    steps = _images(request).pull(reference, credentials)
    return await _stream_progress(request, (progress_view(step) async for step in steps))


async def _stream_progress(request: web.Request, steps: AsyncIterator[Json]) -> web.StreamResponse:
    """Send steps as lines; what fails before the first is a status, what fails later is a line, as in Docker."""
    first = await anext(steps, None)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)

    async def send() -> None:
        if first is not None:
            await response.write(encode(first) + b"\r\n")
        try:
            async for step in steps:
                await response.write(encode(step) + b"\r\n")
        except ShoalError as error:
            _log.info("pull failed", path=request.path, reason=error.message)
            failure = {"errorDetail": {"message": error.message}, "error": error.message}
            await response.write(encode(failure) + b"\r\n")

    if await run_until_gone(request, send()):
        await response.write_eof()
    return response


async def _import(request: web.Request) -> web.Response:
    repository, tag = request.query.get("repo", ""), request.query.get("tag", "")
    reference = _reference(repository, tag) if repository else ""
    if reference and not is_image_reference(reference):
        raise InvalidArgument("invalid reference format")
    changes = tuple(request.query.getall("changes", []))
    archive = request.content.iter_chunked(CHUNK_BYTES)
    message = request.query.get("message", "Imported from -")
    image = await _images(request).import_root(aiter(archive), reference, changes, message)
    return json_response({"status": image.id})


async def load(request: web.Request) -> web.Response:
    """Load an archive of images."""
    loaded = await _images(request).load(aiter(request.content.iter_chunked(CHUNK_BYTES)))
    lines = [
        encode({"stream": f"Loaded image{' ID' if name.startswith('sha256:') else ''}: {name}\n"}) for name in loaded
    ]
    return web.Response(body=b"\r\n".join([*lines, b""]), content_type="application/json")


async def save(request: web.Request) -> web.StreamResponse:
    """Send images as an archive: one by path, several by `names`."""
    images = _images(request)
    one = request.match_info.get("name")
    references = (one,) if one is not None else tuple(request.query.getall("names", []))
    if not references:
        raise InvalidArgument("names of images are needed")
    for reference in references:
        images.get(reference)
    response = web.StreamResponse(headers={"Content-Type": "application/x-tar"})
    await response.prepare(request)

    async def send() -> None:
        async for chunk in images.save(references):
            await response.write(chunk)

    if await run_until_gone(request, send()):
        await response.write_eof()
    return response


async def tag(request: web.Request) -> web.Response:
    """Give an image another name."""
    new = _reference(request.query.get("repo", ""), request.query.get("tag", "") or "latest")
    if not is_image_reference(new):
        raise InvalidArgument(f"invalid reference format: {new}")
    _images(request).tag(request.match_info["name"], new)
    return empty_response(201)


async def remove(request: web.Request) -> web.Response:
    """Untag an image, and delete it with its last name."""
    removed = await _images(request).remove(request.match_info["name"], flag(request, "force"))
    return json_response([{what: reference} for what, reference in removed])


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("POST", "/images/create", create),
    Route("POST", "/images/load", load),
    Route("GET", "/images/get", save),
    Route("GET", "/images/{name:.+}/json", inspect),
    Route("GET", "/images/{name:.+}/history", history),
    Route("GET", "/images/{name:.+}/get", save),
    Route("POST", "/images/{name:.+}/tag", tag),
    Route("DELETE", "/images/{name:.+}", remove),
)
