"""Files of one container as a tar, out and in (`docker cp`): looked at from outside, never led out of its root.

A container that runs may change its files meanwhile: every step goes by descriptors, and symbolic links are followed
inside the container's root only. Blocking; called in threads.
"""

from __future__ import annotations

import errno
import os
import posixpath
import stat
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from shoal.engine import syscalls
from shoal.engine.images.unpack import OPAQUE_ATTRIBUTE, OPAQUE_NAME, WHITEOUT_PREFIX, unpack_files
from shoal.errors import Forbidden, InvalidArgument, NotFound
from shoal.model.container import PathStat

_COPY_BYTES = 64 * 1024
_XATTRS_TAKEN = ("user.", "security.capability")
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def _split(path: str) -> tuple[str, str]:
    """Return directory and name of a path; the name is empty where the path itself says that it is a directory."""
    path = posixpath.join("/", path)
    if path.endswith(("/", "/.")):
        return posixpath.normpath(path).replace("//", "/"), ""
    directory, name = posixpath.split(path)
    return (directory, name) if name != ".." else (path, "")


@contextmanager
def _opened(root: Path, path: str, shown: str) -> Iterator[int]:
    try:
        descriptor = syscalls.open_in_root(root, path, os.O_RDONLY | os.O_DIRECTORY)
    except OSError as error:
        if error.errno == errno.ENOTDIR:
            raise InvalidArgument(f"not a directory: {shown}") from None
        raise NotFound(f"Could not find the file {shown} in the container") from None
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def stat_path(root: Path, path: str) -> PathStat:
    """Return what a path in a container is; a symbolic link itself, not where it leads. Raises NotFound."""
    directory, name = _split(path)
    with _opened(root, directory, path) as parent:
        if not name:
            return _stat_of(posixpath.basename(directory) or "/", os.fstat(parent))
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            target = os.readlink(name, dir_fd=parent) if stat.S_ISLNK(found.st_mode) else ""
        except OSError:
            raise NotFound(f"Could not find the file {path} in the container") from None
        target = posixpath.normpath(posixpath.join(directory, target)) if target else ""
        return _stat_of(name, found, target)


def _stat_of(name: str, found: os.stat_result, target: str = "") -> PathStat:
    return PathStat(
        name=name, size_bytes=found.st_size, mode=found.st_mode, modified_at_ns=found.st_mtime_ns, link_target=target
    )


def pack(root: Path, path: str, output: BinaryIO) -> None:
    """Write a tar of a path in a container; its members are named from the path's last name on. Raises NotFound."""
    stat_path(root, path)
    directory, name = _split(path)
    with _opened(root, directory, path) as parent, tarfile.open(fileobj=output, mode="w|", bufsize=_COPY_BYTES) as tar:
        if name:
            _Packer(tar).add(parent, name, name)
        else:
            top = posixpath.basename(directory) or "/"
            _Packer(tar).add_directory(parent, top, os.fstat(parent))


def pack_tree(directory: Path, output: BinaryIO, is_layer: bool = False) -> None:
    """Write a tar of all that is in a directory, without itself.

    `is_layer`: the directory is a layer as overlayfs has it, and the tar is to be one as images have it.
    """
    descriptor = os.open(directory, _DIRECTORY)
    try:
        with tarfile.open(fileobj=output, mode="w|", bufsize=_COPY_BYTES, format=tarfile.PAX_FORMAT) as tar:
            _Packer(tar, is_layer).add_all(descriptor, "")
    finally:
        os.close(descriptor)


