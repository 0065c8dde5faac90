"""Listen, advertise and data-path addresses: what was asked for, and what the machine has (docker-swarm.md 1.2)."""

from __future__ import annotations

import fcntl
import ipaddress
import socket
import struct

from shoal.errors import InvalidArgument

DEFAULT_PORT = 2377
SIOCGIFADDR = 0x8915
# addresses to listen on that are no address to be reached at
EVERYWHERE = ("", "0.0.0.0", "::")  # noqa: S104


def split_address(text: str, default_port: int = DEFAULT_PORT) -> tuple[str, int]:
    """Split `host[:port]`, `[v6]:port` or an interface's name.

    Raises:
        InvalidArgument: empty, or a port that is none.
    """
    if not text:
        raise InvalidArgument("invalid empty address")
    host, separator, port = text.rpartition(":")
    bare_v6 = text.count(":") > 1 and not text.startswith("[")
    if not separator or bare_v6 or text.endswith("]"):
        return text.strip("[]"), default_port
    if not port.isdecimal() or int(port) > 65535:
        raise InvalidArgument(f'invalid port in "{text}": use 1 to 65535')
    return host.strip("[]"), int(port) or default_port


def resolve(text: str) -> str:
    """Return the address behind an address or the name of an interface.

    Raises:
        InvalidArgument: neither.
    """
    try:
        return str(ipaddress.ip_address(text))
    except ValueError:
        pass
    found = interface_address(text)
    if found is None:
        raise InvalidArgument(f'could not find an address of "{text}": give an IP address or an interface of this host')
    return found


def interface_address(name: str) -> str | None:
    """Return the IPv4 address of an interface, None if it is unknown or has none."""
    if len(name) > 15:
        return None
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            request = struct.pack("256s", name.encode())
            answer = fcntl.ioctl(probe.fileno(), SIOCGIFADDR, request)
        except OSError:
            return None
    return socket.inet_ntoa(answer[20:24])


def data_path_host(data_path_address: str, advertise_address: str) -> str:
    """Return the address that other nodes send the traffic of services to; empty: the one they see this node at.

    Args:
        data_path_address: what was asked for, empty if nothing was.
        advertise_address: host and port; one that listens everywhere and was told no address has 0.0.0.0 there.
    """
    host = data_path_address or split_address(advertise_address)[0]
    return "" if host in EVERYWHERE else host


def choose_advertise_address() -> str:
    """Return the one address of this host that others can reach it by.

    Raises:
        InvalidArgument: none or several, so a person must choose; the text is Docker's.
    """
    found: dict[str, str] = {}
    for _, name in socket.if_nameindex():
        address = None if _is_ours(name) else interface_address(name)
        if address is not None and not address.startswith("127."):
            found[name] = address
    if not found:
        raise InvalidArgument("could not find the system's IP address")
    if len(found) > 1:
        listed = " and ".join(f"{address} on {name}" for name, address in list(found.items())[:2])
        raise InvalidArgument(
            "could not choose an IP address to advertise since this system has multiple addresses "
            f"on different interfaces ({listed})"
        )
    return next(iter(found.values()))


def _is_ours(name: str) -> bool:
    """Whether an interface is one of the data plane's own."""
    return name.startswith(("ingh-", "gwb-", "docker", "br-", "veth", "v"))
