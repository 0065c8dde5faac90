"""Blobs and layers on disk, by content: `blobs/sha256/HEX`, `l/SHORT`. Several daemons may share them.

A layer is unpacked into a temporary directory under a lock of its own, brought to disk, renamed and then entered in
the index: what the index names is whole. All methods block; call them in threads.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import secrets
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path

from shoal.engine import syscalls
from shoal.engine.images.formats import Blob, Manifest, checked_digest, diff_ids_of, parse_manifest, sha256
from shoal.engine.images.index import Index, Layer, short_name
from shoal.engine.images.unpack import compression_of, unpack
from shoal.errors import InvalidArgument
from shoal.lib.files import remove_tree, write_atomically


def try_lock(descriptor: int) -> bool:
    """Lock a file for oneself alone; False if another one has it."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


class Content:
    """Blobs and layers under `root`, entered in `index`."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.blobs = root / "blobs"
        self.layers = root / "l"
        self._locks = root / "locks"
        self.temporary = root / "tmp"
        for directory in (self.blobs / "sha256", self.layers, self._locks, self.temporary, root / "leases"):
            directory.mkdir(parents=True, exist_ok=True, mode=0o700)
        root.chmod(0o711)
        self.layers.chmod(0o711)
        self.index = Index(root / "index.sqlite")

    def clean(self) -> None:
        """Take away what a daemon that was killed left half-done; the caller keeps others from writing meanwhile."""
        with self._locked_alone() as is_alone:
            for left in self.temporary.iterdir() if is_alone else ():
                remove_tree(left)
        self.collect()

    def blob_path(self, digest: str) -> Path:
        """Return where a blob lies, there or not."""
        return self.blobs / "sha256" / checked_digest(digest).removeprefix("sha256:")

    def read_blob(self, digest: str) -> bytes:
        """Return a small blob. Raises InvalidArgument if it is not there or not what its name says."""
        try:
            content = self.blob_path(digest).read_bytes()
        except FileNotFoundError:
            raise InvalidArgument(f"blob {digest} is missing from the image") from None
        if sha256(content) != digest:
            raise InvalidArgument(f"blob {digest} does not have the content its digest names")
        return content

    def put_blob(self, content: bytes) -> str:
        """Store a small blob; return its digest."""
        digest = sha256(content)
        path = self.blob_path(digest)
        if not path.exists():
            write_atomically(path, content, mode=0o600)
        return digest

    def take_blob(self, file: Path, digest: str) -> None:
        """Move a file to where the blob of this digest lies; the caller has checked that it is one."""
        path = self.blob_path(digest)
        if path.exists():
            file.unlink()
        else:
            file.replace(path)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[Path]:
        """Give a directory of one's own, removed at the end."""
        directory = self.temporary / secrets.token_hex(6)
        with self.holding_blobs():
            directory.mkdir(mode=0o700)
            try:
                yield directory
            finally:
                shutil.rmtree(directory, ignore_errors=True)

    @contextlib.contextmanager
    def holding_blobs(self) -> Iterator[None]:
        """Keep `collect`, of this daemon and of others, from blobs that no image names yet."""
        descriptor = self._open_pulling()
        try:
            fcntl.flock(descriptor, fcntl.LOCK_SH)
            yield
        finally:
            os.close(descriptor)

    def _open_pulling(self) -> int:
        return os.open(self.root / "pulling", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)

    @contextlib.contextmanager
    def _locked_alone(self) -> Iterator[bool]:
        """Keep others from beginning what brings blobs in; False if somebody is at it."""
        descriptor = self._open_pulling()
        try:
            yield try_lock(descriptor)
        finally:
            os.close(descriptor)

    def ensure_layer(self, diff_id: str, blob: Path) -> Layer:
        """Unpack a layer unless it is there; two daemons that want it at once wait for each other.

        Raises InvalidArgument if the blob does not have the content that `diff_id` names.
        """
        with self._locked(diff_id):
            layer = self.index.layer(diff_id)
            if layer is not None:
                return layer
            number = self.index.next_layer_number()
            final = self.layers / short_name(number)
            directory = self.layers / f"{final.name}.tmp"
            if directory.exists():
                remove_tree(directory)
            directory.mkdir(mode=0o755)
            try:
                found, size = unpack(blob, directory)
                if found != diff_id:
                    raise InvalidArgument(f"layer {diff_id}: the content of its blob is {found}")
                syscalls.syncfs(directory)
                directory.rename(final)
            except BaseException:
                remove_tree(directory)
                raise
            self.index.add_layer(number, diff_id, size)
            return Layer(diff_id=diff_id, directory=final.name, size=size)

    @contextlib.contextmanager
    def _locked(self, diff_id: str) -> Iterator[None]:
        path = self._locks / checked_digest(diff_id).removeprefix("sha256:")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def add_image(self, manifest_content: bytes, told: Callable[[Blob, bool], None] = lambda _blob, _done: None) -> str:
        """Take an image whose blobs are all there into the index: unpack its layers; return its id.

        Args:
            manifest_content: its manifest.
            told: is called before a layer is unpacked, and when it is (True).

        Raises:
            InvalidArgument: a part is missing or not what its digest says.
        """
        manifest: Manifest = parse_manifest(manifest_content)
        config = self.read_blob(manifest.config.digest)
        diff_ids = diff_ids_of(config)
        if len(diff_ids) != len(manifest.layers):
            raise InvalidArgument(
                f"the image's config names {len(diff_ids)} layers and its manifest {len(manifest.layers)}"
            )
        size = 0
        for diff_id, layer in zip(diff_ids, manifest.layers, strict=True):
            path = self.blob_path(layer.digest)
            if self.index.layer(diff_id) is None and not path.exists():
                raise InvalidArgument(f"layer {layer.digest} is missing from the image")
            told(layer, False)
            size += self.ensure_layer(diff_id, path).size
            told(layer, True)
        self.index.add_image(config, manifest.config.digest, self.put_blob(manifest_content), size)
        return manifest.config.digest

    def layer_blob(self, path: Path, digest: str) -> Blob:
        """Describe a layer's file."""
        from shoal.engine.images.formats import layer_media_type

        return Blob(digest=digest, size=path.stat().st_size, media_type=layer_media_type(compression_of(path)))

    def collect(self) -> tuple[Layer, ...]:
        """Remove layers and blobs that no image names any more; return the layers."""
        used_layers: set[str] = set()
        used_blobs: set[str] = set()
        for image_id, record in self.index.records().items():
            used_layers.update(record.layers)
            digest = self.index.manifest_digest(image_id)
            used_blobs.update((image_id, digest))
            used_blobs.update(layer.digest for layer in parse_manifest(self.read_blob(digest)).layers)
        gone = [layer for layer in self.index.layers() if layer.diff_id not in used_layers]
        for layer in gone:
            with self._locked(layer.diff_id):
                self.index.remove_layer(layer.diff_id)
                remove_tree(self.layers / layer.directory)
            (self._locks / layer.diff_id.removeprefix("sha256:")).unlink(missing_ok=True)
        known = {layer.directory for layer in self.index.layers()}
        for path in self.layers.iterdir():
            # half-made, by a daemon that was killed; names with zero are not of images
            if path.name not in known and not path.name.startswith("0"):
                remove_tree(path)
        with self._locked_alone() as is_alone:
            if is_alone:  # else a pull is under way, and the next collection takes them
                for path in (self.blobs / "sha256").iterdir():
                    if f"sha256:{path.name}" not in used_blobs:
                        path.unlink(missing_ok=True)
        return tuple(gone)
