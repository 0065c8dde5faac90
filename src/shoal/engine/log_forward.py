"""Where the lines of a container go besides its log on disk: the drivers syslog and journald.

What the keeper is told is worked out here, when a run is prepared; names of hosts are looked up, so this blocks.
"""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from shoal.engine.log_options import log_details
from shoal.errors import InvalidArgument, NotBuilt, ShoalError
from shoal.language.golang_template import TemplateError, Values, render
from shoal.model.container import Container, ContainerConfig

SYSLOG_PORT = 514
LOCAL_SYSLOG = "/dev/log"
JOURNAL = "/run/systemd/journal/socket"
FACILITIES = (
    "kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp",
    "", "", "", "", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7",
)  # fmt: skip
FORMATS = ("", "rfc3164", "rfc5424", "rfc5424micro")
SEVERITIES = {"stdout": 6, "stderr": 3}
_FIELD = re.compile(r"[^A-Z0-9_]")


def check_forward(config: ContainerConfig) -> None:
    """Refuse options of syslog and journald that mean nothing. Raises InvalidArgument, NotBuilt."""
    if config.log_driver == "syslog":
        _facility(config.log_options.get("syslog-facility", ""))
        _where(config.log_options.get("syslog-address", ""))
        if config.log_options.get("syslog-format", "") not in FORMATS:
            raise InvalidArgument(f"Invalid syslog format: {config.log_options['syslog-format']}")
    if config.log_driver in ("syslog", "journald"):
        _tag(config, "0" * 64, "sha256:" + "0" * 64)


def forward_settings(container: Container) -> dict[str, Any] | None:
    """Return what the keeper is told of where lines go; None for the drivers that only write to disk.

    Raises:
        ShoalError: nobody listens there, or the host's name cannot be looked up.
    """
    config = container.config
    if config.log_driver not in ("syslog", "journald"):
        return None
    tag = _tag(config, container.id, container.image_id)
    if config.log_driver == "journald":
        _need_socket(JOURNAL, "journald is not enabled on this host")
        return {
            "kind": "journald", "family": "unix", "address": JOURNAL, "priority": SEVERITIES,
            "fields": _journal_fields(container, tag),
        }  # fmt: skip
    options = config.log_options
    facility = _facility(options.get("syslog-facility", ""))
    family, address = _resolved(*_where(options.get("syslog-address", "")))
    return {
        "kind": "syslog",
        "family": family,
        "address": address,
        "format": options.get("syslog-format", ""),
        "tag": tag,
        "hostname": socket.gethostname(),
        "priority": {stream: facility * 8 + severity for stream, severity in SEVERITIES.items()},
    }


def _journal_fields(container: Container, tag: str) -> dict[str, str]:
    config = container.config
    named = {
        "CONTAINER_ID": container.id[:12],
        "CONTAINER_ID_FULL": container.id,
        "CONTAINER_NAME": config.name,
        "CONTAINER_TAG": tag,
        "IMAGE_NAME": config.image,
        "SYSLOG_IDENTIFIER": tag,
    }
    asked = {_FIELD.sub("_", name.upper()): value for name, value in log_details(config).items()}
    return {**asked, **named}


def _tag(config: ContainerConfig, container_id: str, image_id: str) -> str:
    text = config.log_options.get("tag", "") or "{{.ID}}"
    image = image_id.removeprefix("sha256:")
    tree = {
        "ID": container_id[:12],
        "FullID": container_id,
        "Name": config.name,
        "ImageID": image[:12],
        "ImageFullID": image_id,
        "ImageName": config.image,
        "DaemonName": "docker",
    }
    try:
        return render(text, Values(tree))
    except TemplateError as error:
        raise InvalidArgument(f'log opt tag: invalid template "{text}": {error}') from None


def _facility(text: str) -> int:
    if not text:
        return FACILITIES.index("daemon")
    if text in FACILITIES:
        return FACILITIES.index(text)
    if text.isdecimal() and int(text) < len(FACILITIES):
        return int(text)
    raise InvalidArgument(f"invalid syslog facility: {text}: use a name such as daemon or local0, or 0 to 23")


def _where(address: str) -> tuple[str, str, int]:
    """Return scheme, path or host, and port. Raises InvalidArgument, NotBuilt."""
    if not address:
        return "unix", LOCAL_SYSLOG, 0
    parts = urlsplit(address)
    if parts.scheme in ("unix", "unixgram") and parts.path:
        return "unix", parts.path, 0
    if parts.scheme in ("tcp", "tcp+tls"):
        raise NotBuilt(f"syslog-address {address}: only udp:// and unixgram:// are built")
    try:
        port = parts.port or SYSLOG_PORT
    except ValueError:
        port = 0
    if parts.scheme != "udp" or not parts.hostname or not port:
        raise InvalidArgument(f"syslog-address should be in form proto://address, got {address}: use udp://HOST:PORT")
    return "udp", parts.hostname, port


def _resolved(scheme: str, place: str, port: int) -> tuple[str, str | list[Any]]:
    if scheme == "unix":
        _need_socket(place, f"dial unixgram {place}: no such socket")
        return "unix", place
    try:
        family, _, _, _, address = socket.getaddrinfo(place, port, type=socket.SOCK_DGRAM)[0]
    except OSError as error:
        raise ShoalError(f"failed to initialize logging driver: lookup {place}: {error}") from None
    return "inet6" if family == socket.AF_INET6 else "inet", list(address)


def _need_socket(path: str, why: str) -> None:
    if not Path(path).is_socket():
        raise ShoalError(f"failed to initialize logging driver: {why}")
