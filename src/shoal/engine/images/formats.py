"""Docker and OCI image formats: manifests, configs and archives, as pure functions over JSON."""

from __future__ import annotations

import hashlib
import json
import re
import shlex
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any

from shoal.core.image_settings import merged_settings
from shoal.core.platform import Platform, architecture_of
from shoal.core.validate.plain_network import parse_port
from shoal.errors import InvalidArgument
from shoal.lib.units import format_time, parse_duration_ns, parse_time_ns
from shoal.model.base import Struct
from shoal.model.container import HistoryStep, ImageRecord
from shoal.model.container_spec import HealthConfig

OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_LIST = "application/vnd.docker.distribution.manifest.list.v2+json"
_LAYER_TYPES = {
    "gzip": "application/vnd.oci.image.layer.v1.tar+gzip",
    "zstd": "application/vnd.oci.image.layer.v1.tar+zstd",
    "": "application/vnd.oci.image.layer.v1.tar",
}
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}")


class Blob(Struct):
    """A digest and how many bytes it stands for."""

    digest: str
    size: int
    media_type: str = ""


class Manifest(Struct):
    """The parts of an image's manifest that matter."""

    media_type: str
    config: Blob
    layers: tuple[Blob, ...]


class PlatformManifest(Struct):
    """One entry of an index: a manifest and what it is for."""

    blob: Blob
    architecture: str = ""
    os: str = ""
    variant: str = ""


def sha256(content: bytes) -> str:
    """Return the digest of `content`."""
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def short_digest(digest: str) -> str:
    """Return the beginning of a digest, as people are shown it."""
    return digest.removeprefix("sha256:")[:12]


def checked_digest(text: object) -> str:
    """Return `text` if it is a sha256 digest; it becomes part of a path. Raises InvalidArgument."""
    if not isinstance(text, str) or not _DIGEST.fullmatch(text):
        raise InvalidArgument(f"invalid digest {text!r}: only sha256 is supported")
    return text


def parse_json(content: bytes, what: str) -> dict[str, Any]:
    """Read a JSON object. Raises InvalidArgument naming `what`."""
    try:
        value = json.loads(content)
    except ValueError as error:
        raise InvalidArgument(f"{what} is no JSON: {error}") from None
    if not isinstance(value, dict):
        raise InvalidArgument(f"{what} is no JSON object")
    return value


def media_type_of(document: dict[str, Any]) -> str:
    """Return the media type of a manifest or index, guessed by its fields where it does not say."""
    if document.get("mediaType"):
        return str(document["mediaType"])
    return OCI_INDEX if "manifests" in document else OCI_MANIFEST


def _blob(descriptor: Any) -> Blob:
    if not isinstance(descriptor, dict):
        raise InvalidArgument("manifest: a descriptor is no object")
    digest = checked_digest(descriptor.get("digest"))
    return Blob(digest=digest, size=int(descriptor.get("size", 0)), media_type=str(descriptor.get("mediaType", "")))


def parse_manifest(content: bytes) -> Manifest:
    """Read a Docker (schema 2) or OCI manifest. Raises InvalidArgument."""
    document = parse_json(content, "manifest")
    if document.get("schemaVersion") != 2 or not isinstance(document.get("layers"), list):
        raise InvalidArgument("manifest: only OCI and Docker schema 2 images are supported; build the image anew")
    return Manifest(
        media_type=media_type_of(document),
        config=_blob(document.get("config")),
        layers=tuple(_blob(layer) for layer in document["layers"]),
    )


def parse_index(content: bytes) -> tuple[PlatformManifest, ...]:
    """Read an OCI index or a Docker manifest list; attestations are left out. Raises InvalidArgument."""
    document = parse_json(content, "index")
    entries = []
    for descriptor in document.get("manifests") or ():
        platform = descriptor.get("platform") or {}
        if platform.get("os") == "unknown":
            continue
        entries.append(
            PlatformManifest(
                blob=_blob(descriptor),
                architecture=str(platform.get("architecture", "")),
                os=str(platform.get("os", "")),
                variant=str(platform.get("variant", "")),
            )
        )
    return tuple(entries)


def is_index(content: bytes) -> bool:
    """Whether a manifest is an index of several."""
    return media_type_of(parse_json(content, "manifest")) in {OCI_INDEX, DOCKER_LIST}


def choose_platform(entries: tuple[PlatformManifest, ...], wanted: Platform) -> PlatformManifest | None:
    """Return the first entry for a platform."""
    for entry in entries:
        if wanted.fits(Platform(os=entry.os, architecture=entry.architecture, variant=entry.variant)):
            return entry
    return None


