"""`/images`: the images of this node."""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Iterable
from fnmatch import fnmatchcase

import structlog
from aiohttp import web

from shoal.api.context import CONTEXT
from shoal.api.filters import matches_labels, parse_boolean, parse_filters, parse_until, passes_labels
from shoal.api.requests import flag
from shoal.api.responses import empty_response, encode, json_response, list_response
from shoal.api.routing import Route, api_version
from shoal.api.streams import run_until_gone
from shoal.api.views.image import history_view, image_summary_view, image_view, progress_view
from shoal.api.views.shared import Json
from shoal.core.platform import parse_platform
from shoal.core.reference import parse_reference
from shoal.engine.images.credentials import decode_credentials
from shoal.engine.protocol import Images
from shoal.errors import InvalidArgument, NotBuilt, NotFound, ShoalError
from shoal.model.base import replace
from shoal.model.container import ImageRecord

_log = structlog.get_logger(__name__)

FILTERS = frozenset({"before", "dangling", "label", "reference", "since", "until"})
PRUNE_FILTERS = frozenset({"dangling", "label", "label!", "until"})
OCI_SETTINGS_SINCE = (1, 50)
IMPORT_FROM_BODY = "-"
CHUNK_BYTES = 64 * 1024


def _images(request: web.Request) -> Images:
    return request.app[CONTEXT].engine.images


async def list_images(request: web.Request) -> web.Response:
    """Answer with the images that pass the filters."""
    filters = parse_filters(request.query.get("filters"), FILTERS)
    images = _images(request)
    dangling = parse_boolean(filters.get("dangling", ()), "dangling")
    until_ns = parse_until(filters.get("until", ()), request.app[CONTEXT].clock.now_ns())
    bounds = [until_ns + 1] if until_ns is not None else []
    bounds += [images.get(name).created_at_ns for name in filters.get("before", ())]
    after_ns = max((images.get(name).created_at_ns for name in filters.get("since", ())), default=-1)
    found = [
        named
        for image in images.list()
        if (dangling is None or dangling == (not image.tags))
        and after_ns < image.created_at_ns < min(bounds, default=image.created_at_ns + 1)
        and matches_labels(image.labels, filters.get("label", ()))
        and (named := _with_names(image, filters.get("reference", ()))) is not None
    ]
    shared = images.usage().shared_bytes if flag(request, "shared-size") else {}
    return await list_response([image_summary_view(image, -1, shared.get(image.id, -1)) for image in found])


def _with_names(image: ImageRecord, patterns: Collection[str]) -> ImageRecord | None:
    """Return an image with those of its names that match a pattern, None if none does; as it is without patterns."""
    if not patterns:
        return image

    def chosen(names: Iterable[str]) -> tuple[str, ...]:
        return tuple(name for name in names if any(_matches(name, pattern) for pattern in patterns))

    tags, digests = chosen(image.tags), chosen(image.digests)
    return replace(image, tags=tags, digests=digests) if tags or digests else None


def _matches(name: str, pattern: str) -> bool:
    """Tell whether a name matches a pattern: with its tag or digest, or without."""
    bare = name.partition("@")[0] if "@" in name else name.rpartition(":")[0]
    return fnmatchcase(name, pattern) or fnmatchcase(bare, pattern)


async def inspect(request: web.Request) -> web.Response:
    """Answer with an image."""
    view = image_view(_images(request).get(request.match_info["name"]), api_version(request) < OCI_SETTINGS_SINCE)
    return json_response(view)


