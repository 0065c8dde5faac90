"""The words of raft: entries, states that must be on disk, and messages between members.

Ids are positive integers, 0 means nobody. The messages are those of etcd/raft, which follow the Raft thesis (Ongaro
2014) with pre-vote (9.6), leadership transfer (3.10), read index (6.4) and joint configurations (4.3).
"""

from __future__ import annotations

from enum import StrEnum

import msgspec

NO_ONE = 0


class EntryType(StrEnum):
    """What an entry holds: data of the state machine, or a change of the members."""

    NORMAL = "EntryNormal"
    CONF_CHANGE = "EntryConfChange"
    CONF_CHANGE_V2 = "EntryConfChangeV2"


class Entry(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """One entry of the log."""

    term: int
    index: int
    type: EntryType = EntryType.NORMAL
    data: bytes = b""


class HardState(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What must be on disk before any message that depends on it leaves."""

    term: int = 0
    vote: int = NO_ONE
    commit: int = 0


class SoftState(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """What may be forgotten: who leads and what this member is."""

    leader: int = NO_ONE
    role: str = "StateFollower"


class ConfState(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """The members; with `voters_outgoing` the configuration is joint."""

    voters: tuple[int, ...] = ()
    learners: tuple[int, ...] = ()
    voters_outgoing: tuple[int, ...] = ()
    learners_next: tuple[int, ...] = ()
    auto_leave: bool = False


class SnapshotMeta(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """Up to where a snapshot reaches, and the members at that point. The state itself travels apart from messages."""

    index: int = 0
    term: int = 0
    conf_state: ConfState = ConfState()


class ConfChangeType(StrEnum):
    """One step of a change of members."""

    ADD_NODE = "ConfChangeAddNode"
    REMOVE_NODE = "ConfChangeRemoveNode"
    UPDATE_NODE = "ConfChangeUpdateNode"
    ADD_LEARNER = "ConfChangeAddLearnerNode"


class ConfChangeSingle(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A step: what happens to which member."""

    type: ConfChangeType
    node_id: int


class Transition(StrEnum):
    """How a change is made: AUTO takes the simple way when it can; the others are always joint."""

    AUTO = "auto"
    JOINT_IMPLICIT = "implicit"
    JOINT_EXPLICIT = "explicit"


class ConfChange(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A change of members. Without changes it leaves a joint configuration. `context` is the proposer's."""

    changes: tuple[ConfChangeSingle, ...] = ()
    transition: Transition = Transition.AUTO
    context: bytes = b""

    @property
    def leaves_joint(self) -> bool:
        """Whether this is the change that ends a joint configuration."""
        return not self.changes and self.transition is Transition.AUTO

    @property
    def enters_joint(self) -> bool:
        """Whether this change goes through a joint configuration."""
        return self.transition is not Transition.AUTO or len(self.changes) > 1

    @property
    def auto_leave(self) -> bool:
        """Whether the joint configuration is left by itself."""
        return self.transition is not Transition.JOINT_EXPLICIT


class MessageType(StrEnum):
    """Kinds of message, by etcd/raft's names."""

    HUP = "MsgHup"
    BEAT = "MsgBeat"
    PROPOSE = "MsgProp"
    APPEND = "MsgApp"
    APPEND_RESPONSE = "MsgAppResp"
    VOTE = "MsgVote"
    VOTE_RESPONSE = "MsgVoteResp"
    PRE_VOTE = "MsgPreVote"
    PRE_VOTE_RESPONSE = "MsgPreVoteResp"
    SNAPSHOT = "MsgSnap"
    HEARTBEAT = "MsgHeartbeat"
    HEARTBEAT_RESPONSE = "MsgHeartbeatResp"
    UNREACHABLE = "MsgUnreachable"
    SNAPSHOT_STATUS = "MsgSnapStatus"
    CHECK_QUORUM = "MsgCheckQuorum"
    TRANSFER_LEADER = "MsgTransferLeader"
    TIMEOUT_NOW = "MsgTimeoutNow"
    READ_INDEX = "MsgReadIndex"
    READ_INDEX_RESPONSE = "MsgReadIndexResp"
    FORGET_LEADER = "MsgForgetLeader"


# Messages a member sends itself; from another member they are a fault.
LOCAL_TYPES = frozenset(
    {
        MessageType.HUP,
        MessageType.BEAT,
        MessageType.UNREACHABLE,
        MessageType.SNAPSHOT_STATUS,
        MessageType.CHECK_QUORUM,
    }
)
RESPONSE_TYPES = frozenset(
    {
        MessageType.APPEND_RESPONSE,
        MessageType.VOTE_RESPONSE,
        MessageType.PRE_VOTE_RESPONSE,
        MessageType.HEARTBEAT_RESPONSE,
        MessageType.UNREACHABLE,
        MessageType.READ_INDEX_RESPONSE,
    }
)
# Responses that promise what must be on disk first: they leave after the append.
AFTER_APPEND_TYPES = frozenset({MessageType.APPEND_RESPONSE, MessageType.VOTE_RESPONSE, MessageType.PRE_VOTE_RESPONSE})


class Message(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A message. `log_term` and `index` name the entry before `entries`, or what the type makes of them."""

    type: MessageType
    to: int = NO_ONE
    sender: int = NO_ONE
    term: int = 0
    log_term: int = 0
    index: int = 0
    entries: tuple[Entry, ...] = ()
    commit: int = 0
    snapshot: SnapshotMeta | None = None
    reject: bool = False
    reject_hint: int = 0
    context: bytes = b""


class ReadState(msgspec.Struct, frozen=True, gc=False, omit_defaults=True):
    """A read may be served once `index` is applied; `context` is what was asked with."""

    index: int
    context: bytes


_conf_change_encoder = msgspec.msgpack.Encoder()
_conf_change_decoder = msgspec.msgpack.Decoder(ConfChange)


def encode_conf_change(change: ConfChange) -> bytes:
    """Return the data of an entry that changes the members."""
    return _conf_change_encoder.encode(change)


def decode_conf_change(data: bytes) -> ConfChange:
    """Read the data of an entry that changes the members; empty data leaves a joint configuration."""
    return _conf_change_decoder.decode(data) if data else ConfChange()
