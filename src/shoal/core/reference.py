"""Names of images: `[registry/]path[:tag][@digest]`, read once and written in the familiar or the canonical form.

Knows nothing of registries or of the images of a node. The grammar is the one of Docker's references: a first part
with a dot, a colon or the word `localhost` is a registry, everything else lives on docker.io, and a single word there
is under `library/`.
"""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument
from shoal.model.base import Struct

DEFAULT_REGISTRY = "docker.io"
DEFAULT_TAG = "latest"
OFFICIAL_PREFIX = "library/"
MOST_NAME_CHARACTERS = 255

_PATH_PART = r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*"
_PATH = re.compile(rf"{_PATH_PART}(?:/{_PATH_PART})*")
_HOST_PART = r"(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])"
_HOST = re.compile(rf"(?:{_HOST_PART}(?:\.{_HOST_PART})*|\[(?:[a-fA-F0-9:]+)\])(?::[0-9]+)?")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_SHA256 = re.compile(r"sha256:[0-9a-f]{64}")
_IMAGE_ID = re.compile(r"[0-9a-f]{64}")


class Reference(Struct):
    """A parsed name. `tag` and `digest` are empty where the text had none; `registry` is never empty."""

    registry: str
    path: str
    tag: str = ""
    digest: str = ""

    @property
    def name(self) -> str:
        """Registry and path: `docker.io/library/busybox`."""
        return f"{self.registry}/{self.path}"

    @property
    def familiar_name(self) -> str:
        """The name as people write it: `busybox`, `user/app`, `localhost:5000/app`."""
        if self.registry != DEFAULT_REGISTRY:
            return self.name
        short = self.path.removeprefix(OFFICIAL_PREFIX)
        return short if "/" not in short else self.path

    @property
    def canonical(self) -> str:
        """The full name with tag and digest as far as known: `docker.io/library/busybox:latest`."""
        return self.name + self._suffix()

    @property
    def familiar(self) -> str:
        """The familiar name with tag and digest as far as known: `busybox:latest`."""
        return self.familiar_name + self._suffix()

    def _suffix(self) -> str:
        return (f":{self.tag}" if self.tag else "") + (f"@{self.digest}" if self.digest else "")

    def with_default_tag(self) -> Reference:
        """Return the same reference, with the tag `latest` if it has neither tag nor digest."""
        if self.tag or self.digest:
            return self
        return Reference(registry=self.registry, path=self.path, tag=DEFAULT_TAG)


def _invalid(text: str, reason: str = "") -> InvalidArgument:
    detail = f": {reason}" if reason else ""
    return InvalidArgument(
        f"invalid reference format{detail} (image {text!r})" if reason else "invalid reference format"
    )


def parse_reference(text: str) -> Reference:
    """Read an image name as Docker does.

    Args:
        text: `busybox`, `busybox:1.36`, `localhost:5000/app@sha256:…`.

    Raises:
        InvalidArgument: `invalid reference format`, with what is wrong where that is known.
    """
    rest, _, digest = text.partition("@")
    if "@" in text and not _DIGEST.fullmatch(digest):
        raise _invalid(text)
    if digest.startswith("sha256:") and not _SHA256.fullmatch(digest):
        raise InvalidArgument(
            "invalid checksum digest length" if len(digest) != 71 else "invalid checksum digest format"
        )
    if _IMAGE_ID.fullmatch(rest):
        raise InvalidArgument(f"invalid repository name ({rest}), cannot specify 64-byte hexadecimal strings")
    registry, path_and_tag = _split_registry(rest)
    path, colon, tag = path_and_tag.partition(":")
    if colon and not _TAG.fullmatch(tag):
        raise _invalid(text)
    if not _HOST.fullmatch(registry):
        raise _invalid(text)
    if registry == DEFAULT_REGISTRY and path and "/" not in path:
        path = OFFICIAL_PREFIX + path
    if not _PATH.fullmatch(path):
        if _PATH.fullmatch(path.lower()):
            raise InvalidArgument(f"invalid reference format: repository name ({path}) must be lowercase")
        raise _invalid(text)
    if len(registry) + 1 + len(path) > MOST_NAME_CHARACTERS:
        raise InvalidArgument(f"repository name must not be more than {MOST_NAME_CHARACTERS} characters")
    return Reference(registry=registry, path=path, tag=tag, digest=digest)


def is_image_reference(text: str) -> bool:
    """Tell whether `text` names an image in a registry; 64 hexadecimal digits are an id, not a name."""
    try:
        parse_reference(text)
    except InvalidArgument:
        return False
    return True


def _split_registry(text: str) -> tuple[str, str]:
    first, slash, rest = text.partition("/")
    is_registry = slash and ("." in first or ":" in first or first == "localhost" or first.lower() != first)
    if not is_registry:
        return DEFAULT_REGISTRY, text
    return (DEFAULT_REGISTRY if first == "index.docker.io" else first), rest
