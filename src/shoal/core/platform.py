"""What an image runs on: `linux/arm64/v8`. Pure."""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument
from shoal.model.base import Struct

# the kernel's names that are not Go's
_ARCHITECTURES = {
    "x86_64": "amd64", "aarch64": "arm64", "armv6l": "arm", "armv7l": "arm", "i386": "386", "i686": "386",
}  # fmt: skip
_PART = re.compile(r"[a-z0-9_.-]+")


class Platform(Struct):
    """What an image runs on, or is asked to; an empty part is any."""

    architecture: str = ""
    os: str = "linux"
    variant: str = ""

    @property
    def text(self) -> str:
        """`linux/arm64/v8`."""
        return "/".join(part for part in (self.os, self.architecture, self.variant) if part)

    def fits(self, other: Platform) -> bool:
        """Tell whether nothing of one platform is against another."""
        pairs = ((self.os, other.os), (self.architecture, other.architecture), (self.variant, other.variant))
        return all(ours == theirs or not ours or not theirs for ours, theirs in pairs)


def architecture_of(machine: str) -> str:
    """Return Go's name of an architecture, given the kernel's or Go's: `x86_64` → `amd64`."""
    return _ARCHITECTURES.get(machine, machine)


def platform_of(machine: str) -> Platform:
    """Return the platform of a machine, named as by the kernel (`x86_64`)."""
    return Platform(architecture=architecture_of(machine))


def parse_platform(text: str) -> Platform:
    """Read `os/architecture/variant`, or an architecture alone. Raises InvalidArgument."""
    parts = text.lower().split("/")
    if not 1 <= len(parts) <= 3 or not all(_PART.fullmatch(part) for part in parts):
        raise InvalidArgument(
            f'"{text}": cannot parse platform specifier: write os/architecture/variant, such as linux/amd64'
        )
    if len(parts) == 1:
        parts = ["linux", *parts]
    return Platform(os=parts[0], architecture=architecture_of(parts[1]), variant=(*parts, "")[2])