def layer_media_type(compression: str) -> str:
    """Return the OCI media type of a layer compressed as gzip, zstd or not (empty)."""
    return _LAYER_TYPES[compression]


def make_manifest(config: bytes, layers: tuple[Blob, ...]) -> bytes:
    """Return an OCI manifest."""
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": {"mediaType": OCI_CONFIG, "digest": sha256(config), "size": len(config)},
        "layers": [{"mediaType": blob.media_type, "digest": blob.digest, "size": blob.size} for blob in layers],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def make_config(
    diff_id: str, at_ns: int, machine: str, message: str, settings: dict[str, Any], history: str = "imported"
) -> bytes:
    """Return the config of an image of one layer."""
    created = format_time(at_ns)
    document = {
        "architecture": architecture_of(machine),
        "os": "linux",
        "created": created,
        "config": settings,
        "rootfs": {"type": "layers", "diff_ids": [diff_id]},
        "history": [{"created": created, "comment": message or history}],
    }
    return json.dumps(document, separators=(",", ":")).encode()


def extend_config(
    config: bytes, diff_id: str, at_ns: int, settings: dict[str, Any], author: str, step: dict[str, Any]
) -> bytes:
    """Return the config of an image with one layer more than another's; `step` says in its history how it was made."""
    document = parse_json(config, "image config")
    created = format_time(at_ns)
    rootfs = document.get("rootfs") or {"type": "layers"}
    document |= {
        "created": created,
        "config": settings,
        "rootfs": {**rootfs, "diff_ids": [*(rootfs.get("diff_ids") or ()), diff_id]},
        "history": [*(document.get("history") or ()), {"created": created, **step}],
    }
    if author:
        document["author"] = author
    return json.dumps(document, separators=(",", ":")).encode()


def settings_of(config: bytes) -> dict[str, Any]:
    """Return the settings of an image's config. Raises InvalidArgument."""
    return dict(parse_json(config, "image config").get("config") or {})


def diff_ids_of(config: bytes) -> tuple[str, ...]:
    """Return the digests of an image's uncompressed layers, lowest first. Raises InvalidArgument."""
    rootfs = parse_json(config, "image config").get("rootfs") or {}
    return tuple(checked_digest(digest) for digest in rootfs.get("diff_ids") or ())


def history_of(config: bytes, sizes: Mapping[str, int]) -> tuple[HistoryStep, ...]:
    """Return how an image was made, newest step first.

    Args:
        config: of the image.
        sizes: bytes of its layers, by the digests of their content.
    """
    document = parse_json(config, "image config")
    layers = list(diff_ids_of(config))
    steps = []
    for entry in document.get("history") or ({"created": document.get("created"), "comment": ""},):
        has_layer = not entry.get("empty_layer") and layers
        steps.append(
            HistoryStep(
                created_at_ns=_created_ns(str(entry.get("created") or "")),
                created_by=str(entry.get("created_by") or ""),
                comment=str(entry.get("comment") or ""),
                size_bytes=sizes.get(layers.pop(0), 0) if has_layer else 0,
            )
        )
    return tuple(reversed(steps))


def _created_ns(text: str) -> int:
    try:
        return parse_time_ns(text)
    except ValueError:
        try:
            return int(datetime.fromisoformat(text).timestamp()) * 1_000_000_000
        except ValueError:
            return 0


def record_of(config: bytes, size_bytes: int) -> ImageRecord:
    """Return the record of an image by its config; tags and digests are added by the index. Raises InvalidArgument."""
    document = parse_json(config, "image config")
    settings = document.get("config") or {}
    history = document.get("history") or [{}]
    health = settings.get("Healthcheck")
    return ImageRecord(
        id=sha256(config),
        created_at_ns=_created_ns(str(document.get("created") or "")),
        size_bytes=size_bytes,
        architecture=str(document.get("architecture", "")),
        os=str(document.get("os", "")),
        variant=str(document.get("variant", "")),
        author=str(document.get("author", "")),
        comment=str(history[-1].get("comment", "")),
        layers=diff_ids_of(config),
        entrypoint=_strings(settings.get("Entrypoint")),
        command=_strings(settings.get("Cmd")),
        env=_strings(settings.get("Env")) or (),
        working_dir=str(settings.get("WorkingDir") or ""),
        user=str(settings.get("User") or ""),
        labels={str(key): str(value) for key, value in (settings.get("Labels") or {}).items()},
        exposed_ports=tuple(settings.get("ExposedPorts") or ()),
        volumes=tuple(settings.get("Volumes") or ()),
        stop_signal=str(settings.get("StopSignal") or ""),
        healthcheck=_health(health) if isinstance(health, dict) else None,
    )


