"""What a leader does: proposals, replication, heartbeats, reads, handing over."""

from __future__ import annotations

from shoal.raft.core.confchange import ConfChangeError
from shoal.raft.core.log import CompactedError, SnapshotUnavailableError, UnavailableError, entry_bytes
from shoal.raft.core.messages import (
    NO_ONE,
    Entry,
    EntryType,
    Message,
    MessageType,
    ReadState,
    decode_conf_change,
)
from shoal.raft.core.quorum import VoteResult, joint_vote_result
from shoal.raft.core.raft import ProposalDropped, Raft
from shoal.raft.core.tracker import Progress, ProgressState


def step(raft: Raft, message: Message) -> None:
    """Take a message of the own term (or a local one). Raises ProposalDropped."""
    match message.type:
        case MessageType.BEAT:
            broadcast_heartbeat(raft, raft.read_only.last_context())
        case MessageType.CHECK_QUORUM:
            _check_quorum(raft)
        case MessageType.PROPOSE:
            _propose(raft, message)
        case MessageType.READ_INDEX:
            _read_index(raft, message)
        case MessageType.FORGET_LEADER:
            return
        case _:
            progress = raft.tracker.progress.get(message.sender)
            if progress is not None:
                _step_member(raft, message, progress)


def _step_member(raft: Raft, message: Message, progress: Progress) -> None:
    match message.type:
        case MessageType.APPEND_RESPONSE:
            progress.recent_active = True
            if message.reject:
                _take_rejection(raft, message, progress)
            else:
                _take_acknowledgement(raft, message, progress)
        case MessageType.HEARTBEAT_RESPONSE:
            progress.recent_active = True
            progress.append_flow_paused = False
            if progress.match < raft.log.last_index() or progress.state is ProgressState.PROBE:
                send_append(raft, message.sender)
            _confirm_reads(raft, message)
        case MessageType.SNAPSHOT_STATUS if progress.state is ProgressState.SNAPSHOT:
            if message.reject:
                progress.pending_snapshot = 0
            progress.become_probe()
            # It acknowledges when it has the snapshot (or a heartbeat comes by): nothing before.
            progress.append_flow_paused = True
        case MessageType.UNREACHABLE if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        case MessageType.TRANSFER_LEADER:
            _transfer(raft, message, progress)
        case _:
            return


# -- proposals and reads


def _propose(raft: Raft, message: Message) -> None:
    assert message.entries, "a proposal holds entries"
    if raft.id not in raft.tracker.progress:
        raise ProposalDropped("this member was removed")
    if raft.transferee != NO_ONE:
        raise ProposalDropped("leadership is being handed over")
    entries: list[Entry] = []
    for position, entry in enumerate(message.entries, start=1):
        if entry.type is not EntryType.NORMAL:
            entry = _check_conf_change(raft, entry, raft.log.last_index() + position)
        entries.append(entry)
    if not raft.append_entries(entries):
        raise ProposalDropped("too much is uncommitted")
    broadcast_append(raft)


def _check_conf_change(raft: Raft, entry: Entry, index: int) -> Entry:
    """One change of members at a time: a change that may not be now becomes an empty entry.

    A change that breaks the rules (it would leave no voter) raises ProposalDropped. As nothing else is pending, the
    members it will be applied to are those of now; applied, it would be the end of every member.
    """
    change = decode_conf_change(entry.data)
    joint = raft.tracker.config.is_joint
    pending = raft.pending_conf_index > raft.log.applied
    refused = pending or (joint and not change.leaves_joint) or (not joint and change.leaves_joint)
    if refused:
        return Entry(0, 0)
    try:
        raft.work_out(change)
    except ConfChangeError as error:
        raise ProposalDropped(str(error)) from error
    raft.pending_conf_index = index
    return entry


def _read_index(raft: Raft, message: Message) -> None:
    # Also one voter alone waits for an entry of its term: after a restart its commit index may be an old one, since it
    # is not synced by itself. (etcd answers at once.)
    if not raft.has_committed_own_term:
        raft.pending_reads.append(message)
    elif raft.tracker.is_singleton and raft.id in raft.tracker.config.voters:
        respond_read(raft, message, raft.log.committed)
    else:
        _begin_read(raft, message)


def _begin_read(raft: Raft, message: Message) -> None:
    context = raft.read_only.add(raft.log.committed, message)
    raft.read_only.acknowledge(raft.id, context)
    broadcast_heartbeat(raft, context)


def respond_read(raft: Raft, request: Message, index: int) -> None:
    """Answer a read: here, or to the follower that asked."""
    if request.sender in (NO_ONE, raft.id):
        raft.read_states.append(ReadState(index, request.entries[0].data))
    else:
        raft.send(Message(MessageType.READ_INDEX_RESPONSE, to=request.sender, index=index, entries=request.entries))


def _confirm_reads(raft: Raft, message: Message) -> None:
    if not message.context:
        return
    votes = dict.fromkeys(raft.read_only.acknowledge(message.sender, message.context), True)
    config = raft.tracker.config
    if joint_vote_result(config.incoming, config.outgoing, votes) is VoteResult.WON:
        for request, index in raft.read_only.advance(message.context):
            respond_read(raft, request, index)


def _check_quorum(raft: Raft) -> None:
    own = raft.tracker.progress.get(raft.id)
    if own is not None:
        own.recent_active = True
    if not raft.tracker.is_quorum_active():
        raft.become_follower(raft.term, NO_ONE)
    for member, progress in raft.tracker.members():
        if member != raft.id:
            progress.recent_active = False


# -- acknowledgements


