"""The base of every struct, and how Python names become Docker's JSON names.

All structs are frozen, hold tuples instead of lists and are left out of garbage collection: with 100,000 tasks
in memory that is the difference between a pause of 1 ms and one as long as an election (architecture.md 4.1).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar, dataclass_transform

import msgspec

# Words that Docker's JSON writes in its own way; all others are capitalised.
_WORDS = {
    "acl": "ACL",
    "ca": "CA",
    "cas": "CAs",
    "cpus": "CPUs",
    "csi": "CSI",
    "dns": "DNS",
    "gid": "GID",
    "id": "ID",
    "ip": "IP",
    "ipam": "IPAM",
    "ips": "IPs",
    "ipv4": "IPv4",
    "ipv6": "IPv6",
    "os": "OS",
    "pid": "PID",
    "selinux": "SELinux",
    "tls": "TLS",
    "tty": "TTY",
    "uid": "UID",
    "url": "URL",
}


def docker_name(field: str) -> str:
    """Return the JSON name of a struct field: `nano_cpus` → `NanoCPUs`, `secret_id` → `SecretID`."""
    return "".join(_WORDS.get(word, word.capitalize()) for word in field.split("_"))


if TYPE_CHECKING:
    # msgspec's own typing does not carry `frozen` and `kw_only` to subclasses; this says the same to the type checker.
    @dataclass_transform(frozen_default=True, kw_only_default=True, field_specifiers=(msgspec.field,))
    class Struct:
        """A frozen value of the domain: objects, actions and messages."""

        def __init_subclass__(cls, *, tag: str | None = None, **keywords: object) -> None: ...

    class Spec(Struct):
        """A frozen value whose encoded form is Docker's JSON shape."""

else:

    class Struct(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True):
        """A frozen value of the domain: objects, actions and messages."""

    class Spec(msgspec.Struct, frozen=True, kw_only=True, gc=False, omit_defaults=True, rename=docker_name):
        """A frozen value whose encoded form is Docker's JSON shape: what a user writes and reads back."""


T = TypeVar("T", bound=Struct | Spec)


def replace(value: T, **changes: object) -> T:
    """Return a copy of `value` with the fields in `changes` set anew."""
    copy: T = msgspec.structs.replace(value, **changes)  # type: ignore[type-var]
    return copy
