"""Published ports: dynamic ones get a number from 30000 to 32767, and keep it over updates (docker-swarm.md 4.11)."""

from __future__ import annotations

from collections.abc import Callable

from shoal.model.base import replace
from shoal.model.specs import PortConfig

DYNAMIC_FIRST = 30_000
DYNAMIC_LAST = 32_767


def complete(port: PortConfig) -> PortConfig:
    """Fill in the protocol and the mode of a port."""
    return replace(port, protocol=port.protocol or "tcp", publish_mode=port.publish_mode or "ingress")


def allocate_ports(
    asked: tuple[PortConfig, ...], given: tuple[PortConfig, ...], is_used: Callable[[str, int], bool]
) -> tuple[PortConfig, ...] | None:
    """Return the ports of a service with every number settled, None if the dynamic range is exhausted.

    Args:
        asked: what the spec says; ports of mode `host` without a number stay so (their node chooses).
        given: what the service has now: a dynamic port keeps its number.
        is_used: whether another service has (protocol, number).
    """
    settled: list[PortConfig] = []
    kept = {(p.name, p.protocol, p.target_port, p.publish_mode): p.published_port for p in given}
    taken: set[tuple[str, int]] = {(p.protocol or "tcp", p.published_port) for p in asked if p.published_port}
    for port in map(complete, asked):
        if port.published_port or port.publish_mode == "host":
            settled.append(port)
            continue
        number = kept.get((port.name, port.protocol, port.target_port, port.publish_mode), 0)
        if not DYNAMIC_FIRST <= number <= DYNAMIC_LAST or (port.protocol, number) in taken:
            free = (
                candidate
                for candidate in range(DYNAMIC_FIRST, DYNAMIC_LAST + 1)
                if (port.protocol, candidate) not in taken and not is_used(port.protocol, candidate)
            )
            found = next(free, None)
            if found is None:
                return None
            number = found
        taken.add((port.protocol, number))
        settled.append(replace(port, published_port=number))
    return tuple(settled)
