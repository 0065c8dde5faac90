"""Debian's docker-registry on loopback, and images in it that are made here."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import io
import json
import subprocess
import tarfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from tests.system.daemon import wait_for

# bcrypt of the password "secret"
USERS = "bob:$2y$05$abcdefghijklmnopqrstuuOQiyCxlgf/oeuTqixKmWdcYUh4Hjl0a\n"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_INDEX = "application/vnd.oci.image.index.v1+json"


@contextlib.contextmanager
def registry(directory: Path, users: str = "", netns: str = "") -> Iterator[str]:
    """Run a registry on a free port of loopback; with `users` (htpasswd lines) only they come in."""
    config, log_path = directory / "registry.yml", directory / "registry.log"
    storage = {"filesystem": {"rootdirectory": str(directory / "registry")}}
    settings: dict[str, object] = {"version": 0.1, "storage": storage, "http": {"addr": "127.0.0.1:0"}}
    if users:
        (directory / "htpasswd").write_text(users)
        settings["auth"] = {"htpasswd": {"realm": "test", "path": str(directory / "htpasswd")}}
    config.write_text(json.dumps(settings))
    enter = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
    with log_path.open("wb") as log:
        process = subprocess.Popen([*enter, "docker-registry", "serve", str(config)], stdout=log, stderr=log)
    try:
        yield f"127.0.0.1:{wait_for(lambda: _port(log_path.read_text()), 'the registry listens')}"
    finally:
        process.kill()
        process.wait()


def _port(log: str) -> str:
    _, _, rest = log.partition("listening on 127.0.0.1:")
    digits = rest.partition('"')[0]
    return digits if digits.isdecimal() else ""


def digest_of(content: bytes) -> str:
    return f"sha256:{hashlib.sha256(content).hexdigest()}"


def layer_tar(*members: tarfile.TarInfo | tuple[str, bytes]) -> bytes:
    """Make a tar; a pair is a file with its content, a name that ends in a slash a directory."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for member in members:
            if isinstance(member, tarfile.TarInfo):
                archive.addfile(member)
                continue
            name, content = member
            info = tarfile.TarInfo(name)
            info.size, info.mode = len(content), 0o644
            if name.endswith("/"):
                info.type, info.mode = tarfile.DIRTYPE, 0o755
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


class ImageDirectory:
    """An OCI layout on disk, to be sent to a registry by skopeo."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        (directory / "blobs" / "sha256").mkdir(parents=True)
        (directory / "oci-layout").write_text('{"imageLayoutVersion":"1.0.0"}')

    def blob(self, content: bytes, media_type: str) -> dict[str, Any]:
        """Put a blob; return its descriptor."""
        digest = digest_of(content)
        (self.directory / "blobs" / "sha256" / digest.removeprefix("sha256:")).write_bytes(content)
        return {"mediaType": media_type, "digest": digest, "size": len(content)}

    def image(
        self, layers: list[tuple[bytes, str]], config: Mapping[str, object] | None = None, **more: object
    ) -> dict[str, Any]:
        """Put an image of layers (plain tar and how it is packed: gzip, zstd, or nothing); return its descriptor."""
        descriptors, diff_ids = [], []
        for plain, packing in layers:
            packed = plain
            if packing == "gzip":
                packed = gzip.compress(plain, mtime=0)
            elif packing == "zstd":
                packed = subprocess.run(["zstd", "-qc"], input=plain, capture_output=True, check=True).stdout
            suffix = f"+{packing}" if packing else ""
            descriptors.append(self.blob(packed, f"application/vnd.oci.image.layer.v1.tar{suffix}"))
            diff_ids.append(digest_of(plain))
        document = {
            "architecture": "amd64", "os": "linux", "config": dict(config or {}),
            "rootfs": {"type": "layers", "diff_ids": diff_ids}, **more,
        }  # fmt: skip
        described = self.blob(json.dumps(document).encode(), "application/vnd.oci.image.config.v1+json")
        manifest = {"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": described, "layers": descriptors}
        return self.blob(json.dumps(manifest).encode(), OCI_MANIFEST)

    def index(self, *entries: dict[str, Any]) -> dict[str, Any]:
        """Put an index of images; return its descriptor."""
        document = {"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": list(entries)}
        return self.blob(json.dumps(document).encode(), OCI_INDEX)

    def push(self, descriptor: dict[str, Any], name: str, *options: str, netns: str = "") -> None:
        """Send an image or an index to a registry, as it is."""
        named = descriptor | {"annotations": {"org.opencontainers.image.ref.name": "it"}}
        (self.directory / "index.json").write_text(json.dumps({"schemaVersion": 2, "manifests": [named]}))
        enter = ["nsenter", f"--net=/run/netns/{netns}"] if netns else []
        words = ["skopeo", "copy", "--quiet", "--insecure-policy", "--all", "--preserve-digests"]
        words += ["--dest-tls-verify=false", *options, f"oci:{self.directory}:it", f"docker://{name}"]
        done = subprocess.run([*enter, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
