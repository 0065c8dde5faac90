"""The images of a node, as `engine/protocol.py` says. Blocking work runs in threads; one writer at a time."""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import hashlib
import json
import os
import sqlite3
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import BinaryIO, TypeVar

from shoal.core.image_settings import merged_settings, settings_of_container
from shoal.core.platform import parse_platform, platform_of
from shoal.core.reference import DEFAULT_TAG, Reference, parse_reference
from shoal.engine.events import NodeEvents
from shoal.engine.images import archive, remote
from shoal.engine.images.content import Content, try_lock
from shoal.engine.images.formats import (
    Blob,
    apply_changes,
    extend_config,
    history_of,
    make_config,
    make_manifest,
    parse_manifest,
    settings_of,
    sha256,
    short_digest,
)
from shoal.engine.images.unpack import DISK_ERRORS, digest_of_content, digest_of_file
from shoal.engine.protocol import ImagesUsage, PullProgress, RegistryCredentials
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError, Unauthenticated
from shoal.lib.clock import Clock
from shoal.lib.files import write_atomically
from shoal.model.base import replace
from shoal.model.container import CommitRequest, Container, HistoryStep, ImageRecord, RemoteManifest, RemotePlatform

T = TypeVar("T")
_HEX = frozenset("0123456789abcdef")


