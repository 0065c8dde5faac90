"""Registries, asked through skopeo: manifests, pulls, and skopeo's words turned into our errors.

Credentials go by a file (0600) in a directory of the call, never by argument. Every call has a bound of time.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import ipaddress
import json
import secrets
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

from shoal.core.platform import Platform
from shoal.core.reference import DEFAULT_REGISTRY, Reference
from shoal.engine.images.content import Content
from shoal.engine.images.formats import (
    OCI_MANIFEST,
    Blob,
    PlatformManifest,
    choose_platform,
    is_index,
    media_type_of,
    parse_index,
    parse_json,
    parse_manifest,
    sha256,
    short_digest,
)
from shoal.engine.images.unpack import digest_of_file
from shoal.engine.protocol import PullProgress, RegistryCredentials
from shoal.errors import InvalidArgument, NotFound, ShoalError, Unauthenticated, Unavailable
from shoal.model.base import Struct

MANIFEST_SECONDS = 60.0
PULL_SECONDS = 1800.0
# between two looks at how far a pull is
LOOK_SECONDS = 0.2
_KILL_SECONDS = 5.0


class FoundManifest(Struct):
    """What a registry has under a name; `platforms` is empty where the manifest does not say."""

    digest: str
    media_type: str
    size: int
    content: bytes = b""
    platforms: tuple[PlatformManifest, ...] = ()


class Skopeo:
    """Runs skopeo; `scratch` is where calls keep their files, `insecure_registries` speak plain HTTP."""

    def __init__(self, scratch: Path, insecure_registries: tuple[str, ...] = ()) -> None:
        self._scratch = scratch
        self._insecure_registries = insecure_registries

    async def manifest(
        self, reference: Reference, credentials: RegistryCredentials | None, timeout_seconds: float = MANIFEST_SECONDS
    ) -> FoundManifest:
        """Return the manifest or index of a reference, byte for byte. Raises NotFound, Unauthenticated, Unavailable."""
        content = await self._inspect(reference, credentials, timeout_seconds)
        digest = sha256(content)
        if reference.digest and reference.digest != digest:
            raise ShoalError(f"the registry's manifest for {reference.familiar} has digest {digest}")
        document = parse_json(content, "manifest")
        platforms = parse_index(content) if is_index(content) else ()
        return FoundManifest(
            digest=digest, media_type=media_type_of(document), size=len(content), content=content, platforms=platforms
        )

    async def inspect(
        self, reference: Reference, credentials: RegistryCredentials | None, timeout_seconds: float
    ) -> FoundManifest:
        """Return the manifest with its platforms; a single image's stand in its config."""
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_seconds
        found = await self.manifest(reference, credentials, timeout_seconds)
        if found.platforms or not found.content:
            return found
        with contextlib.suppress(ShoalError):
            left = max(deadline - loop.time(), 0.2)
            config = parse_json(await self._inspect(reference, credentials, left, "--config"), "image config")
            platform = PlatformManifest(
                blob=parse_manifest(found.content).config,
                architecture=str(config.get("architecture", "")),
                os=str(config.get("os", "")),
                variant=str(config.get("variant", "")),
            )
            return FoundManifest(
                digest=found.digest,
                media_type=found.media_type,
                size=found.size,
                content=found.content,
                platforms=(platform,),
            )
        return found

    async def manifest_for(
        self, reference: Reference, top: FoundManifest, platform: Platform, credentials: RegistryCredentials | None
    ) -> tuple[str, bytes]:
        """Return digest and content of the image manifest for a platform. Raises NotFound: there is none."""
        if not is_index(top.content):
            return top.digest, top.content
        chosen = choose_platform(top.platforms, platform)
        if chosen is None:
            raise NotFound(f"no matching manifest for {platform.text} in the manifest list entries")
        pinned = Reference(registry=reference.registry, path=reference.path, digest=chosen.blob.digest)
        found = await self.manifest(pinned, credentials)
        return found.digest, found.content

    async def fetch(
        self,
        reference: Reference,
        digest: str,
        manifest: bytes,
        content: Content,
        credentials: RegistryCredentials | None,
    ) -> AsyncIterator[PullProgress]:
        """Bring the blobs of an image manifest into `content`; yields its layers as they stand."""
        parsed = parse_manifest(manifest)
        layers = parsed.layers
        known = {layer.digest for layer in layers if content.blob_path(layer.digest).exists()}
        for layer in layers:
            status = "Already exists" if layer.digest in known else "Pulling fs layer"
            yield PullProgress(status=status, id=short_digest(layer.digest))
        missing = [layer for layer in layers if layer.digest not in known]
        pinned = Reference(registry=reference.registry, path=reference.path, digest=digest)
        with content.scratch() as directory:
            # an OCI layout may share its blobs with all others, but holds OCI manifests only; the form `dir` holds any
            target = directory / "image"
            if parsed.media_type == OCI_MANIFEST:
                arguments = ["--dest-shared-blob-dir", str(content.blobs), self._source(pinned), f"oci:{target}:image"]
            else:
                arguments = [self._source(pinned), f"dir:{target}"]
            tls = [] if not self._is_plain(reference.registry) else ["--src-tls-verify=false"]
            command = ["copy", "--quiet", "--preserve-digests", *tls]
            with self._authentication(reference, credentials) as authentication:
                copy = self._run([*command, *authentication, *arguments], reference, PULL_SECONDS)
                async for step in _watched(asyncio.create_task(copy), target, content, missing):
                    yield step
            if parsed.media_type != OCI_MANIFEST:
                await asyncio.to_thread(
                    _take_blobs, content, target, [parsed.config.digest, *(b.digest for b in layers)]
                )
        for layer in missing:
            yield PullProgress(status="Download complete", id=short_digest(layer.digest))

    async def push(
        self, reference: Reference, manifest: bytes, content: Content, credentials: RegistryCredentials | None
    ) -> None:
        """Send an image to a registry, byte for byte. Raises Unauthenticated, Unavailable, ShoalError."""
        parsed = parse_manifest(manifest)
        tls = ["--dest-tls-verify=false"] if self._is_plain(reference.registry) else []
        with content.scratch() as directory:
            # the form `dir` holds any manifest; its blobs are named by their digests alone
            (directory / "version").write_text("Directory Transport Version: 1.1\n")
            (directory / "manifest.json").write_bytes(manifest)
            for blob in {parsed.config.digest, *(layer.digest for layer in parsed.layers)}:
                (directory / blob.removeprefix("sha256:")).symlink_to(content.blob_path(blob))
            with self._authentication(reference, credentials) as authentication:
                words = ["copy", "--quiet", "--preserve-digests", *tls, *authentication]
                await self._run(
                    [*words, f"dir:{directory}", self._source(reference)], reference, PULL_SECONDS, action="push"
                )

    async def tags(self, reference: Reference, credentials: RegistryCredentials | None) -> tuple[str, ...]:
        """Return all tags of a name. Raises NotFound, Unauthenticated, Unavailable."""
        tls = ["--tls-verify=false"] if self._is_plain(reference.registry) else []
        with self._authentication(reference, credentials) as authentication:
            words = ["list-tags", *tls, *authentication, f"docker://{reference.name}"]
            document = parse_json(await self._run(words, reference, MANIFEST_SECONDS), "list of tags")
        return tuple(str(tag) for tag in document.get("Tags") or ())

    async def check_login(self, registry: str, credentials: RegistryCredentials) -> None:
        """Ask a registry whether it takes credentials. Raises Unauthenticated, Unavailable."""
        tls = ["--tls-verify=false"] if self._is_plain(registry) else []
        reference = Reference(registry=registry, path="")
        with self._authentication(reference, None) as authentication:
            words = ["login", *tls, *authentication, "--username", credentials.username, "--password-stdin", registry]
            try:
                await self._run(words, reference, MANIFEST_SECONDS, credentials.password.encode())
            except Unauthenticated:
                scheme = "http" if tls else "https"
                raise Unauthenticated(
                    f"login attempt to {scheme}://{registry}/v2/ failed with status: 401 Unauthorized"
                ) from None

    async def _inspect(
        self, reference: Reference, credentials: RegistryCredentials | None, timeout_seconds: float, *options: str
    ) -> bytes:
        tls = ["--tls-verify=false"] if self._is_plain(reference.registry) else []
        with self._authentication(reference, credentials) as authentication:
            command = ["inspect", "--raw", *options, *tls, *authentication, self._source(reference)]
            return await self._run(command, reference, timeout_seconds)

    @staticmethod
    def _source(reference: Reference) -> str:
        # skopeo takes a tag or a digest, never both
        suffix = f"@{reference.digest}" if reference.digest else f":{reference.tag}"
        return f"docker://{reference.name}{suffix}"

    def _is_plain(self, registry: str) -> bool:
        host = registry.rsplit(":", 1)[0].strip("[]") if ":" in registry else registry
        if registry in self._insecure_registries or host in self._insecure_registries or host == "localhost":
            return True
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        if address.is_loopback:
            return True
        networks = [entry for entry in self._insecure_registries if "/" in entry]
        return any(address in ipaddress.ip_network(network, strict=False) for network in networks)

    @contextlib.contextmanager
    def _authentication(self, reference: Reference, credentials: RegistryCredentials | None) -> Iterator[list[str]]:
        directory = self._scratch / secrets.token_hex(6)
        directory.mkdir(mode=0o700)
        try:
            entry: dict[str, str] = {}
            if credentials is not None and credentials.identity_token:
                entry = {"auth": _basic("<token>", ""), "identitytoken": credentials.identity_token}
            elif credentials is not None and credentials.username:
                entry = {"auth": _basic(credentials.username, credentials.password)}
            registry = reference.registry
            path = directory / "auth.json"
            path.touch(mode=0o600)
            path.write_text(json.dumps({"auths": {registry: entry} if entry else {}}))
            yield ["--authfile", str(path)]
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    async def _run(
        self,
        arguments: list[str],
        reference: Reference,
        timeout_seconds: float,
        input_bytes: bytes = b"",
        action: str = "pull",
    ) -> bytes:
        command = ["skopeo", "--insecure-policy", *arguments]
        try:
            process = await asyncio.create_subprocess_exec(
                *command,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.PIPE,
            )
        except FileNotFoundError:
            raise ShoalError("no skopeo program is installed on this node: install skopeo to pull images") from None
        try:
            async with asyncio.timeout(timeout_seconds):
                output, errors = await process.communicate(input_bytes)
        except TimeoutError:
            raise Unavailable(
                f"registry {reference.registry} did not answer within {timeout_seconds:g} seconds: "
                f'Get "https://{reference.registry}/v2/": context deadline exceeded'
            ) from None
        finally:
            if process.returncode is None:
                process.kill()
                async with asyncio.timeout(_KILL_SECONDS):
                    await process.wait()
        if process.returncode != 0:
            raise error_of(errors.decode("utf-8", "replace"), reference, action)
        return output


