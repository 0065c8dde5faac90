"""One layer of an image, from its tar onto the disk in the form overlayfs reads.

The tar is not trusted: names are walked one directory after the other without following symbolic links, so nothing is
written outside. Whiteouts become devices 0/0, opaque directories an attribute. Runs in a thread.
"""

from __future__ import annotations

import contextlib
import errno
import gzip
import hashlib
import os
import stat
import subprocess
import tarfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, cast

from shoal.errors import InvalidArgument, ShoalError

WHITEOUT_PREFIX = ".wh."
OPAQUE_NAME = ".wh..wh..opq"
OPAQUE_ATTRIBUTE = "trusted.overlay.opaque"
_XATTR_PREFIX = "SCHILY.xattr."
_COPY_BYTES = 1 << 18
# what the disk says, whatever the archive
DISK_ERRORS = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EIO, errno.EROFS})
_BROKEN = (tarfile.TarError, EOFError, gzip.BadGzipFile, zlib.error)
_GZIP_MAGIC, _ZSTD_MAGIC = b"\x1f\x8b", b"\x28\xb5\x2f\xfd"


class _HashingReader:
    """A stream that hashes all that is read of it."""

    def __init__(self, source: BinaryIO) -> None:
        self._source = source
        self._hash = hashlib.sha256()
        self.size = 0

    def read(self, count: int = -1) -> bytes:
        data = self._source.read(count)
        self._hash.update(data)
        self.size += len(data)
        return data

    def finish(self) -> str:
        """Read to the end; return the digest of the whole."""
        while self.read(_COPY_BYTES):
            pass
        return f"sha256:{self._hash.hexdigest()}"


def compression_of(path: Path) -> str:
    """Return gzip, zstd or nothing, by the first bytes of a file."""
    with path.open("rb") as file:
        head = file.read(4)
    if head.startswith(_GZIP_MAGIC):
        return "gzip"
    return "zstd" if head == _ZSTD_MAGIC else ""


@contextlib.contextmanager
def open_plain(path: Path) -> Iterator[BinaryIO]:
    """Open a tar that may be compressed. Raises ShoalError if it is zstd and there is no `zstd` program."""
    compression = compression_of(path)
    if compression == "gzip":
        with gzip.open(path, "rb") as stream:
            yield cast("BinaryIO", stream)
    elif compression == "zstd":
        try:
            process = subprocess.Popen(["zstd", "-dcq", "--", str(path)], stdout=subprocess.PIPE)
        except FileNotFoundError:
            raise ShoalError(
                "this layer is compressed with zstd, and no zstd program is installed on the node"
            ) from None
        with process:
            assert process.stdout is not None
            try:
                yield cast("BinaryIO", process.stdout)
            finally:
                process.stdout.close()
                process.terminate()
    else:
        with path.open("rb") as plain:
            yield plain


def digest_of_file(path: Path) -> str:
    """Return the digest of a file as it is."""
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


def digest_of_content(path: Path) -> str:
    """Return the digest of a layer's uncompressed tar."""
    with open_plain(path) as stream:
        return _HashingReader(stream).finish()


def unpack(archive: Path, directory: Path) -> tuple[str, int]:
    """Unpack a layer into an empty directory.

    Returns the digest of the uncompressed tar and the bytes of its files.

    Raises:
        InvalidArgument: the archive is broken, or names something outside of itself.
    """
    try:
        with open_plain(archive) as stream:
            reader = _HashingReader(stream)
            size = _Unpacker(directory).unpack(cast("BinaryIO", reader))
            return reader.finish(), size
    except _BROKEN as error:
        raise InvalidArgument(f"the layer is no whole tar archive: {error}") from None
    except OSError as error:
        if error.errno in DISK_ERRORS:
            raise
        raise InvalidArgument(f"the layer cannot be unpacked: {error.strerror}: {error.filename}") from None