async def history(request: web.Request) -> web.Response:
    """Answer with how an image was made."""
    images, name = _images(request), request.match_info["name"]
    return json_response(history_view(images.get(name), images.history(name)))


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
    platform, images = request.query.get("platform", ""), _images(request)
    parsed = parse_reference(_reference(name, tag) if tag else name)
    if platform:
        parse_platform(platform)
    credentials = decode_credentials(request.headers.get("X-Registry-Auth", ""))

    async def steps() -> AsyncIterator[Json]:
        references = [parsed.familiar]
        if not parsed.tag and not parsed.digest:
            # without one all of them, as `docker pull -a` asks
            tags = await images.remote_tags(parsed.familiar, credentials)
            references = [f"{parsed.familiar}:{each}" for each in tags]
        for reference in references:
            async for step in images.pull(reference, credentials, platform):
                yield progress_view(step)

    return await _stream_progress(request, steps())


async def push(request: web.Request) -> web.StreamResponse:
    """Send an image, or all tags of a name, to its registry; streams progress."""
    images, name, tag = _images(request), request.match_info["name"], request.query.get("tag", "")
    parsed = parse_reference(name)
    if parsed.digest or (parsed.tag and tag):
        raise InvalidArgument(f"invalid reference format: name {name} without tag or digest")
    credentials = decode_credentials(request.headers.get("X-Registry-Auth", ""))
    chosen = [_reference(parsed.familiar_name, tag or parsed.tag)]
    if not tag and not parsed.tag:
        beginning = f"{parsed.familiar_name}:"
        chosen = [each for image in images.list() for each in image.tags if each.startswith(beginning)]
        if not chosen:
            raise NotFound(f"An image does not exist locally with the tag: {parsed.familiar_name}")

    async def steps() -> AsyncIterator[Json]:
        for reference in chosen:
            async for step in images.push(reference, credentials):
                yield progress_view(step)

    return await _stream_progress(request, steps())


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
            _log.info("images: failed after the answer had begun", path=request.path, reason=error.message)
            failure = {"errorDetail": {"message": error.message}, "error": error.message}
            await response.write(encode(failure) + b"\r\n")

    await run_until_gone(request, send())
    return response


async def _import(request: web.Request) -> web.Response:
    repository, tag = request.query.get("repo", ""), request.query.get("tag", "")
    reference = _reference(repository, tag) if repository else ""
    if reference:
        parse_reference(reference)
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

    await run_until_gone(request, send())
    return response


async def tag(request: web.Request) -> web.Response:
    """Give an image another name."""
    new = _reference(request.query.get("repo", ""), request.query.get("tag", "") or "latest")
    parse_reference(new)
    _images(request).tag(request.match_info["name"], new)
    return empty_response(201)


async def remove(request: web.Request) -> web.Response:
    """Untag an image, and delete it with its last name."""
    removed = await _images(request).remove(request.match_info["name"], flag(request, "force"))
    return json_response([{what: reference} for what, reference in removed])


async def prune(request: web.Request) -> web.Response:
    """Remove images without a name, or with `dangling=false` all that no container uses."""
    filters = parse_filters(request.query.get("filters"), PRUNE_FILTERS)
    dangling = parse_boolean(filters.get("dangling", ()), "dangling")
    until_ns = parse_until(filters.get("until", ()), request.app[CONTEXT].clock.now_ns())

    def is_wanted(image: ImageRecord) -> bool:
        return (
            (dangling is False or not image.tags)
            and (until_ns is None or image.created_at_ns <= until_ns)
            and passes_labels(image.labels, filters)
        )

    removed, freed_bytes = await _images(request).prune(is_wanted)
    view = [{what: reference} for what, reference in removed] or None
    return json_response({"ImagesDeleted": view, "SpaceReclaimed": freed_bytes})


ROUTES = (
    Route("GET", "/images/json", list_images),
    Route("POST", "/images/create", create),
    Route("POST", "/images/load", load),
    Route("POST", "/images/prune", prune),
    Route("GET", "/images/get", save),
    Route("GET", "/images/{name:.+}/json", inspect),
    Route("GET", "/images/{name:.+}/history", history),
    Route("GET", "/images/{name:.+}/get", save),
    Route("POST", "/images/{name:.+}/tag", tag),
    Route("POST", "/images/{name:.+}/push", push),
    Route("DELETE", "/images/{name:.+}", remove),
)