def _basic(username: str, password: str) -> str:
    return base64.b64encode(f"{username}:{password}".encode()).decode()


async def _watched(
    copy: asyncio.Task[bytes], directory: Path, content: Content, layers: list[Blob]
) -> AsyncIterator[PullProgress]:
    """Wait for a copy of layers into a directory; yields how far they are.

    skopeo does not say which of its temporary files is whose: they are taken to be in the order of the layers.
    """
    seen: dict[str, int] = {}
    try:
        while not copy.done():
            await asyncio.wait({copy}, timeout=LOOK_SECONDS)
            for layer, size in await asyncio.to_thread(_sizes, directory, content, layers):
                if size > seen.get(layer.digest, -1):
                    seen[layer.digest] = size
                    yield PullProgress(
                        status="Downloading", id=short_digest(layer.digest), current_bytes=size, total_bytes=layer.size
                    )
        copy.result()
    finally:
        if not copy.done():
            copy.cancel()
            await asyncio.wait({copy})


def _sizes(directory: Path, content: Content, layers: list[Blob]) -> list[tuple[Blob, int]]:
    """Return how much of each layer is there; those of which nothing is known are left out."""
    whole = [layer for layer in layers if _whole_file(directory, content, layer).exists()]
    with contextlib.suppress(FileNotFoundError):
        growing = sorted((file.stat() for file in directory.glob("*-put-blob*")), key=lambda stat: stat.st_ctime_ns)
        rest = [layer for layer in layers if layer not in whole]
        found = [(layer, min(stat.st_size, layer.size)) for layer, stat in zip(rest, growing, strict=False)]
        return [*((layer, layer.size) for layer in whole), *found]
    return [(layer, layer.size) for layer in whole]