def _strings(value: Any) -> tuple[str, ...] | None:
    return None if value is None else tuple(str(entry) for entry in value)


def _health(value: dict[str, Any]) -> HealthConfig:
    return HealthConfig(
        test=_strings(value.get("Test")) or (),
        interval=int(value.get("Interval") or 0),
        timeout=int(value.get("Timeout") or 0),
        start_period=int(value.get("StartPeriod") or 0),
        start_interval=int(value.get("StartInterval") or 0),
        retries=int(value.get("Retries") or 0),
    )


def apply_changes(changes: tuple[str, ...], settings: dict[str, Any] | None = None) -> dict[str, Any]:
    """Return settings changed by Dockerfile instructions (`docker import --change`). Raises InvalidArgument."""
    settings = dict(settings or {})
    for change in changes:
        word, _, rest = change.strip().partition(" ")
        rest = rest.strip()
        if not rest:
            raise InvalidArgument(f"change {change!r}: an instruction needs an argument")
        instruction = _CHANGES.get(word.upper())
        if instruction is None:
            raise InvalidArgument(f"{word.upper()} is not a valid change command")
        try:
            instruction(settings, rest)
        except ValueError as error:
            raise InvalidArgument(f"change {change!r}: {error}") from None
    return settings


def _command(text: str) -> list[str]:
    if text.startswith("["):
        try:
            value = json.loads(text)
        except ValueError:
            value = None
        if isinstance(value, list) and all(isinstance(entry, str) for entry in value):
            return value
    return ["/bin/sh", "-c", text]


def _pairs(text: str) -> dict[str, str]:
    words = shlex.split(text)
    if "=" not in words[0]:
        name, _, value = text.partition(" ")
        return {name: value}
    return dict(word.split("=", 1) for word in words if "=" in word)


def _change_env(settings: dict[str, Any], text: str) -> None:
    variables = [f"{name}={value}" for name, value in _pairs(text).items()]
    settings |= merged_settings(settings, {"Env": variables})


def _change_volume(settings: dict[str, Any], text: str) -> None:
    paths = _command(text) if text.startswith("[") else text.split()
    settings["Volumes"] = {**(settings.get("Volumes") or {}), **{path: {} for path in paths}}


def _change_ports(settings: dict[str, Any], text: str) -> None:
    parsed = [parse_port(port) for port in text.split()]
    ports: dict[str, Any] = {f"{number}/{protocol}": {} for number, protocol in parsed}
    settings["ExposedPorts"] = {**(settings.get("ExposedPorts") or {}), **ports}


def _change_health(settings: dict[str, Any], text: str) -> None:
    health: dict[str, Any] = {}
    names = {"interval": "Interval", "timeout": "Timeout", "start-period": "StartPeriod", "retries": "Retries"}
    while text.startswith("--"):
        option, _, text = text.partition(" ")
        name, _, value = option.removeprefix("--").partition("=")
        if name not in names:
            raise InvalidArgument(f"HEALTHCHECK: unknown flag {option}")
        health[names[name]] = int(value) if name == "retries" else parse_duration_ns(value)
    if text.strip().upper() == "NONE":
        health["Test"] = ["NONE"]
    else:
        command = _command(text.strip().removeprefix("CMD").strip())
        health["Test"] = ["CMD-SHELL", command[2]] if command[:2] == ["/bin/sh", "-c"] else ["CMD", *command]
    settings["Healthcheck"] = health


_CHANGES: dict[str, Callable[[dict[str, Any], str], None]] = {
    "CMD": lambda settings, text: settings.update(Cmd=_command(text)),
    "ENTRYPOINT": lambda settings, text: settings.update(Entrypoint=_command(text)),
    "ENV": _change_env,
    "EXPOSE": _change_ports,
    "HEALTHCHECK": _change_health,
    "LABEL": lambda settings, text: settings.update(Labels={**(settings.get("Labels") or {}), **_pairs(text)}),
    "STOPSIGNAL": lambda settings, text: settings.update(StopSignal=text),
    "USER": lambda settings, text: settings.update(User=text),
    "VOLUME": _change_volume,
    "WORKDIR": lambda settings, text: settings.update(WorkingDir=text),
}
