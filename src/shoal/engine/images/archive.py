"""Archives of images: `docker save` (old and new) and OCI layouts in a tar. Blocking; called in threads."""

from __future__ import annotations

import io
import json
import lzma
import shutil
import tarfile
import zlib
from pathlib import Path

from shoal.core.platform import platform_of
from shoal.core.reference import Reference, parse_reference
from shoal.engine.images.content import Content
from shoal.engine.images.formats import (
    OCI_MANIFEST,
    Blob,
    checked_digest,
    choose_platform,
    is_index,
    make_manifest,
    parse_index,
    parse_json,
    parse_manifest,
    sha256,
)
from shoal.engine.images.unpack import digest_of_file, split_name
from shoal.errors import InvalidArgument

_NAME_ANNOTATIONS = ("io.containerd.image.name", "org.opencontainers.image.ref.name")


def load_archive(content: Content, path: Path, scratch: Path, machine: str) -> list[tuple[str, tuple[Reference, ...]]]:
    """Take the images of an archive into `content`; return their ids and names. Raises InvalidArgument."""
    files = _extract(path, scratch / "files")
    if "manifest.json" in files:
        return _load_docker(content, files)
    if "index.json" in files:
        return _load_oci(content, files, machine)
    raise InvalidArgument("invalid archive: it has neither manifest.json nor index.json; use the output of docker save")


def _extract(path: Path, directory: Path) -> dict[str, Path]:
    """Extract the regular files of an archive under numbers; names of the archive never become paths."""
    directory.mkdir()
    files: dict[str, Path] = {}
    links: dict[str, str] = {}
    try:
        with tarfile.open(path, mode="r:*") as archive:
            for number, member in enumerate(archive):
                name = "/".join(split_name(member.name))
                if member.issym():
                    # old archives name a layer they share by a link to the other's file
                    links[name] = "/".join(_resolve(name, member.linkname))
                source = archive.extractfile(member) if member.isfile() else None
                if source is not None:
                    files[name] = directory / str(number)
                    with files[name].open("wb") as target:
                        shutil.copyfileobj(source, target, 1 << 18)
    except tarfile.ReadError:
        raise InvalidArgument("invalid archive: it is no tar, or its end is missing") from None
    except (tarfile.TarError, EOFError, zlib.error, lzma.LZMAError) as error:
        raise InvalidArgument(f"invalid archive: {error}") from None
    files.update({name: files[target] for name, target in links.items() if target in files})
    return files


def _resolve(name: str, link: str) -> list[str]:
    parts = name.split("/")[:-1]
    for part in link.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in {"", "."}:
            parts.append(part)
    return parts


def _read(files: dict[str, Path], name: object) -> bytes:
    if not isinstance(name, str) or name not in files:
        raise InvalidArgument(f"invalid archive: {name!r} is missing from it")
    return files[name].read_bytes()


def _load_docker(content: Content, files: dict[str, Path]) -> list[tuple[str, tuple[Reference, ...]]]:
    loaded = []
    try:
        entries = json.loads(_read(files, "manifest.json"))
    except ValueError as error:
        raise InvalidArgument(f"invalid archive: manifest.json: {error}") from None
    for entry in entries:
        config = _read(files, entry.get("Config"))
        content.put_blob(config)
        layers: list[Blob] = []
        for name in entry.get("Layers") or ():
            if name not in files:
                raise InvalidArgument(f"invalid archive: layer {name!r} is missing from it")
            digest = digest_of_file(files[name])
            layers.append(content.layer_blob(files[name], digest))
            if not content.blob_path(digest).exists():
                # copied, not moved: two images of one archive may share it
                copy = files[name].with_suffix(".copy")
                shutil.copyfile(files[name], copy)
                content.take_blob(copy, digest)
        image_id = content.add_image(make_manifest(config, tuple(layers)))
        loaded.append((image_id, tuple(parse_reference(name) for name in entry.get("RepoTags") or ())))
    return loaded


