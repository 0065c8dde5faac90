"""What is said between the daemon and the resolver: four bytes of length (big endian), then a message in msgpack.

Every request gets one answer, in order. Also the shapes of what the resolver keeps on disk.
"""

from __future__ import annotations

import hashlib
import os
import struct
from pathlib import Path

import msgspec

from shoal import __version__
from shoal.model.base import Struct
from shoal.model.container import RESOLVER_ADDRESS
from shoal.model.netstate import OverlayUpdate

# raised when a daemon of one version must not talk to a resolver of another
PROTOCOL = 1
MOST_FRAME_BYTES = 256 << 20
SOCKET_FILE, LOCK_FILE, LOG_FILE, STATE_DIRECTORY = "resolver.sock", "resolver.lock", "resolver.log", "resolver"
LISTEN_ADDRESS, LISTEN_PORT = RESOLVER_ADDRESS, 53
_LENGTH = struct.Struct(">I")
HEADER_BYTES = _LENGTH.size


class ServedContainer(Struct):
    """A container whose questions are answered.

    `namespace`: the file its network namespace is bound to. `network_ids`: its overlay networks, in order.
    `name_servers`: asked, from within the namespace, for names that no network knows; empty: the host's are, from the
    host's namespace, unless `asks_host` is off (a container without a way out must not get one this way).
    """

    task_id: str
    namespace: str
    network_ids: tuple[str, ...] = ()
    name_servers: tuple[str, ...] = ()
    asks_host: bool = True


class ContainerRecord(Struct):
    """A container with the ports its sockets are bound to: a next resolver takes the same ones."""

    container: ServedContainer
    udp_port: int
    tcp_port: int


class Look(Struct, tag="look"):
    """Ask who answers and what it serves."""


class UpdateNetwork(Struct, tag="update-network"):
    """Take a change of a network."""

    update: OverlayUpdate


class RemoveNetwork(Struct, tag="remove-network"):
    """Forget a network."""

    network_id: str


class AddContainer(Struct, tag="add-container"):
    """Serve a container, or serve it otherwise."""

    container: ServedContainer


class RemoveContainer(Struct, tag="remove-container"):
    """Serve a container no more."""

    task_id: str


class Stop(Struct, tag="stop"):
    """End. Rules and records stay for the next resolver, unless it `forgets` them.

    Of all messages this one, and the frames, must stay as they are: a resolver of another version is sent away with it.
    """

    forgets: bool = False


Request = Look | UpdateNetwork | RemoveNetwork | AddContainer | RemoveContainer | Stop


class Answer(Struct):
    """The answer to every request: `error` is empty when it was done. The rest is filled for `Look`."""

    error: str = ""
    identity: str = ""
    pid: int = 0
    network_ids: tuple[str, ...] = ()
    containers: tuple[ServedContainer, ...] = ()


def identity(host_resolver_file: str) -> str:
    """Return what must be alike for a daemon to keep a resolver: code, namespaces of mounts and network, settings."""
    facts = [__version__, str(PROTOCOL), host_resolver_file]
    facts += [os.readlink(f"/proc/thread-self/ns/{kind}") for kind in ("mnt", "net")]  # noqa: PTH115
    facts += [_hash_of_source()]
    return " ".join(facts)


def _hash_of_source() -> str:
    """Return a hash of this package: another build of the same version is another resolver."""
    content = b"".join(path.read_bytes() for path in sorted(Path(__file__).parent.glob("*.py")))
    return hashlib.sha256(content).hexdigest()[:12]


def encode(value: Struct) -> bytes:
    """Return the frame of a request or answer."""
    body = msgspec.msgpack.encode(value)
    return _LENGTH.pack(len(body)) + body


def body_length(header: bytes) -> int:
    """Return how many bytes follow a header. Raises ValueError above `MOST_FRAME_BYTES`."""
    length: int = _LENGTH.unpack(header)[0]
    if length > MOST_FRAME_BYTES:
        raise ValueError(f"a frame of {length} bytes is above the bound of {MOST_FRAME_BYTES}")
    return length


def decode_request(body: bytes) -> Request:
    """Raises msgspec.MsgspecError on what is no request."""
    request: Request = msgspec.msgpack.decode(body, type=Request)
    return request


def decode_answer(body: bytes) -> Answer:
    """Raises msgspec.MsgspecError on what is no answer."""
    return msgspec.msgpack.decode(body, type=Answer)
