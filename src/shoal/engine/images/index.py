"""The index of a node's images: SQLite under the image root, which several daemons may share.

Tables: images (config, manifest), layers (diff id → short directory), names. A change by another daemon is noticed
by SQLite's data version. Every method is short; those that write wait for the disk.
"""

from __future__ import annotations

import fcntl
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from shoal.engine.images.formats import record_of
from shoal.model.base import Struct, replace
from shoal.model.container import ImageRecord

FORMAT = 1
_BUSY_SECONDS = 30.0
_SCHEMA = """
CREATE TABLE IF NOT EXISTS images (id TEXT PRIMARY KEY, manifest_digest TEXT NOT NULL, config BLOB NOT NULL,
    size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS layers (number INTEGER PRIMARY KEY AUTOINCREMENT, diff_id TEXT UNIQUE NOT NULL,
    size INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS tags (reference TEXT PRIMARY KEY, image_id TEXT NOT NULL, tagged_at_ns INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS digests (reference TEXT PRIMARY KEY, image_id TEXT NOT NULL);
"""
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"


class Layer(Struct):
    """An unpacked layer; `directory` is its short name below the layer root."""

    diff_id: str
    directory: str
    size: int


def short_name(number: int) -> str:
    """Return a directory's name for a layer number: few characters, as overlayfs takes one page of options."""
    text = ""
    while number:
        number, digit = divmod(number, 36)
        text = _DIGITS[digit] + text
    return text or "0"


@contextmanager
def _one_at_a_time(path: Path) -> Iterator[None]:
    """Keep other daemons from opening and closing: SQLite does not wait while a journal changes its mode."""
    with path.open("ab") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Index:
    """See the module. Raises sqlite3.Error when the disk fails."""

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        self._door = path.with_name(f"{path.name}.lock")
        with _one_at_a_time(self._door):
            self._connection = sqlite3.connect(
                path, timeout=_BUSY_SECONDS, isolation_level=None, check_same_thread=False
            )
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA synchronous=FULL")
            self._connection.executescript(_SCHEMA)
            self._connection.execute(f"PRAGMA user_version={FORMAT}")
        self._seen_version = -1
        self._records: dict[str, ImageRecord] = {}
        self._manifests: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def close(self) -> None:
        """Close the database."""
        with self._lock, _one_at_a_time(self._door):
            self._connection.close()

    @contextmanager
    def _write(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
                self._connection.execute("COMMIT")
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._seen_version = -1

    def _refresh(self) -> None:
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version == self._seen_version:
            return
        tags: dict[str, list[tuple[str, int]]] = {}
        self._names.clear()
        for reference, image, tagged in self._connection.execute("SELECT reference, image_id, tagged_at_ns FROM tags"):
            tags.setdefault(image, []).append((reference, tagged))
            self._names[reference] = image
        digests: dict[str, list[str]] = {}
        for reference, image in self._connection.execute("SELECT reference, image_id FROM digests"):
            digests.setdefault(image, []).append(reference)
            self._names[reference] = image
        records, self._manifests = {}, {}
        for image, manifest, config, size in self._connection.execute("SELECT * FROM images"):
            named = sorted(tags.get(image, ()))
            records[image] = replace(
                record_of(config, size),
                tags=tuple(reference for reference, _ in named),
                digests=tuple(sorted(digests.get(image, ()))),
                tagged_at_ns=max((at for _, at in named), default=0),
            )
            self._manifests[image] = manifest
        self._records = records
        self._seen_version = version

    def records(self) -> dict[str, ImageRecord]:
        """Return all images by id; names are canonical."""
        with self._lock:
            self._refresh()
            return self._records

    def find_name(self, canonical: str) -> str | None:
        """Return the id of the image of a canonical name with tag or digest."""
        with self._lock:
            self._refresh()
            return self._names.get(canonical)

    def manifest_digest(self, image_id: str) -> str:
        """Return the digest of an image's manifest."""
        with self._lock:
            self._refresh()
            return self._manifests[image_id]

    def config(self, image_id: str) -> bytes:
        """Return the config of an image, byte for byte."""
        with self._lock:
            row = self._connection.execute("SELECT config FROM images WHERE id=?", (image_id,)).fetchone()
            return bytes(row[0])

    def layer(self, diff_id: str) -> Layer | None:
        """Return an unpacked layer."""
        with self._lock:
            query = "SELECT number, size FROM layers WHERE diff_id=?"
            row = self._connection.execute(query, (diff_id,)).fetchone()
            return Layer(diff_id=diff_id, directory=short_name(row[0]), size=row[1]) if row else None

    def layers(self) -> tuple[Layer, ...]:
        """Return all unpacked layers."""
        with self._lock:
            rows = self._connection.execute("SELECT number, diff_id, size FROM layers").fetchall()
            return tuple(
                Layer(diff_id=diff_id, directory=short_name(number), size=size) for number, diff_id, size in rows
            )

    def next_layer_number(self) -> int:
        """Reserve a number for a layer about to be unpacked; numbers are never used again."""
        with self._write() as connection:
            cursor = connection.execute("INSERT INTO layers (diff_id, size) VALUES ('reserved', 0)")
            connection.execute("DELETE FROM layers WHERE number=?", (cursor.lastrowid,))
            return int(cursor.lastrowid or 0)

    def add_layer(self, number: int, diff_id: str, size: int) -> None:
        """Enter a layer that is unpacked and on disk."""
        with self._write() as connection:
            connection.execute("INSERT INTO layers (number, diff_id, size) VALUES (?, ?, ?)", (number, diff_id, size))

    def remove_layer(self, diff_id: str) -> None:
        """Forget a layer."""
        with self._write() as connection:
            connection.execute("DELETE FROM layers WHERE diff_id=?", (diff_id,))

    def add_image(self, config: bytes, image_id: str, manifest_digest: str, size: int) -> None:
        """Enter an image all of whose layers are unpacked; a later manifest takes the place of an earlier."""
        with self._write() as connection:
            connection.execute(
                "INSERT INTO images VALUES (?, ?, ?, ?) "
                "ON CONFLICT (id) DO UPDATE SET manifest_digest=excluded.manifest_digest",
                (image_id, manifest_digest, config, size),
            )

    def set_tag(self, canonical: str, image_id: str, at_ns: int) -> None:
        """Give a name to an image, taking it from any other."""
        with self._write() as connection:
            connection.execute("INSERT OR REPLACE INTO tags VALUES (?, ?, ?)", (canonical, image_id, at_ns))

    def set_digest(self, canonical: str, image_id: str) -> None:
        """Note under which digest an image was pulled."""
        with self._write() as connection:
            connection.execute("INSERT OR REPLACE INTO digests VALUES (?, ?)", (canonical, image_id))

    def remove_name(self, canonical: str) -> None:
        """Take a tag or a digest name away."""
        with self._write() as connection:
            connection.execute("DELETE FROM tags WHERE reference=?", (canonical,))
            connection.execute("DELETE FROM digests WHERE reference=?", (canonical,))

    def remove_image(self, image_id: str) -> None:
        """Forget an image and all its names."""
        with self._write() as connection:
            for query in (
                "DELETE FROM tags WHERE image_id=?",
                "DELETE FROM digests WHERE image_id=?",
                "DELETE FROM images WHERE id=?",
            ):
                connection.execute(query, (image_id,))
