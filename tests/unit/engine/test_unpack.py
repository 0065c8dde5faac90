from __future__ import annotations

import gzip
import io
import os
import stat
import tarfile
from pathlib import Path

import pytest

from shoal.engine.images.unpack import split_name, unpack
from shoal.errors import InvalidArgument


def archive(*members: tuple[tarfile.TarInfo, bytes], path: Path) -> Path:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as file:
        for member, content in members:
            member.size = len(content)
            member.uid, member.gid = os.getuid(), os.getgid()
            file.addfile(member, io.BytesIO(content))
    path.write_bytes(buffer.getvalue())
    return path


def member(name: str, kind: bytes = tarfile.REGTYPE, link: str = "", mode: int = 0o644) -> tarfile.TarInfo:
    info = tarfile.TarInfo(name)
    info.type, info.linkname, info.mode = kind, link, mode
    return info


def test_names() -> None:
    assert split_name("./a//b/") == ["a", "b"]
    assert split_name("/abs") == ["abs"]
    with pytest.raises(InvalidArgument, match="leads out"):
        split_name("a/../../b")


def test_files_links_and_modes(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    path = archive(
        (member("d", tarfile.DIRTYPE, mode=0o1777), b""),
        (member("d/file", mode=0o4755), b"content"),
        (member("d/hard", tarfile.LNKTYPE, "d/file"), b""),
        (member("soft", tarfile.SYMTYPE, "/etc/passwd"), b""),
        (member("implied/deep/file"), b"x"),
        path=tmp_path / "tar",
    )
    path.write_bytes(gzip.compress(path.read_bytes()))
    digest, size = unpack(path, target)
    assert digest.startswith("sha256:")
    assert size == 8
    assert stat.S_IMODE((target / "d").stat().st_mode) == 0o1777
    assert stat.S_IMODE((target / "d/file").stat().st_mode) == 0o4755
    assert (target / "d/hard").stat().st_ino == (target / "d/file").stat().st_ino
    assert (target / "soft").readlink() == Path("/etc/passwd")


@pytest.mark.parametrize(
    "members",
    [
        [(member("../escape"), b"x")],
        [(member("link", tarfile.SYMTYPE, "/tmp"), b""), (member("link/escape"), b"x")],
        [(member("hard", tarfile.LNKTYPE, "../../etc/passwd"), b"")],
        [(member("link", tarfile.SYMTYPE, "/etc"), b""), (member("hard", tarfile.LNKTYPE, "link/passwd"), b"")],
        [(member("hard", tarfile.LNKTYPE, "missing"), b"")],
        [(member(".wh..."), b"")],
    ],
)
def test_escapes_are_refused(tmp_path: Path, members: list) -> None:
    target = tmp_path / "out"
    target.mkdir()
    with pytest.raises(InvalidArgument):
        unpack(archive(*members, path=tmp_path / "tar"), target)
    assert not (tmp_path / "escape").exists()


def test_a_file_over_a_link_replaces_the_link(tmp_path: Path) -> None:
    target, outside = tmp_path / "out", tmp_path / "outside"
    target.mkdir()
    outside.write_text("kept")
    unpack(
        archive((member("f", tarfile.SYMTYPE, str(outside)), b""), (member("f"), b"new"), path=tmp_path / "tar"), target
    )
    assert outside.read_text() == "kept"
    assert (target / "f").read_text() == "new"


@pytest.mark.root
def test_whiteouts(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    unpack(archive((member("d/.wh.gone"), b""), (member("d/.wh..wh..opq"), b""), path=tmp_path / "tar"), target)
    found = (target / "d/gone").stat()
    assert stat.S_ISCHR(found.st_mode)
    assert found.st_rdev == 0
    assert os.getxattr(target / "d", "trusted.overlay.opaque") == b"y"


def test_broken_archives(tmp_path: Path) -> None:
    target = tmp_path / "out"
    target.mkdir()
    (tmp_path / "tar").write_bytes(b"no tar at all" * 100)
    with pytest.raises(InvalidArgument, match="no whole tar"):
        unpack(tmp_path / "tar", target)
