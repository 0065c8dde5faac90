"""What a member does that does not lead: followers, candidates and those who ask first."""

from __future__ import annotations

from msgspec.structs import replace

from shoal.raft.core.confchange import restore
from shoal.raft.core.messages import NO_ONE, Message, MessageType, ReadState
from shoal.raft.core.quorum import VoteResult
from shoal.raft.core.raft import ProposalDropped, Raft, Role
from shoal.raft.core.tracker import Tracker


def step(raft: Raft, message: Message) -> None:
    """Take a message of the own term (or a local one). Raises ProposalDropped."""
    match message.type:
        case MessageType.PROPOSE:
            raise ProposalDropped("this member does not lead")
        case MessageType.APPEND | MessageType.HEARTBEAT | MessageType.SNAPSHOT:
            _hear_leader(raft, message)
        case MessageType.VOTE_RESPONSE | MessageType.PRE_VOTE_RESPONSE:
            _count_vote(raft, message)
        case MessageType.TIMEOUT_NOW if raft.role is Role.FOLLOWER:
            # The leader hands over: no asking first, it would be refused while the leader is alive.
            raft.hup(transfer=True)
        case MessageType.TRANSFER_LEADER | MessageType.READ_INDEX if raft.role is Role.FOLLOWER:
            if raft.leader != NO_ONE:
                raft.send(replace(message, to=raft.leader, sender=message.sender or raft.id))
        case MessageType.FORGET_LEADER if raft.role is Role.FOLLOWER:
            raft.leader = NO_ONE
        case MessageType.READ_INDEX_RESPONSE if len(message.entries) == 1:
            raft.read_states.append(ReadState(message.index, message.entries[0].data))
        case _:
            return


def _hear_leader(raft: Raft, message: Message) -> None:
    if raft.role is not Role.FOLLOWER:
        raft.become_follower(message.term, message.sender)
    raft.election_elapsed = 0
    raft.leader = message.sender
    match message.type:
        case MessageType.APPEND:
            _take_entries(raft, message)
        case MessageType.HEARTBEAT:
            raft.log.commit_to(message.commit)
            raft.send(Message(MessageType.HEARTBEAT_RESPONSE, to=message.sender, context=message.context))
        case _:
            _take_snapshot(raft, message)


def _take_entries(raft: Raft, message: Message) -> None:
    log = raft.log
    if message.index < log.committed:
        raft.send(Message(MessageType.APPEND_RESPONSE, to=message.sender, index=log.committed))
        return
    last = log.try_append(message.log_term, message.index, message.entries, message.commit)
    if last is not None:
        raft.send(Message(MessageType.APPEND_RESPONSE, to=message.sender, index=last))
        return
    # Say where the logs may agree, a term at a time instead of an entry at a time.
    hint = min(message.index, log.last_index())
    hint, term = log.find_conflict_by_term(hint, message.log_term)
    raft.send(
        Message(
            MessageType.APPEND_RESPONSE,
            to=message.sender,
            index=message.index,
            reject=True,
            reject_hint=hint,
            log_term=term,
        )
    )


def _take_snapshot(raft: Raft, message: Message) -> None:
    snapshot = message.snapshot
    assert snapshot is not None, "a snapshot message holds a snapshot"
    taken = _restore(raft, message)
    index = raft.log.last_index() if taken else raft.log.committed
    raft.send(Message(MessageType.APPEND_RESPONSE, to=message.sender, index=index))


def _restore(raft: Raft, message: Message) -> bool:
    """Begin anew from a snapshot; False if it brings nothing new.

    The snapshot may not name this member: it is then older than the change that added it, which comes with the entries
    after the snapshot. (etcd refuses such a snapshot, and makes a fresh one whenever one is sent.)
    """
    snapshot = message.snapshot
    assert snapshot is not None, "a snapshot message holds a snapshot"
    if snapshot.index <= raft.log.committed or raft.role is not Role.FOLLOWER:
        return False
    if raft.log.matches(snapshot.term, snapshot.index):
        raft.log.commit_to(snapshot.index)
        return False
    raft.log.restore(snapshot)
    raft.tracker = Tracker(raft.config.inflight_messages_most, raft.config.inflight_bytes_most)
    raft.switch_config(*restore(raft.tracker, raft.log.last_index(), snapshot.conf_state))
    return True


def _learn_commit(raft: Raft, message: Message) -> None:
    """Take from a rejection how far the log is committed: what one member knows to be, is, if this log agrees."""
    log = raft.log
    if not message.commit or message.commit <= log.committed or not log.matches(message.log_term, message.commit):
        return
    log.commit_to(message.commit)
    if raft.role is not Role.FOLLOWER and raft.has_unapplied_conf_change():
        raft.become_follower(raft.term, NO_ONE)  # the votes may be other members' to give


def _count_vote(raft: Raft, message: Message) -> None:
    _learn_commit(raft, message)
    own_kind = {
        Role.CANDIDATE: MessageType.VOTE_RESPONSE,
        Role.PRE_CANDIDATE: MessageType.PRE_VOTE_RESPONSE,
    }
    if own_kind.get(raft.role) is not message.type:
        return
    result = raft.poll(message.sender, not message.reject)
    if result is VoteResult.WON:
        if raft.role is Role.PRE_CANDIDATE:
            raft.campaign(MessageType.VOTE)
        else:
            raft.become_leader()
            raft.broadcast_append()
    elif result is VoteResult.LOST:
        # A rejection brings no newer term here: the term stays, nobody leads yet.
        raft.become_follower(raft.term, NO_ONE)
