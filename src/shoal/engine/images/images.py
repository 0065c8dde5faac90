"""The images of a node, as `engine/protocol.py` says. Blocking work runs in threads; one writer at a time."""

from __future__ import annotations

import asyncio
import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import BinaryIO, TypeVar

from shoal.core.reference import DEFAULT_TAG, Reference, parse_reference
from shoal.engine.images import archive, remote
from shoal.engine.images.content import Content
from shoal.engine.images.formats import Blob, apply_changes, make_config, make_manifest
from shoal.engine.images.unpack import digest_of_content
from shoal.engine.protocol import PullProgress, RegistryCredentials
from shoal.errors import Conflict, InvalidArgument, NotFound
from shoal.lib.clock import Clock
from shoal.lib.files import write_atomically
from shoal.model.base import replace
from shoal.model.container import ImageRecord, RemoteManifest, RemotePlatform

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
        insecure_registries: registries that speak plain HTTP besides those on loopback.
    """

    def __init__(
        self,
        root: Path,
        daemon_id: str,
        machine: str,
        clock: Clock,
        containers_using: Callable[[str], tuple[tuple[str, bool], ...]],
        insecure_registries: tuple[str, ...] = (),
    ) -> None:
        self.content = Content(root)
        self._lease = root / "leases" / f"{daemon_id}.json"
        self._machine = machine
        self._clock = clock
        self._containers_using = containers_using
        self._insecure_registries = insecure_registries
        self._writing = asyncio.Lock()

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
        if hexadecimal and set(hexadecimal) <= _HEX:
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
        with self.content.scratch() as directory:
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
        return self.get(image_id)

    async def load(self, archive_stream: AsyncIterator[bytes]) -> tuple[str, ...]:
        """Load a `docker save` or OCI archive; returns the references or ids loaded."""
        with self.content.scratch() as directory:
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

            return await self._write(enter)

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

    async def remove(self, reference: str, force: bool = False) -> tuple[tuple[str, str], ...]:
        """Untag, and delete when no name is left."""
        return await self._write(lambda: self._remove(reference, force))

    def _remove(self, reference: str, force: bool) -> tuple[tuple[str, str], ...]:
        record = self._find(reference)
        by_name = self._find_name(reference) == record.id
        done: list[tuple[str, str]] = []
        if by_name:
            parsed = parse_reference(reference)
            name = f"{parsed.name}@{parsed.digest}" if parsed.digest else parsed.with_default_tag().canonical
            others = [tag for tag in record.tags if tag != name]
            if others or (parsed.digest and record.tags):
                self.content.index.remove_name(name)
                return (("Untagged", parse_reference(name).familiar),)
        elif len(record.tags) > 1 and not force:
            raise Conflict(
                f"conflict: unable to delete {_short_id(record.id)} (must be forced) - "
                "image is referenced in multiple repositories"
            )
        self._refuse_if_used(reference, record, force)
        done += [("Untagged", parse_reference(name).familiar) for name in (*record.tags, *record.digests)]
        self.content.index.remove_image(record.id)
        gone = self.content.collect()
        return (*done, ("Deleted", record.id), *(("Deleted", layer) for layer in reversed(gone)))

    def _refuse_if_used(self, reference: str, record: ImageRecord, force: bool) -> None:
        for container, running in self._containers_using(record.id):
            if running:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{reference}" (cannot be forced) - '
                    f"container {container[:12]} is using its referenced image {_short_id(record.id)}"
                )
            if not force:
                raise Conflict(
                    f'conflict: unable to remove repository reference "{reference}" (must force) - '
                    f"container {container[:12]} is using its referenced image {_short_id(record.id)}"
                )
            raise Conflict(
                f"conflict: unable to delete {_short_id(record.id)} (cannot be forced) - its layers are those of "
                f"container {container[:12]}; remove that container first"
            )
        for lease in self._lease.parent.glob("*.json"):
            if lease != self._lease and record.id in json.loads(lease.read_bytes()):
                raise Conflict(
                    f"conflict: unable to delete {_short_id(record.id)} (cannot be forced) - another daemon that "
                    "shares this image root uses it"
                )

    def write_lease(self, image_ids: frozenset[str]) -> None:
        """Say which images this daemon's containers use; blocks."""
        if image_ids:
            write_atomically(self._lease, json.dumps(sorted(image_ids)).encode())
        else:
            self._lease.unlink(missing_ok=True)

    async def pull(self, reference: str, credentials: RegistryCredentials | None = None) -> AsyncIterator[PullProgress]:
        """Pull an image by skopeo; the last steps say the digest and the status."""
        target = parse_reference(reference).with_default_tag()
        client = remote.Skopeo(self.content.temporary, self._insecure_registries)
        yield PullProgress(status=f"Pulling from {_repository(target)}", id=target.tag or target.digest)
        top = await client.manifest(target, credentials)
        chosen_digest, manifest = await client.manifest_for(target, top, self._machine, credentials)
        before = self._find_name(reference)
        image_id = await self._known_image(chosen_digest)
        if image_id is None:
            with self.content.holding_blobs():
                async for step in client.fetch(target, chosen_digest, manifest, self.content, credentials):
                    yield step
                image_id = await self._write(lambda: self.content.add_image(manifest))
        name = f"{target.name}@{target.digest or top.digest}"

        def enter(image_id: str = image_id) -> None:
            self.content.index.set_digest(name, image_id)
            if target.tag and not target.digest:
                canonical = Reference(registry=target.registry, path=target.path, tag=target.tag).canonical
                self.content.index.set_tag(canonical, image_id, self._clock.now_ns())

        await self._write(enter)
        # as Docker judges: a name that is new or stands for something else is news, though the content be known
        fresh = image_id != before
        yield PullProgress(status=f"Digest: {target.digest or top.digest}")
        outcome = "Downloaded newer image for" if fresh else "Image is up to date for"
        yield PullProgress(status=f"Status: {outcome} {target.familiar}")

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

    async def _write(self, work: Callable[[], T]) -> T:
        """Run `work` in a thread, alone among all daemons that share the root."""
        async with self._writing:
            return await asyncio.to_thread(self._locked, work)

    def _locked(self, work: Callable[[], T]) -> T:
        # removal must not take blobs away from under an image about to be entered
        descriptor = os.open(self.content.root / "lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            return work()
        finally:
            os.close(descriptor)


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


def _short_id(image_id: str) -> str:
    return image_id.removeprefix("sha256:")[:12]


def _repository(reference: Reference) -> str:
    return reference.path