def _whole_file(directory: Path, content: Content, layer: Blob) -> Path:
    file = directory / layer.digest.removeprefix("sha256:")
    return file if file.exists() else content.blob_path(layer.digest)


def _take_blobs(content: Content, directory: Path, digests: list[str]) -> None:
    for digest in digests:
        file = directory / digest.removeprefix("sha256:")
        if file.exists():
            if digest_of_file(file) != digest:
                raise InvalidArgument(f"the registry sent other content than {digest} names")
            content.take_blob(file, digest)


def error_of(text: str, reference: Reference, action: str) -> ShoalError:
    """Turn what skopeo says on failure of an action (`pull`, `push`) into an error with Docker's text."""
    low = text.lower()
    if "manifest unknown" in low or "manifest_unknown" in low or "not found: manifest" in low:
        return NotFound(f"manifest for {reference.familiar} not found: manifest unknown: manifest unknown")
    if "name unknown" in low or "name_unknown" in low or "repository name not known" in low:
        return NotFound(
            f"{action} access denied for {reference.familiar_name}, repository does not exist or may require "
            "'docker login'"
        )
    if "requested access to the resource is denied" in low or "denied" in low:
        return NotFound(
            f"{action} access denied for {reference.familiar_name}, repository does not exist or may require "
            "'docker login': denied: requested access to the resource is denied"
        )
    if "unauthorized" in low or "authentication required" in low or "invalid username/password" in low:
        registry = "registry-1.docker.io" if reference.registry == DEFAULT_REGISTRY else reference.registry
        return Unauthenticated(f'Head "https://{registry}/v2/": unauthorized: authentication required')
    reason = text.strip().splitlines()[-1] if text.strip() else "skopeo failed and said nothing"
    _, _, message = reason.partition("msg=")
    if message:
        with contextlib.suppress(ValueError):
            reason = str(json.loads(message))
    unreachable = (
        "dial tcp",
        "no such host",
        "connection refused",
        "i/o timeout",
        "connection reset",
        "server misbehaving",
    )
    if any(word in low for word in unreachable):
        return Unavailable(f"registry {reference.registry} cannot be reached: {reason}")
    if "no space left" in low:
        return ShoalError(f"failed to register layer: {reason}: make room on that filesystem and try again")
    if "digest did not match" in low:
        return ShoalError(f"filesystem layer verification failed: {reason}")
    return ShoalError(f"cannot {action} {reference.familiar}: {reason}")
