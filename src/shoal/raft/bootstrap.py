"""How a log begins: found a group, join one with an empty log, or go on alone with the log of a group that is lost."""

from __future__ import annotations

from collections.abc import Iterable

from shoal.errors import Conflict
from shoal.raft.core.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    HardState,
    SnapshotMeta,
    decode_conf_change,
    encode_conf_change,
)
from shoal.raft.core.storage import MemoryStorage
from shoal.raft.disk import LogDatabase
from shoal.raft.sealing import KeyFile, Sealer
from shoal.raft.settings import DriverSettings
from shoal.raft.snapshots import SnapshotFiles

FIRST_TERM = 1


def open_log(database: LogDatabase, settings: DriverSettings) -> MemoryStorage:
    """Load the log, begun or ended as the settings say. Raises Conflict."""
    storage = database.load()
    if settings.forgets_others:
        forget_others(database, storage, settings.raft_id)
    elif settings.founds and is_empty(storage):
        found_group(database, storage, settings.raft_id)
    return storage


def is_empty(storage: MemoryStorage) -> bool:
    """Whether nothing was ever written to this log."""
    return storage.last_index() == 0 and not storage.snapshot().conf_state.voters


def found_group(database: LogDatabase, storage: MemoryStorage, raft_id: int) -> None:
    """Begin an empty log with the committed entry that adds its founder, so that others can replay it from there."""
    entry = _change_entry(FIRST_TERM, 1, ConfChangeType.ADD_NODE, raft_id)
    _write(database, storage, [entry], HardState(term=FIRST_TERM, commit=1))


def begin_from_state(settings: DriverSettings, chunks: Iterable[bytes], index: int, term: int) -> None:
    """Begin a log of one member with a state that was kept elsewhere, as if a snapshot of it had just been taken.

    Args:
        settings: of the member; its folder is empty.
        chunks: the state.
        index: where the log goes on: beyond everything that anybody may have seen of the state's former log.
        term: beyond any term of it.

    Raises:
        OSError: it could not be written; nothing of it counts then.
    """
    settings.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    key_file = KeyFile(settings.folder / "key", settings.cluster_id)
    key_file.load(settings.unlock_key)
    sealer = Sealer(key_file.keys, settings.cluster_id.encode())
    writer = SnapshotFiles(settings.folder / "snapshots", sealer).begin(index)
    writer.open()
    for chunk in chunks:
        writer.write(chunk)
    writer.finish()
    database = LogDatabase(settings.folder / "log.sqlite", sealer)
    try:
        members = ConfState(voters=(settings.raft_id,))
        database.write((), HardState(term=term, commit=index), SnapshotMeta(index, term, members))
    finally:
        database.close()


def forget_others(database: LogDatabase, storage: MemoryStorage, raft_id: int) -> None:
    """Make this member the only one, keeping all entries it has, known to be committed or not.

    As etcd does to force a new cluster: changes of members that nobody voted on end the log, and all of it counts as
    committed. One write: killed before it nothing has happened, and doing it again changes nothing more.

    Raises:
        Conflict: there is no log to go on with.
    """
    if is_empty(storage):
        raise Conflict("this node has no log of a swarm to make a new one from")
    last = storage.last_index()
    entries = storage.entries(storage.first_index(), last + 1, 1 << 62)
    state = storage.snapshot().conf_state
    others = {*state.voters, *state.learners, *state.voters_outgoing, *state.learners_next}
    for entry in entries:
        if entry.type is not EntryType.NORMAL:
            others.update(change.node_id for change in decode_conf_change(entry.data).changes)
    others.discard(raft_id)
    # A term of its own: another member may go on writing in the present one.
    term = storage.hard_state.term + 1
    kinds = [(ConfChangeType.ADD_NODE, raft_id), *((ConfChangeType.REMOVE_NODE, other) for other in sorted(others))]
    changes = [
        _change_entry(term, last + position, kind, member) for position, (kind, member) in enumerate(kinds, start=1)
    ]
    _write(database, storage, changes, HardState(term=term, vote=raft_id, commit=last + len(changes)))


def _change_entry(term: int, index: int, kind: ConfChangeType, member: int) -> Entry:
    change = ConfChange((ConfChangeSingle(kind, member),))
    return Entry(term, index, EntryType.CONF_CHANGE_V2, encode_conf_change(change))


def _write(database: LogDatabase, storage: MemoryStorage, entries: list[Entry], hard_state: HardState) -> None:
    database.write(entries, hard_state)
    storage.append(entries)
    storage.hard_state = hard_state
