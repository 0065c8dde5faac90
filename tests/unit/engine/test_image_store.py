from __future__ import annotations

import asyncio
import io
import os
import tarfile
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from shoal.engine.events import NodeEvents
from shoal.engine.images.images import LocalImages
from shoal.errors import InvalidArgument, NotFound
from shoal.lib.clock import ManualClock

pytestmark = pytest.mark.root


def store(root: Path, name: str = "one") -> LocalImages:
    clock = ManualClock()
    return LocalImages(root, name, "x86_64", clock, lambda _image_id: (), NodeEvents(clock))


def archive(*names: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as tar:
        for name in names:
            info = tarfile.TarInfo(name)
            info.size, info.uid, info.gid = len(name), os.getuid(), os.getgid()
            tar.addfile(info, io.BytesIO(name.encode()))
    return buffer.getvalue()


async def pieces(content: bytes) -> AsyncIterator[bytes]:
    yield content


def on_disk(root: Path) -> set[str]:
    found = {path.relative_to(root).as_posix() for part in ("blobs", "l", "tmp") for path in (root / part).rglob("*")}
    return {name for name in found if name != "blobs/sha256"}


def test_what_a_killed_daemon_left_is_taken_away(tmp_path: Path) -> None:
    async def run() -> None:
        images = store(tmp_path)
        kept = await images.import_root(pieces(archive("a")), "kept")
        whole = on_disk(tmp_path)
        for place in ("tmp/half/layer", "l/9.tmp/file", "l/8/file", f"blobs/sha256/{'0' * 64}"):
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / place).write_text("half")
        images.close()
        again = store(tmp_path)
        # while another daemon is at work its blobs and its directory are let be
        with again.content.holding_blobs():
            again.start_up()
            assert (tmp_path / "tmp/half").is_dir()
            assert (tmp_path / f"blobs/sha256/{'0' * 64}").exists()
        again.start_up()
        assert on_disk(tmp_path) == whole
        assert again.get("kept").id == kept.id
        again.close()

    asyncio.run(run())


def test_a_failure_leaves_nothing_and_the_rest_whole(tmp_path: Path) -> None:
    async def run() -> None:
        images = store(tmp_path)
        await images.import_root(pieces(archive("a")), "kept")
        whole = on_disk(tmp_path)
        with pytest.raises(InvalidArgument, match="no whole tar"):
            await images.import_root(pieces(b"rubbish" * 100), "new")
        with pytest.raises(InvalidArgument, match="invalid archive"):
            await images.load(pieces(archive("manifest.json")))
        assert on_disk(tmp_path) == whole
        images.close()

    asyncio.run(run())


def test_layers_are_kept_while_an_image_names_them(tmp_path: Path) -> None:
    async def run() -> None:
        images = store(tmp_path)
        first = await images.import_root(pieces(archive("a")), "first")
        await images.import_root(pieces(archive("a")), "second", ("ENV A=1",))
        usage = images.usage()
        assert usage.layers_bytes == usage.shared_bytes[first.id] == 1
        removed, freed_bytes = await images.prune(lambda image: image.id == first.id)
        assert [what for what, _ in removed] == ["Untagged", "Deleted"]
        assert freed_bytes == 0
        removed, freed_bytes = await images.prune(lambda _image: True)
        assert freed_bytes == 1
        assert on_disk(tmp_path) == set()
        with pytest.raises(NotFound):
            images.get("second")
        images.close()

    asyncio.run(run())