def _load_oci(content: Content, files: dict[str, Path], machine: str) -> list[tuple[str, tuple[Reference, ...]]]:
    loaded = []
    document = parse_json(_read(files, "index.json"), "index.json")
    for descriptor in document.get("manifests") or ():
        manifest = _checked(files, checked_digest(descriptor.get("digest")))
        if is_index(manifest):
            wanted = platform_of(machine)
            chosen = choose_platform(parse_index(manifest), wanted)
            if chosen is None:
                raise InvalidArgument(f"the archive has no image for {wanted.text}")
            manifest = _checked(files, chosen.blob.digest)
        parsed = parse_manifest(manifest)
        for blob in (parsed.config, *parsed.layers):
            name = f"blobs/{blob.digest.replace(':', '/')}"
            if not content.blob_path(blob.digest).exists():
                if name not in files or digest_of_file(files[name]) != blob.digest:
                    raise InvalidArgument(f"invalid archive: blob {blob.digest} is missing or broken")
                content.take_blob(files.pop(name), blob.digest)
        image_id = content.add_image(manifest)
        loaded.append((image_id, _names(descriptor.get("annotations") or {})))
    return loaded


def _checked(files: dict[str, Path], digest: str) -> bytes:
    manifest = _read(files, f"blobs/{digest.replace(':', '/')}")
    if sha256(manifest) != digest:
        raise InvalidArgument(f"invalid archive: blob {digest} is broken")
    return manifest


def _names(annotations: dict[str, str]) -> tuple[Reference, ...]:
    for key in _NAME_ANNOTATIONS:
        text = annotations.get(key, "")
        if "/" in text or ":" in text:
            return (parse_reference(text).with_default_tag(),)
    return ()


def save_archive(content: Content, path: Path, chosen: dict[str, list[Reference]]) -> None:
    """Write an archive that is both an OCI layout and what `docker load` reads.

    Args:
        content: where the blobs are.
        path: the file to write.
        chosen: image ids, each with the names it is saved under.
    """
    index: list[dict[str, object]] = []
    entries: list[dict[str, object]] = []
    blobs: dict[str, None] = {}
    for image_id, names in chosen.items():
        digest = content.index.manifest_digest(image_id)
        manifest = content.read_blob(digest)
        parsed = parse_manifest(manifest)
        blobs.update(dict.fromkeys([digest, parsed.config.digest, *(layer.digest for layer in parsed.layers)]))
        descriptor: dict[str, object] = {
            "mediaType": parsed.media_type or OCI_MANIFEST,
            "digest": digest,
            "size": len(manifest),
        }
        for name in names:
            annotations = {_NAME_ANNOTATIONS[0]: name.canonical, _NAME_ANNOTATIONS[1]: name.tag}
            index.append({**descriptor, "annotations": annotations})
        if not names:
            index.append(descriptor)
        entries.append(
            {
                "Config": _blob_name(parsed.config.digest),
                "RepoTags": [name.familiar for name in names] or None,
                "Layers": [_blob_name(layer.digest) for layer in parsed.layers],
            }
        )
    with tarfile.open(path, mode="w") as archive:
        for digest in blobs:
            archive.add(content.blob_path(digest), _blob_name(digest), filter=_anonymous)
        for member_name, contents in (
            (
                "index.json",
                {"schemaVersion": 2, "mediaType": "application/vnd.oci.image.index.v1+json", "manifests": index},
            ),
            ("manifest.json", entries),
            ("oci-layout", {"imageLayoutVersion": "1.0.0"}),
        ):
            text = json.dumps(contents).encode()
            member = tarfile.TarInfo(str(member_name))
            member.size, member.mode = len(text), 0o644
            archive.addfile(member, io.BytesIO(text))


def _blob_name(digest: str) -> str:
    return f"blobs/{digest.replace(':', '/')}"


def _anonymous(member: tarfile.TarInfo) -> tarfile.TarInfo:
    member.uid = member.gid = 0
    member.uname = member.gname = ""
    member.mtime, member.mode = 0, 0o644
    return member
