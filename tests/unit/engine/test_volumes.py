"""Volumes on disk: kept, removed in one step, taken up again by the next daemon."""

from __future__ import annotations

from pathlib import Path

import pytest

from shoal.engine.volumes import LocalVolumes
from shoal.errors import NotFound
from shoal.lib.clock import ManualClock


def opened(root: Path) -> LocalVolumes:
    volumes = LocalVolumes(root, ManualClock())
    volumes.start_up()
    return volumes


def test_a_volume_is_there_after_a_restart_with_all_it_was_made_of(tmp_path: Path) -> None:
    first = opened(tmp_path)
    made = first.create("vol", "local", {"type": "tmpfs", "device": "tmpfs"}, {"a": "b"})
    assert opened(tmp_path).get("vol") == made
    again = first.create("vol", "", {}, {"other": "label"})
    assert again == made, "a second request changes nothing"


def test_data_is_fresh_once(tmp_path: Path) -> None:
    volumes = opened(tmp_path)
    volumes.create("vol", "", {}, {})
    path, is_fresh = volumes.provide("vol")
    assert is_fresh
    (path / "file").write_text("12345")
    assert opened(tmp_path).provide("vol") == (path, False)
    assert volumes.size_bytes("vol") == 5


def test_a_removed_volume_is_gone_with_its_data(tmp_path: Path) -> None:
    volumes = opened(tmp_path)
    volumes.create("vol", "", {}, {})
    (volumes.provide("vol")[0] / "file").write_text("x")
    volumes.remove("vol")
    assert list(tmp_path.iterdir()) == []
    for call in (volumes.get, volumes.provide, volumes.remove):
        with pytest.raises(NotFound, match="get vol: no such volume"):
            call("vol")


def test_what_a_crash_left_is_put_right(tmp_path: Path) -> None:
    (tmp_path / "old" / "_data").mkdir(parents=True)
    (tmp_path / "half").mkdir()
    (tmp_path / ".removed-gone" / "_data").mkdir(parents=True)
    volumes = opened(tmp_path)
    assert [volume.name for volume in volumes.list()] == ["old"], "what an earlier version wrote is a volume"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["old"]
