"""Files of a container out and in: nothing in it leads to a file of the host."""

from __future__ import annotations

import io
import os
import tarfile
from pathlib import Path

import pytest

from shoal.engine.copying import pack, put, stat_path
from shoal.errors import InvalidArgument, NotBuilt, NotFound


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "secret").write_text("of the host")
    root = tmp_path / "root"
    (root / "etc").mkdir(parents=True)
    (root / "etc" / "name").write_text("of the container")
    (root / "absolute").symlink_to("/etc")
    (root / "outside").symlink_to("../secret")
    (root / "above").symlink_to("..")
    os.link(root / "etc" / "name", root / "etc" / "same")
    return root


def packed(root: Path, path: str) -> dict[str, tuple[bytes, str]]:
    output = io.BytesIO()
    pack(root, path, output)
    with tarfile.open(fileobj=io.BytesIO(output.getvalue())) as archive:
        return {member.name: (member.type, member.linkname) for member in archive}


def archive_of(tmp_path: Path, *members: tuple[str, bytes, str]) -> Path:
    path = tmp_path / "archive.tar"
    with tarfile.open(path, "w") as archive:
        for name, kind, target in members:
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, target
            member.uid, member.gid = os.getuid(), os.getgid()
            archive.addfile(member)
    return path


def test_what_is_told_and_packed(root: Path) -> None:
    assert stat_path(root, "/etc/name").size_bytes == len("of the container")
    assert stat_path(root, "absolute").link_target == "/etc"
    assert stat_path(root, "/absolute/.").name == "absolute"
    assert stat_path(root, "/").name == "/"
    assert packed(root, "/absolute/name") == {"name": (tarfile.REGTYPE, "")}
    assert packed(root, "/etc") == {
        "etc": (tarfile.DIRTYPE, ""),
        "etc/name": (tarfile.REGTYPE, ""),
        "etc/same": (tarfile.LNKTYPE, "etc/name"),
    }
    assert packed(root, "/outside") == {"outside": (tarfile.SYMTYPE, "../secret")}


@pytest.mark.parametrize("path", ["/outside/.", "/above/secret", "/../secret", "/above/../../secret", "/etc/nothing"])
def test_no_path_leads_out(root: Path, path: str) -> None:
    with pytest.raises(NotFound):
        stat_path(root, path)
    with pytest.raises(NotFound):
        pack(root, path, io.BytesIO())


@pytest.mark.parametrize(
    ("member", "text"),
    [
        (("../secret", tarfile.REGTYPE, ""), "leads out"),
        (("above/new", tarfile.REGTYPE, ""), "is no directory"),
        (("linked", tarfile.LNKTYPE, "above/secret"), "is no directory"),
        (("etc", tarfile.REGTYPE, ""), "cannot overwrite directory 'etc' with non-directory"),
        (("etc/name", tarfile.DIRTYPE, ""), "cannot overwrite non-directory 'etc/name' with directory"),
    ],
)
def test_no_archive_leads_out(root: Path, tmp_path: Path, member: tuple[str, bytes, str], text: str) -> None:
    with pytest.raises(InvalidArgument, match=text):
        put(root, "/", archive_of(tmp_path, member), True, lambda _place: None)
    assert (tmp_path / "secret").read_text() == "of the host"
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["archive.tar", "root", "secret"]


def test_what_is_put(root: Path, tmp_path: Path) -> None:
    places: list[str] = []
    archive = archive_of(tmp_path, ("name", tarfile.REGTYPE, ""), (".wh.name", tarfile.REGTYPE, ""))
    put(root, "/absolute", archive, True, places.append)
    assert places == ["/absolute/name", "/absolute/.wh.name"]
    assert (root / "etc" / "name").read_text() == ""
    assert (root / "etc" / ".wh.name").is_file(), "no name is special here"

    def refuse(place: str) -> None:
        raise NotBuilt(place)

    with pytest.raises(NotBuilt):
        put(root, "/etc", archive, False, refuse)
    with pytest.raises(InvalidArgument, match="not a directory"):
        put(root, "/etc/name", archive, False, places.append)
