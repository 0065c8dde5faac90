"""What shoald is told: flags with dockerd's names, and the same in a JSON file (architecture.md 4.9)."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec

from shoal.errors import InvalidArgument
from shoal.model.base import Struct, replace
from shoal.model.netstate import WIREGUARD_PORT

DEFAULT_DATA_ROOT = Path("/var/lib/shoal")
DEFAULT_EXEC_ROOT = Path("/run/shoal")
DEFAULT_CERTIFICATES = Path("/etc/shoal")
Port = Annotated[int, msgspec.Meta(ge=1, le=65_535)]
LOG_LEVELS = ("debug", "info", "warn", "error", "fatal")


class Settings(Struct):
    """Settings of one daemon; `hosts` empty means the socket `EXEC/shoal.sock`."""

    data_root: Path = DEFAULT_DATA_ROOT
    exec_root: Path = DEFAULT_EXEC_ROOT
    image_root: Path | None = None
    hosts: tuple[str, ...] = ()
    pidfile: Path | None = None
    labels: tuple[str, ...] = ()
    generic_resources: tuple[str, ...] = ()
    insecure_registries: tuple[str, ...] = ()
    log_level: str = "info"
    group: str = ""
    wireguard_port: int = WIREGUARD_PORT
    tls: bool = False
    tls_verify: bool = False
    tls_ca_certificate: Path = DEFAULT_CERTIFICATES / "ca.pem"
    tls_certificate: Path = DEFAULT_CERTIFICATES / "cert.pem"
    tls_key: Path = DEFAULT_CERTIFICATES / "key.pem"

    @property
    def images(self) -> Path:
        """Where images are kept."""
        return self.image_root or self.data_root / "images"

    @property
    def listen_on(self) -> tuple[str, ...]:
        """Where the API is served."""
        return self.hosts or (f"unix://{self.exec_root / 'shoal.sock'}",)


# keys of the file, as dockerd writes them, and the field each sets
FILE_KEYS: dict[str, str] = {
    "data-root": "data_root",
    "exec-root": "exec_root",
    "image-root": "image_root",
    "hosts": "hosts",
    "pidfile": "pidfile",
    "labels": "labels",
    "node-generic-resources": "generic_resources",
    "insecure-registries": "insecure_registries",
    "log-level": "log_level",
    "group": "group",
    "wireguard-port": "wireguard_port",
    "tls": "tls",
    "tlsverify": "tls_verify",
    "tlscacert": "tls_ca_certificate",
    "tlscert": "tls_certificate",
    "tlskey": "tls_key",
}


_PATHS = {"data_root", "exec_root", "image_root", "pidfile", "tls_ca_certificate", "tls_certificate", "tls_key"}
_PORTS = {"wireguard_port"}
_SWITCHES = {"tls", "tls_verify"}
_LISTS = {"hosts", "labels", "generic_resources", "insecure_registries"}


def _convert(field: str, value: object) -> object:
    if field in _LISTS:
        return msgspec.convert(value, tuple[str, ...])
    if field in _SWITCHES:
        return msgspec.convert(value, bool)
    if field in _PORTS:
        return msgspec.convert(value, Port)
    text = msgspec.convert(value, str)
    return Path(text) if field in _PATHS else text


def read_file(path: Path, settings: Settings) -> Settings:
    """Return `settings` with what the JSON file at `path` says.

    Raises:
        InvalidArgument: the file cannot be read, is no JSON object, or has an unknown key or a wrong value.
    """
    try:
        content = msgspec.json.decode(path.read_bytes(), type=dict[str, Any])
    except OSError as error:
        raise InvalidArgument(f"--config-file {path}: {error.strerror}") from error
    except msgspec.DecodeError as error:
        raise InvalidArgument(f"--config-file {path}: not a JSON object: {error}") from error
    unknown = sorted(set(content) - set(FILE_KEYS))
    if unknown:
        known = ", ".join(sorted(FILE_KEYS))
        raise InvalidArgument(f"--config-file {path}: unknown key {unknown[0]!r}; known are {known}")
    changes: dict[str, object] = {}
    for key, value in content.items():
        field = FILE_KEYS[key]
        try:
            changes[field] = _convert(field, value)
        except msgspec.ValidationError as error:
            raise InvalidArgument(f"--config-file {path}: {key}: {error}") from error
    level = changes.get("log_level", settings.log_level)
    if level not in LOG_LEVELS:
        raise InvalidArgument(f"--config-file {path}: log-level: {level!r}; known are {', '.join(LOG_LEVELS)}")
    return replace(settings, **changes)