class _Packer:
    """Puts what is there into a tar; what goes away meanwhile is left out."""

    def __init__(self, tar: tarfile.TarFile, is_layer: bool = False) -> None:
        self._tar = tar
        self._is_layer = is_layer
        self._seen: dict[tuple[int, int], str] = {}

    def add(self, parent: int, name: str, shown: str) -> None:
        """Add one entry of a directory."""
        try:
            found = os.stat(name, dir_fd=parent, follow_symlinks=False)
            if stat.S_ISDIR(found.st_mode):
                descriptor = os.open(name, _DIRECTORY, dir_fd=parent)
                try:
                    self.add_directory(descriptor, shown, found)
                finally:
                    os.close(descriptor)
                return
            member = _member(shown, found)
            if stat.S_ISLNK(found.st_mode):
                member.type, member.linkname = tarfile.SYMTYPE, os.readlink(name, dir_fd=parent)
                self._tar.addfile(member)
            elif self._is_layer and is_whiteout(found):
                self._tar.addfile(tarfile.TarInfo(posixpath.join(posixpath.dirname(shown), f"{WHITEOUT_PREFIX}{name}")))
            elif not stat.S_ISREG(found.st_mode):
                _add_special(self._tar, member, found)
            elif found.st_nlink > 1 and (found.st_dev, found.st_ino) in self._seen:
                member.type, member.linkname = tarfile.LNKTYPE, self._seen[(found.st_dev, found.st_ino)]
                self._tar.addfile(member)
            else:
                self._seen[(found.st_dev, found.st_ino)] = shown
                _add_file(self._tar, parent, name, member)
        except FileNotFoundError:
            return

    def add_directory(self, descriptor: int, shown: str, found: os.stat_result) -> None:
        """Add a directory and all below it."""
        member = _member(shown, found)
        member.type = tarfile.DIRTYPE
        self._tar.addfile(member)
        if self._is_layer and is_opaque(f"/proc/self/fd/{descriptor}"):
            self._tar.addfile(tarfile.TarInfo(posixpath.join(shown, OPAQUE_NAME)))
        self.add_all(descriptor, f"{shown.rstrip('/')}/")

    def add_all(self, descriptor: int, prefix: str) -> None:
        """Add all that is in a directory."""
        for name in sorted(os.listdir(descriptor)):
            self.add(descriptor, name, f"{prefix}{name}")


def is_whiteout(found: os.stat_result) -> bool:
    """Tell whether an entry of a layer on the disk says that there is none of its name."""
    return stat.S_ISCHR(found.st_mode) and found.st_rdev == 0


def is_opaque(directory: Path | str) -> bool:
    """Tell whether a directory of a layer on the disk hides those below it."""
    try:
        return os.getxattr(directory, OPAQUE_ATTRIBUTE) == b"y"
    except OSError:
        return False


def _add_file(tar: tarfile.TarFile, parent: int, name: str, member: tarfile.TarInfo) -> None:
    flags = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    with os.fdopen(os.open(name, flags, dir_fd=parent), "rb") as file:
        # what it is by now, and never more than that: it may grow while it is read
        member.size = os.fstat(file.fileno()).st_size
        member.pax_headers = {
            f"SCHILY.xattr.{attribute}": os.getxattr(file.fileno(), attribute).decode("utf-8", "surrogateescape")
            for attribute in os.listxattr(file.fileno())
            if attribute.startswith(_XATTRS_TAKEN)
        }
        tar.addfile(member, _Padded(file, member.size))


class _Padded:
    """A file of a known size: cut off, or filled up with zeros, if it has another one by now."""

    def __init__(self, file: BinaryIO, size: int) -> None:
        self._file, self._left = file, size

    def read(self, count: int = -1, /) -> bytes:
        wanted = self._left if count < 0 else min(count, self._left)
        data = self._file.read(wanted)
        self._left -= wanted
        return data + bytes(wanted - len(data))


def _add_special(tar: tarfile.TarFile, member: tarfile.TarInfo, found: os.stat_result) -> None:
    if stat.S_ISFIFO(found.st_mode):
        member.type = tarfile.FIFOTYPE
    elif stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode):
        member.type = tarfile.CHRTYPE if stat.S_ISCHR(found.st_mode) else tarfile.BLKTYPE
        member.devmajor, member.devminor = os.major(found.st_rdev), os.minor(found.st_rdev)
    else:
        return  # a socket: no archive can hold one
    tar.addfile(member)


def _member(shown: str, found: os.stat_result) -> tarfile.TarInfo:
    member = tarfile.TarInfo(shown)
    member.mode, member.mtime = stat.S_IMODE(found.st_mode), int(found.st_mtime)
    member.uid, member.gid = found.st_uid, found.st_gid
    return member


def put(root: Path, path: str, archive: Path, keeps_kinds: bool, check: Callable[[str], None]) -> None:
    """Unpack a tar (plain or compressed) into a directory of a container.

    Args:
        root: of the container.
        path: the directory.
        archive: the tar.
        keeps_kinds: a directory is not replaced by something else, and nothing else by a directory.
        check: is given the place of everything in the container before it is made, and raises if it must not be.

    Raises:
        NotFound, InvalidArgument: no such directory; an archive that is broken or leads out of it.
        Forbidden: it cannot be written to.
    """
    with _opened(root, path, path) as descriptor:
        try:
            directory = Path(f"/proc/{os.getpid()}/fd/{descriptor}")
            unpack_files(archive, directory, keeps_kinds, lambda name: check(posixpath.join(path, name)))
        except OSError as error:
            if error.errno == errno.EROFS:
                raise Forbidden("container rootfs is marked read-only, or the volume is") from None
            raise InvalidArgument(f"cannot copy into {path} of the container: {error.strerror}") from None