def _take_rejection(raft: Raft, message: Message, progress: Progress) -> None:
    """Find where the logs agree, skipping whole terms: the hint is the follower's, the term tells what to skip."""
    next_probe = message.reject_hint
    if message.log_term > 0:
        next_probe, _ = raft.log.find_conflict_by_term(message.reject_hint, message.log_term)
    if progress.may_decrease(message.index, next_probe):
        if progress.state is ProgressState.REPLICATE:
            progress.become_probe()
        send_append(raft, message.sender)


def _take_acknowledgement(raft: Raft, message: Message, progress: Progress) -> None:
    agreed_in_probe = progress.match == message.index and progress.state is ProgressState.PROBE
    if not progress.may_update(message.index) and not agreed_in_probe:
        return
    if progress.state is ProgressState.PROBE:
        progress.become_replicate()
    elif progress.state is ProgressState.SNAPSHOT and progress.match + 1 >= raft.log.first_index():
        # It has what the log cannot give any more; through probe, so that the window is empty.
        progress.become_probe()
        progress.become_replicate()
    elif progress.state is ProgressState.REPLICATE:
        progress.inflights.free_to(message.index)
    if maybe_commit(raft):
        broadcast_append(raft)
    elif message.sender != raft.id and progress.can_bump_commit(raft.log.committed):
        # The next heartbeat would tell it the commit index, too; this may be earlier.
        send_append(raft, message.sender)
    if message.sender != raft.id:
        while _maybe_send_append(raft, message.sender, send_if_empty=False):
            pass
    if message.sender == raft.transferee and progress.match == raft.log.last_index():
        raft.send(Message(MessageType.TIMEOUT_NOW, to=message.sender))


def maybe_commit(raft: Raft) -> bool:
    """Raise the commit index if a quorum allows; whether it rose. Reads may wait for it."""
    rose = raft.log.try_commit(raft.tracker.committed, raft.term)
    if rose:
        _release_pending_reads(raft)
    return rose


def _release_pending_reads(raft: Raft) -> None:
    if raft.pending_reads and raft.has_committed_own_term:
        pending, raft.pending_reads = raft.pending_reads, []
        for message in pending:
            _read_index(raft, message)


# -- sending


def broadcast_append(raft: Raft) -> None:
    """Send every other member what it lacks, or an empty append."""
    for member, _ in raft.tracker.members():
        if member != raft.id:
            send_append(raft, member)


def send_append(raft: Raft, member: int) -> None:
    """Send a member what it lacks, an empty append if nothing, unless it is paused."""
    _maybe_send_append(raft, member, send_if_empty=True)


def _maybe_send_append(raft: Raft, member: int, send_if_empty: bool) -> bool:
    progress = raft.tracker.progress[member]
    if progress.is_paused:
        return False
    previous = progress.next - 1
    try:
        previous_term = raft.log.term(previous)
    except (CompactedError, UnavailableError):
        return _send_snapshot(raft, member, progress)
    entries: list[Entry] = []
    if progress.state is not ProgressState.REPLICATE or not progress.inflights.is_full:
        try:
            last = raft.log.last_index()
            entries = raft.log.entries(progress.next, last + 1, raft.config.message_bytes_most)
        except (CompactedError, UnavailableError):
            return _send_snapshot(raft, member, progress)
    if not entries and not send_if_empty:
        return False
    raft.send(
        Message(
            MessageType.APPEND,
            to=member,
            index=previous,
            log_term=previous_term,
            entries=tuple(entries),
            commit=raft.log.committed,
        )
    )
    progress.sent_entries(len(entries), sum(entry_bytes(entry) for entry in entries))
    progress.sent_commit = raft.log.committed
    return True


def _send_snapshot(raft: Raft, member: int, progress: Progress) -> bool:
    if not progress.recent_active:
        return False  # it would go to waste
    pending = raft.log.pending_snapshot
    try:
        snapshot = raft.log.storage.snapshot() if pending is None else pending
    except SnapshotUnavailableError:
        return False
    assert snapshot.index > 0, "entries were compacted, so there is a snapshot"
    progress.become_snapshot(snapshot.index)
    raft.send(Message(MessageType.SNAPSHOT, to=member, snapshot=snapshot))
    return True


def broadcast_heartbeat(raft: Raft, context: bytes) -> None:
    """Tell every other member who leads, and what of its log is committed."""
    for member, progress in raft.tracker.members():
        if member != raft.id:
            # Never beyond what the member is known to have.
            commit = min(progress.match, raft.log.committed)
            raft.send(Message(MessageType.HEARTBEAT, to=member, commit=commit, context=context))
            progress.sent_commit = commit


# -- members


def after_conf_change(raft: Raft) -> None:
    """Go on under a new configuration: a smaller quorum may commit at once, new members are sent the log."""
    if maybe_commit(raft):
        broadcast_append(raft)
        return
    for member, _ in raft.tracker.members():
        if member != raft.id:
            _maybe_send_append(raft, member, send_if_empty=False)


def _transfer(raft: Raft, message: Message, progress: Progress) -> None:
    """Hand the lead over: bring the heir up to date, then tell it to stand at once (thesis 3.10)."""
    heir = message.sender
    if progress.is_learner or heir == raft.transferee:
        return
    raft.transferee = NO_ONE
    if heir == raft.id:
        return  # a transfer under way was taken back
    raft.election_elapsed = 0
    raft.transferee = heir
    if progress.match == raft.log.last_index():
        raft.send(Message(MessageType.TIMEOUT_NOW, to=heir))
    else:
        progress.append_flow_paused = False
        send_append(raft, heir)