def unpack_files(archive: Path, directory: Path, keeps_kinds: bool, check: Callable[[str], None]) -> None:
    """Unpack a tar of plain files, plain or compressed, over what is in a directory; no name of it is special.

    Args:
        archive: the tar.
        directory: where to.
        keeps_kinds: a directory is not replaced by something else, and nothing else by a directory.
        check: is given every name before it is made, and raises if it must not be.

    Raises:
        InvalidArgument: the archive is broken, names something outside of itself, or would replace another kind.
    """
    try:
        with open_plain(archive) as stream:
            _Unpacker(directory, keeps_kinds, check).unpack(stream)
    except _BROKEN as error:
        raise InvalidArgument(f"the body is no whole tar archive: {error}") from None


def split_name(name: str) -> list[str]:
    """Return the parts of a member's name. Raises InvalidArgument if it leads out of the archive."""
    parts = [part for part in name.split("/") if part not in {"", "."}]
    if ".." in parts or any("\0" in part for part in parts):
        raise InvalidArgument(f"invalid path {name!r} in the layer: it leads out of the archive")
    return parts


class _Unpacker:
    def __init__(self, directory: Path, keeps_kinds: bool = False, check: Callable[[str], None] | None = None) -> None:
        self._check = check
        self._is_layer = check is None
        self._keeps_kinds = keeps_kinds
        self._root = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        self._parent: tuple[list[str], int] = ([], os.dup(self._root))
        self._size = 0
        self._directory_times: list[tuple[list[str], float]] = []

    def unpack(self, stream: BinaryIO) -> int:
        try:
            with tarfile.open(fileobj=stream, mode="r|", errorlevel=2) as archive:
                for member in archive:
                    self._member(archive, member)
            for parts, modified in reversed(self._directory_times):
                with self._open_directory(parts) as descriptor:
                    os.utime(descriptor, (modified, modified))
        finally:
            os.close(self._parent[1])
            os.close(self._root)
        return self._size

    @contextlib.contextmanager
    def _open_directory(self, parts: list[str], create: bool = False) -> Iterator[int]:
        descriptor = os.dup(self._root)
        try:
            for part in parts:
                flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
                try:
                    below = os.open(part, flags, dir_fd=descriptor)
                except FileNotFoundError:
                    if not create:
                        raise
                    os.mkdir(part, 0o755, dir_fd=descriptor)
                    below = os.open(part, flags, dir_fd=descriptor)
                except OSError as error:
                    if error.errno not in {errno.ELOOP, errno.ENOTDIR}:
                        raise
                    raise InvalidArgument(
                        f"invalid path {'/'.join(parts)!r} in the layer: {part!r} is no directory"
                    ) from None
                os.close(descriptor)
                descriptor = below
            yield descriptor
        finally:
            os.close(descriptor)

    def _parent_of(self, parts: list[str]) -> int:
        """Return a descriptor of the directory above; the last one is kept, as members of one come together."""
        if self._parent[0] != parts[:-1]:
            with self._open_directory(parts[:-1], create=True) as descriptor:
                os.close(self._parent[1])
                self._parent = (parts[:-1], os.dup(descriptor))
        return self._parent[1]

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo) -> None:
        parts = split_name(member.name)
        if not parts:
            if member.isdir():
                os.fchmod(self._root, stat.S_IMODE(member.mode))
                os.chown(self._root, member.uid, member.gid)
            return
        if self._check is not None:
            self._check("/".join(parts))
        parent, name = self._parent_of(parts), parts[-1]
        if self._is_layer and name == OPAQUE_NAME:
            os.setxattr(f"/proc/self/fd/{parent}", OPAQUE_ATTRIBUTE, b"y")
            return
        if self._is_layer and name.startswith(WHITEOUT_PREFIX):
            hidden = name.removeprefix(WHITEOUT_PREFIX)
            if hidden in {"", ".", ".."}:
                raise InvalidArgument(f"invalid whiteout {member.name!r} in the layer")
            if not hidden.startswith(WHITEOUT_PREFIX):
                self._clear(parent, hidden)
                os.mknod(hidden, stat.S_IFCHR, 0, dir_fd=parent)
            return
        self._make(archive, member, parent, parts)

    def _make(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, parts: list[str]) -> None:
        name = parts[-1]
        if self._keeps_kinds:
            _refuse_other_kind(member, parent, name)
        if member.isdir():
            self._make_directory(parent, name)
            self._directory_times.append((parts, member.mtime))
        else:
            self._clear(parent, name)
        if member.isfile():
            self._make_file(archive, member, parent, name)
        elif member.issym():
            os.symlink(member.linkname, name, dir_fd=parent)
        elif member.islnk():
            self._make_link(member, parent, name)
            return  # owner, mode and attributes are the other name's
        elif member.ischr() or member.isblk():
            kind = stat.S_IFCHR if member.ischr() else stat.S_IFBLK
            os.mknod(
                name, kind | stat.S_IMODE(member.mode), os.makedev(member.devmajor, member.devminor), dir_fd=parent
            )
        elif member.isfifo():
            os.mkfifo(name, stat.S_IMODE(member.mode), dir_fd=parent)
        elif not member.isdir():
            raise InvalidArgument(f"the layer has {member.name!r} of a type {member.type!r} that is not supported")
        self._set_attributes(member, parent, name)

    @staticmethod
    def _make_directory(parent: int, name: str) -> None:
        try:
            os.mkdir(name, 0o755, dir_fd=parent)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
                os.unlink(name, dir_fd=parent)
                os.mkdir(name, 0o755, dir_fd=parent)

    @staticmethod
    def _clear(parent: int, name: str) -> None:
        """Take away what an earlier member of the same name left."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            return
        if stat.S_ISDIR(found.st_mode):
            os.rmdir(name, dir_fd=parent)
        else:
            os.unlink(name, dir_fd=parent)

    def _make_file(self, archive: tarfile.TarFile, member: tarfile.TarInfo, parent: int, name: str) -> None:
        source = archive.extractfile(member)
        assert source is not None
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        with os.fdopen(os.open(name, flags, 0o600, dir_fd=parent), "wb") as file:
            while data := source.read(_COPY_BYTES):
                file.write(data)
        self._size += member.size

    def _make_link(self, member: tarfile.TarInfo, parent: int, name: str) -> None:
        target = split_name(member.linkname)
        if not target:
            raise InvalidArgument(f"the layer links {member.name!r} to nothing")
        try:
            with self._open_directory(target[:-1]) as descriptor:
                os.link(target[-1], name, src_dir_fd=descriptor, dst_dir_fd=parent, follow_symlinks=False)
        except FileNotFoundError:
            raise InvalidArgument(
                f"the layer links {member.name!r} to {member.linkname!r}, which it does not hold"
            ) from None

    @staticmethod
    def _set_attributes(member: tarfile.TarInfo, parent: int, name: str) -> None:
        os.chown(name, member.uid, member.gid, dir_fd=parent, follow_symlinks=False)
        if not member.issym():
            # after the change of owner, which takes the set-id bits away
            os.chmod(name, stat.S_IMODE(member.mode), dir_fd=parent)
        for key, value in member.pax_headers.items():
            if key.startswith(_XATTR_PREFIX):
                attribute = key.removeprefix(_XATTR_PREFIX)
                if attribute.startswith("trusted.overlay."):
                    continue  # a layer must not speak to overlayfs itself
                with contextlib.suppress(OSError):
                    content = value.encode("utf-8", "surrogateescape")
                    os.setxattr(f"/proc/self/fd/{parent}/{name}", attribute, content, follow_symlinks=False)
        if not member.isdir():
            os.utime(name, (member.mtime, member.mtime), dir_fd=parent, follow_symlinks=False)


def _refuse_other_kind(member: tarfile.TarInfo, parent: int, name: str) -> None:
    try:
        is_directory = stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)
    except FileNotFoundError:
        return
    if is_directory != member.isdir():
        words = ("non-directory", "directory") if member.isdir() else ("directory", "non-directory")
        raise InvalidArgument(f"cannot overwrite {words[0]} {member.name!r} with {words[1]}")