class LocalImages:
    """Images under `root`.

    Args:
        root: image root, which several daemons may share.
        daemon_id: names this daemon's lease file: images its containers use are spared by all.
        machine: `x86_64`, `aarch64`…: which platform is pulled.
        clock: source of time.
        containers_using: returns the ids of this daemon's containers made from an image id.
        events: hears what becomes of images.
        insecure_registries: registries that speak plain HTTP besides those on loopback.
    """

    def __init__(
        self,
        root: Path,
        daemon_id: str,
        machine: str,
        clock: Clock,
        containers_using: Callable[[str], tuple[tuple[str, bool], ...]],
        events: NodeEvents,
        insecure_registries: tuple[str, ...] = (),
    ) -> None:
        self.content = Content(root)
        self._lease = root / "leases" / f"{daemon_id}.json"
        self._machine = machine
        self._clock = clock
        self._containers_using = containers_using
        self._events = events
        self._insecure_registries = insecure_registries
        self._writing = asyncio.Lock()

    def start_up(self) -> None:
        """Take away what a killed daemon left half-done, unless another daemon is writing just now; blocks."""
        descriptor = self._open_lock()
        try:
            if try_lock(descriptor):
                self.content.clean()
        finally:
            os.close(descriptor)

    def close(self) -> None:
        """Close the index."""
        self.content.index.close()

    def list(self) -> tuple[ImageRecord, ...]:
        """Return all images, newest first."""
        records = [_familiar(record) for record in self.content.index.records().values()]
        return tuple(sorted(records, key=lambda record: -record.created_at_ns))

    def get(self, reference: str) -> ImageRecord:
        """Return an image by name, digest, id or unique prefix of an id."""
        return _familiar(self._find(reference))

    def _find(self, reference: str) -> ImageRecord:
        records = self.content.index.records()
        image_id = self._find_name(reference)
        if image_id is not None and image_id in records:
            return records[image_id]
        hexadecimal = reference.removeprefix("sha256:")
        if not set(hexadecimal) <= _HEX:
            # says what is wrong with a name that can be none
            parse_reference(reference)
        elif hexadecimal:
            found = [record for key, record in records.items() if key.removeprefix("sha256:").startswith(hexadecimal)]
            if len(found) == 1:
                return found[0]
            if found:
                raise InvalidArgument(f"image ID prefix {reference} is ambiguous: give more of it")
        raise NotFound(f"No such image: {_shown(reference)}")

    def _find_name(self, reference: str) -> str | None:
        if reference.startswith("sha256:"):
            return None
        try:
            parsed = parse_reference(reference)
        except InvalidArgument:
            return None
        if parsed.digest:
            return self.content.index.find_name(f"{parsed.name}@{parsed.digest}")
        return self.content.index.find_name(parsed.with_default_tag().canonical)

    async def import_root(
        self, archive: AsyncIterator[bytes], reference: str, changes: tuple[str, ...] = (), message: str = ""
    ) -> ImageRecord:
        """Make an image of one layer from a tar of a root filesystem (plain, gzip or zstd), as `docker import`."""
        target = parse_reference(reference).with_default_tag() if reference else None
        if target is not None and target.digest:
            raise InvalidArgument("cannot import digest reference")
        settings = apply_changes(changes)
        async with self._whole_or_nothing(), self._scratch() as directory:
            path = directory / "layer"
            digest = await receive(archive, path)

            def enter() -> str:
                diff_id = digest_of_content(path)
                blob: Blob = self.content.layer_blob(path, digest)
                self.content.take_blob(path, digest)
                config = make_config(diff_id, self._clock.now_ns(), self._machine, message, settings)
                self.content.put_blob(config)
                image_id = self.content.add_image(make_manifest(config, (blob,)))
                if target is not None:
                    self.content.index.set_tag(target.canonical, image_id, self._clock.now_ns())
                return image_id

            image_id = await self._write(enter)
        self._events.tell_of_image("import", image_id, target.familiar if target is not None else "")
        return self.get(image_id)

    async def commit(
        self, container: Container, request: CommitRequest, write_layer: Callable[[Path], None]
    ) -> ImageRecord:
        """Make an image of a container's image and one more layer.

        Args:
            container: what it was made with is in the image's settings.
            request: what is asked for.
            write_layer: writes the layer as a tar; called in a thread.

        Raises:
            InvalidArgument: a reference or a change that is none.
        """
        target = parse_reference(request.reference).with_default_tag() if request.reference else None
        if target is not None and target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        base = self.content.index.config(container.image_id)
        settings = settings_of_container(settings_of(base), container.config)
        settings = apply_changes(request.changes, merged_settings(settings, request.settings))
        manifest = parse_manifest(self.content.read_blob(self.content.index.manifest_digest(container.image_id)))
        step = {"created_by": " ".join(container.arguments), "author": request.author, "comment": request.comment}
        async with self._whole_or_nothing(), self._scratch() as directory:
            path = directory / "layer"
            await asyncio.to_thread(write_layer, path)

            def enter() -> str:
                diff_id = digest_of_file(path)
                blob = self.content.layer_blob(path, diff_id)
                self.content.take_blob(path, diff_id)
                step_words = {key: value for key, value in step.items() if value}
                config = extend_config(base, diff_id, self._clock.now_ns(), settings, request.author, step_words)
                self.content.put_blob(config)
                image_id = self.content.add_image(make_manifest(config, (*manifest.layers, blob)))
                if target is not None:
                    self.content.index.set_tag(target.canonical, image_id, self._clock.now_ns())
                return image_id

            image_id = await self._write(enter)
        return self.get(image_id)

    async def load(self, archive_stream: AsyncIterator[bytes]) -> tuple[str, ...]:
        """Load a `docker save` or OCI archive; returns the references or ids loaded."""
        async with self._whole_or_nothing(), self._scratch() as directory:
            path = directory / "archive"
            await receive(archive_stream, path)

            def enter() -> tuple[str, ...]:
                loaded: list[str] = []
                for image_id, names in archive.load_archive(self.content, path, directory, self._machine):
                    for name in names:
                        self.content.index.set_tag(name.canonical, image_id, self._clock.now_ns())
                        loaded.append(name.familiar)
                    if not names:
                        loaded.append(image_id)
                return tuple(loaded)

            names = await self._write(enter)
        for name in names:
            self._events.tell_of_image("load", self._find(name).id, name)
        return names

    async def save(self, references: tuple[str, ...]) -> AsyncIterator[bytes]:
        """Stream a `docker save` archive of the images."""
        chosen: dict[str, list[Reference]] = {}
        for reference in references:
            record = self._find(reference)
            names = chosen.setdefault(record.id, [])
            if not record.id.removeprefix("sha256:").startswith(reference.removeprefix("sha256:")):
                names.append(parse_reference(reference).with_default_tag())
        with self.content.scratch() as directory:
            path = directory / "archive"
            await asyncio.to_thread(archive.save_archive, self.content, path, chosen)
            with path.open("rb") as file:
                while chunk := await asyncio.to_thread(file.read, 1 << 20):
                    yield chunk

    def tag(self, reference: str, new_reference: str) -> None:
        """Give an image another name."""
        record = self._find(reference)
        target = parse_reference(new_reference)
        if target.digest:
            raise InvalidArgument("refusing to create a tag with a digest reference")
        self.content.index.set_tag(target.with_default_tag().canonical, record.id, self._clock.now_ns())
        self._events.tell_of_image("tag", record.id, target.with_default_tag().familiar)

    async def remove(self, reference: str, force: bool = False) -> tuple[tuple[str, str], ...]:
        """Untag, and delete when no name is left."""
        image_id = self._find(reference).id
        removed, _ = await self._write(lambda: self._remove(reference, force))
        self._tell_removed(image_id, removed)
        return removed

    def _tell_removed(self, image_id: str, removed: tuple[tuple[str, str], ...]) -> None:
        for what, name in removed:
            if what == "Untagged" or name == image_id:
                # both are told of the image, as Docker does
                self._events.tell_of_image("untag" if what == "Untagged" else "delete", image_id, image_id)

    async def prune(self, is_wanted: Callable[[ImageRecord], bool]) -> tuple[tuple[tuple[str, str], ...], int]:
        """Remove the images that no container uses and `is_wanted` holds for; returns what, and the bytes freed."""
        removed: list[tuple[str, str]] = []
        freed_bytes = 0
        for record in self.list():
            if is_wanted(record) and not self._containers_using(record.id):
                # used by another daemon, or taken away just now
                with contextlib.suppress(Conflict, NotFound):
                    steps, freed = await self._write(lambda image_id=record.id: self._remove(image_id, force=True))  # type: ignore[misc]
                    self._tell_removed(record.id, steps)
                    removed += steps
                    freed_bytes += freed
        return tuple(removed), freed_bytes

    def usage(self) -> ImagesUsage:
        """Return what the layers take, and how much of each image's are also another's."""
        sizes = {layer.diff_id: layer.size for layer in self.content.index.layers()}
        records = self.content.index.records().values()
        owners = Counter(diff_id for record in records for diff_id in set(record.layers))
        shared = {
            record.id: sum(sizes.get(diff_id, 0) for diff_id in record.layers if owners[diff_id] > 1)
            for record in records
        }
        return ImagesUsage(layers_bytes=sum(sizes.values()), shared_bytes=shared)

    def history(self, reference: str) -> tuple[HistoryStep, ...]:
        """Return how an image was made, newest step first."""
        record = self._find(reference)
        sizes = {layer.diff_id: layer.size for layer in self.content.index.layers()}
        return history_of(self.content.index.config(record.id), sizes)

    def _remove(self, reference: str, force: bool) -> tuple[tuple[tuple[str, str], ...], int]:
        record = self._find(reference)
        by_name = self._find_name(reference) == record.id
        done: list[tuple[str, str]] = []
        if by_name:
            parsed = parse_reference(reference)
            name = f"{parsed.name}@{parsed.digest}" if parsed.digest else parsed.with_default_tag().canonical
            others = [tag for tag in record.tags if tag != name]
            if others or (parsed.digest and record.tags):
                self.content.index.remove_name(name)
                return (("Untagged", parse_reference(name).familiar),), 0
        elif len(record.tags) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {short_digest(record.id)} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        self._refuse_if_used(reference, record, force)
        done += [("Untagged", parse_reference(name).familiar) for name in (*record.tags, *record.digests)]
        self.content.index.remove_image(record.id)
        gone = self.content.collect()
        freed_bytes = sum(layer.size for layer in gone)
        return (*done, ("Deleted", record.id), *(("Deleted", layer.diff_id) for layer in reversed(gone))), freed_bytes

    def _refuse_if_used(self, reference: str, record: ImageRecord, force: bool) -> None:
        for container, running in self._containers_using(record.id):
            if running:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{reference}" (cannot be forced) - '
                    f"container {container[:12]} is using its referenced image {short_digest(record.id)}"
                )
            if not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{reference}" (must force) - '
                    f"container {container[:12]} is using its referenced image {short_digest(record.id)}"
                )
            raise Conflict(
                f"conflict: unable to delete {short_digest(record.id)} (cannot be forced) - its layers are those of "
                f"container {container[:12]}; remove that container first"
            )
        for lease in self._lease.parent.glob("*.json"):
            if lease != self._lease and record.id in json.loads(lease.read_bytes()):
                raise Conflict(
                    f"conflict: unable to delete {short_digest(record.id)} (cannot be forced) - another daemon that "
                    "shares this image root uses it"
                )

    def write_lease(self, image_ids: frozenset[str]) -> None:
        """Say which images this daemon's containers use; blocks."""
        if image_ids:
            write_atomically(self._lease, json.dumps(sorted(image_ids)).encode())
        else:
            self._lease.unlink(missing_ok=True)

    async def pull(
        self, reference: str, credentials: RegistryCredentials | None = None, platform: str = ""
    ) -> AsyncIterator[PullProgress]:
        """Pull an image by skopeo; the last steps say the digest and the status."""
        target = parse_reference(reference).with_default_tag()
        wanted = parse_platform(platform) if platform else platform_of(self._machine)
        client = remote.Skopeo(self.content.temporary, self._insecure_registries)
        with _without_asking(f"pull {target.familiar}", credentials):
            top = await client.manifest(target, credentials)
        chosen_digest, manifest = await client.manifest_for(target, top, wanted, credentials)
        yield PullProgress(status=f"Pulling from {target.path}", id=target.tag or target.digest)
        before = self._find_name(reference)
        image_id = await self._known_image(chosen_digest)
        if image_id is None:
            async with self._whole_or_nothing():
                with self.content.holding_blobs():
                    async for step in client.fetch(target, chosen_digest, manifest, self.content, credentials):
                        yield step
                    async for step in self._unpack(manifest):
                        yield step
            image_id = parse_manifest(manifest).config.digest
        name = f"{target.name}@{target.digest or top.digest}"

        def enter(image_id: str = image_id) -> None:
            self.content.index.set_digest(name, image_id)
            if target.tag and not target.digest:
                canonical = Reference(registry=target.registry, path=target.path, tag=target.tag).canonical
                self.content.index.set_tag(canonical, image_id, self._clock.now_ns())

        await self._write(enter)
        self._events.tell_of_image("pull", image_id, target.familiar)
        # as Docker judges: a name that is new or stands for something else is news, though the content be known
        fresh = image_id != before
        yield PullProgress(status=f"Digest: {target.digest or top.digest}")
        outcome = "Downloaded newer image for" if fresh else "Image is up to date for"
        yield PullProgress(status=f"Status: {outcome} {target.familiar}")

    async def _unpack(self, manifest: bytes) -> AsyncIterator[PullProgress]:
        """Enter an image whose blobs are there; yields what becomes of its layers."""
        loop = asyncio.get_running_loop()
        steps: asyncio.Queue[PullProgress | None] = asyncio.Queue()

        def tell(layer: Blob, is_done: bool) -> None:
            status = "Pull complete" if is_done else "Extracting"
            step = PullProgress(
                status=status, id=short_digest(layer.digest), current_bytes=layer.size, total_bytes=layer.size
            )
            loop.call_soon_threadsafe(steps.put_nowait, step)

        work = asyncio.create_task(self._write(lambda: self.content.add_image(manifest, tell)))
        work.add_done_callback(lambda _: steps.put_nowait(None))
        while (step := await steps.get()) is not None:
            yield step
        work.result()

    async def _known_image(self, manifest_digest: str) -> str | None:
        index = self.content.index
        return next((key for key in index.records() if index.manifest_digest(key) == manifest_digest), None)

    async def inspect_remote(
        self, reference: str, credentials: RegistryCredentials | None = None, timeout_seconds: float = 1.0
    ) -> RemoteManifest:
        """Ask a registry what a reference stands for (`GET /distribution/{name}/json`).

        Raises Unavailable if it does not answer within `timeout_seconds`, NotFound, Unauthenticated.
        """
        client = remote.Skopeo(self.content.temporary, self._insecure_registries)
        found = await client.inspect(parse_reference(reference).with_default_tag(), credentials, timeout_seconds)
        return RemoteManifest(
            digest=found.digest,
            media_type=found.media_type,
            size_bytes=found.size,
            platforms=tuple(
                RemotePlatform(architecture=platform.architecture, os=platform.os, variant=platform.variant)
                for platform in found.platforms
            ),
        )

    async def push(self, reference: str, credentials: RegistryCredentials | None = None) -> AsyncIterator[PullProgress]:
        """Send an image to the registry of its name; the last step says the digest."""
        target = parse_reference(reference).with_default_tag()
        image_id = self._find_name(target.canonical)
        if image_id is None or target.digest:
            raise NotFound(f"An image does not exist locally with the tag: {target.familiar_name}")
        manifest = self.content.read_blob(self.content.index.manifest_digest(image_id))
        layers = parse_manifest(manifest).layers
        yield PullProgress(status=f"The push refers to repository [{target.name}]")
        for layer in layers:
            yield PullProgress(status="Preparing", id=short_digest(layer.digest))
        client = remote.Skopeo(self.content.temporary, self._insecure_registries)
        with _without_asking(f"push {target.familiar}", credentials):
            await client.push(target, manifest, self.content, credentials)
        for layer in layers:
            yield PullProgress(status="Pushed", id=short_digest(layer.digest))
        digest = sha256(manifest)
        await self._write(lambda: self.content.index.set_digest(f"{target.name}@{digest}", image_id))
        self._events.tell_of_image("push", image_id, target.familiar)
        yield PullProgress(status=f"{target.tag}: digest: {digest} size: {len(manifest)}")

    async def remote_tags(self, name: str, credentials: RegistryCredentials | None = None) -> tuple[str, ...]:
        """Return all tags that a registry has of a name. Raises NotFound, Unauthenticated, Unavailable."""
        client = remote.Skopeo(self.content.temporary, self._insecure_registries)
        with _without_asking(f"list tags of {name}", credentials):
            return await client.tags(parse_reference(name), credentials)

    async def check_login(self, registry: str, credentials: RegistryCredentials) -> None:
        """Ask a registry whether it takes credentials. Raises Unauthenticated, Unavailable."""
        await remote.Skopeo(self.content.temporary, self._insecure_registries).check_login(registry, credentials)

    async def _write(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, alone among all daemons that share the root."""
        async with self._writing:
            return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[], T]) -> T:
        # removal must not take blobs away from under an image about to be entered
        descriptor = self._open_lock()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return work()
        finally:
            os.close(descriptor)

    def _open_lock(self) -> int:
        return os.open(self.content.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @asynccontextmanager
    async def _scratch(self) -> AsyncIterator[Path]:
        with self.content.scratch() as directory:
            yield directory

    @asynccontextmanager
    async def _whole_or_nothing(self) -> AsyncIterator[None]:
        """Take away what a failure left half-done, and say of a full disk that it is one. Raises ShoalError."""
        try:
            yield
        except BaseException as error:
            with contextlib.suppress(OSError, sqlite3.Error):
                await asyncio.shield(self._write(self.content.collect))
            reason = ""
            if isinstance(error, OSError) and error.errno in DISK_ERRORS:
                reason = error.strerror or ""
            elif isinstance(error, sqlite3.OperationalError) and "full" in str(error):
                reason = str(error)
            if reason:
                raise ShoalError(
                    f"failed to register layer: write {self.content.root}: {reason[:1].lower()}{reason[1:]}: "
                    "make room on that filesystem and try again"
                ) from error
            raise


@contextlib.contextmanager
def _without_asking(action: str, credentials: RegistryCredentials | None) -> Iterator[None]:
    """Turn a 401 into another failure where no credentials were sent: clients would ask for a password."""
    try:
        yield
    except Unauthenticated:
        if credentials is None:
            raise ShoalError(f"{action}: no basic auth credentials: use docker login") from None
        raise


async def receive(stream: AsyncIterator[bytes], path: Path) -> str:
    """Write a stream into a file; return the digest of what came."""
    digest = hashlib.sha256()

    def write(file: BinaryIO, chunk: bytes) -> None:
        digest.update(chunk)
        file.write(chunk)

    with path.open("wb") as file:
        async for chunk in stream:
            await asyncio.to_thread(write, file, chunk)
    return f"sha256:{digest.hexdigest()}"


def _familiar(record: ImageRecord) -> ImageRecord:
    return replace(
        record,
        tags=tuple(parse_reference(name).familiar for name in record.tags),
        digests=tuple(parse_reference(name).familiar for name in record.digests),
    )


def _shown(reference: str) -> str:
    try:
        parsed = parse_reference(reference)
    except InvalidArgument:
        return reference
    return reference if parsed.tag or parsed.digest else f"{reference}:{DEFAULT_TAG}"
