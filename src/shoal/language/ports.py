"""`--publish`: `8080:80/tcp` with ranges, or `published=8080,target=80,protocol=tcp,mode=host`."""

from __future__ import annotations

from typing import Any

from shoal.language.values import parse_fields

PROTOCOLS = ("tcp", "udp", "sctp")
MODES = ("ingress", "host")
HIGHEST_PORT = 65535
Port = dict[str, Any]


def parse_ports(text: str) -> tuple[Port, ...]:
    """Read one value of `--publish`; a range gives several ports.

    Raises:
        ValueError: not of either form; the message names the part.
    """
    return (_parse_long(text),) if "=" in text else _parse_short(text)


def _parse_long(text: str) -> Port:
    port: Port = {"Protocol": "tcp", "PublishMode": "ingress"}
    for field in parse_fields(text):
        key, found, value = field.partition("=")
        key, value = key.strip().lower(), value.strip()
        if not found:
            raise ValueError(f"invalid field: {field}")
        if key == "protocol":
            if value.lower() not in PROTOCOLS:
                raise ValueError(f"invalid protocol value '{value}'")
            port["Protocol"] = value.lower()
        elif key == "mode":
            if value.lower() not in MODES:
                raise ValueError(f"invalid publish mode value ({value}): must be either ingress or host")
            port["PublishMode"] = value.lower()
        elif key == "target":
            port["TargetPort"] = _number(value, "target")
        elif key == "published":
            port["PublishedPort"] = _number(value, "published")
        else:
            raise ValueError(f"invalid field key {key}")
    if "TargetPort" not in port:
        raise ValueError("missing mandatory field 'target'")
    return port


def _number(text: str, field: str) -> int:
    if not text.isdecimal() or int(text) > HIGHEST_PORT:
        raise ValueError(f"invalid {field} port ({text}): value must be an integer from 0 to {HIGHEST_PORT}")
    return int(text)


def _parse_short(text: str) -> tuple[Port, ...]:
    ports, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in PROTOCOLS:
        raise ValueError(f"invalid proto: {protocol}")
    published_text, found, target_text = ports.rpartition(":")
    if ":" in published_text:
        raise ValueError("hostip is not supported: a port of a service is published on every node")
    targets = _range(target_text)
    if not found or not published_text:
        return tuple(_port(protocol, target, None) for target in targets)
    published = _range(published_text)
    if len(published) == len(targets):
        return tuple(_port(protocol, target, number) for target, number in zip(targets, published, strict=True))
    raise ValueError(f"invalid ranges specified for container and host Ports: {target_text} and {published_text}")


def _port(protocol: str, target: int, published: int | None) -> Port:
    port: Port = {"Protocol": protocol, "TargetPort": target, "PublishMode": "ingress"}
    if published is not None:
        port["PublishedPort"] = published
    return port


def _range(text: str) -> range:
    first_text, _, last_text = text.partition("-")
    try:
        first = int(first_text)
        last = int(last_text) if last_text else first
    except ValueError:
        raise ValueError(f"invalid port: {text}") from None
    if not 0 < first <= last <= HIGHEST_PORT:
        raise ValueError(f"invalid port: {text}; use 1 to {HIGHEST_PORT}")
    return range(first, last + 1)


def parse_port_match(text: str) -> Port:
    """Read a value of `--publish-rm`: a target port, with protocol, or in long form. Raises ValueError."""
    found = parse_ports(text)
    if len(found) != 1 or ("=" not in text and ":" in text):
        raise ValueError(f"invalid port format: '{text}': write the target port only, such as 80 or 80/udp")
    return found[0]


def is_same_port(port: Port, match: Port) -> bool:
    """Whether a published port is the one that `--publish-rm` names: target, protocol and mode."""
    return bool(
        port.get("TargetPort") == match["TargetPort"]
        and (port.get("Protocol") or "tcp") == match["Protocol"]
        and (port.get("PublishMode") or "ingress") == match["PublishMode"]
    )
