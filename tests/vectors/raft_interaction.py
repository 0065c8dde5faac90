"""Carries out etcd/raft's interaction scripts on our members, and describes what happens in their words.

Owns the environment (members, the messages between them) and the commands. What is compared with the scripts is left to
`test_raft_interaction.py`.
"""

from __future__ import annotations

from collections.abc import Iterable

from shoal.raft.core.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    ConfState,
    Entry,
    EntryType,
    HardState,
    Message,
    MessageType,
    SnapshotMeta,
    Transition,
    decode_conf_change,
    encode_conf_change,
)
from shoal.raft.core.raft import ProposalDropped, RaftConfig
from shoal.raft.core.rawnode import RawNode, Ready
from shoal.raft.core.storage import MemoryStorage
from tests.vectors.datadriven import Case

ELECTION_TICKS = 3
STEP_LETTERS = {
    "v": ConfChangeType.ADD_NODE,
    "l": ConfChangeType.ADD_LEARNER,
    "r": ConfChangeType.REMOVE_NODE,
    "u": ConfChangeType.UPDATE_NODE,
}
LETTERS = {kind: letter for letter, kind in STEP_LETTERS.items()}
TRANSITIONS = {
    "auto": Transition.AUTO,
    "implicit": Transition.JOINT_IMPLICIT,
    "explicit": Transition.JOINT_EXPLICIT,
}
READ_ALL_BYTES = 1 << 60


class HistoryStorage(MemoryStorage):
    """Its snapshot is always of the last entry applied, as in the scripts."""

    def __init__(self) -> None:
        super().__init__()
        self.history: list[SnapshotMeta] = [SnapshotMeta()]

    def snapshot(self) -> SnapshotMeta:
        return self.history[-1]


class InteractionMember:
    """A member and its log."""

    def __init__(self, number: int, start: SnapshotMeta, options: dict[str, str]) -> None:
        self.number = number
        self.storage = HistoryStorage()
        if start.index:
            self.storage.apply_snapshot(start)
            self.storage.history = [start]
        config = RaftConfig(
            id=number,
            election_ticks=ELECTION_TICKS,
            pre_vote=options.get("prevote") == "true",
            check_quorum=options.get("checkquorum") == "true",
            step_down_on_removal=options.get("step-down-on-removal") == "true",
            inflight_messages_most=int(options.get("inflight", 1 << 30)),
            message_bytes_most=READ_ALL_BYTES,
            applied=start.index,
        )
        self.node = RawNode(config, self.storage)

    def write(self, ready: Ready) -> None:
        if ready.snapshot is not None:
            self.storage.apply_snapshot(ready.snapshot)
            self.storage.history.append(ready.snapshot)
        if ready.hard_state is not None:
            self.storage.hard_state = ready.hard_state
        self.storage.append(list(ready.entries))

    def apply(self, entries: Iterable[Entry]) -> None:
        for entry in entries:
            state = self.storage.history[-1].conf_state
            if entry.type is not EntryType.NORMAL:
                state = self.node.apply_conf_change(decode_conf_change(entry.data))
            self.storage.history.append(SnapshotMeta(entry.index, entry.term, state))


class Interaction:
    """The members and the messages under way; `run` carries out one command and returns what it prints."""

    def __init__(self) -> None:
        self.members: list[InteractionMember] = []
        self.flight: list[Message] = []
        self.quiet = False

    def run(self, case: Case) -> str:
        if case.command == "log-level":
            self.quiet = case.words[0] == "none"
            return "ok"
        quiet = self.quiet or case.arguments.get("log-level") == "none"
        output = getattr(self, "_" + case.command.replace("-", "_"))(case)
        return "ok" if quiet or not output else "\n".join(output)

    def _member(self, case: Case) -> InteractionMember:
        return self.members[int(case.words[0]) - 1]

    # -- commands; each returns the lines that it prints

    def _add_nodes(self, case: Case) -> list[str]:
        voters = tuple(int(number) for number in case.numbers("voters"))
        learners = tuple(int(number) for number in case.numbers("learners"))
        start = SnapshotMeta()
        if voters:
            start = SnapshotMeta(int(case.arguments["index"]), 1, ConfState(voters, learners))
        for _ in range(int(case.words[0])):
            self.members.append(InteractionMember(len(self.members) + 1, start, case.arguments))
        return []

    def _campaign(self, case: Case) -> list[str]:
        self._member(case).node.campaign()
        return []

    def _propose(self, case: Case) -> list[str]:
        try:
            self._member(case).node.propose(case.words[1].encode())
        except ProposalDropped:
            return ["raft proposal dropped"]
        return []

    def _propose_conf_change(self, case: Case) -> list[str]:
        changes = tuple(ConfChangeSingle(STEP_LETTERS[word[0]], int(word[1:])) for word in case.input.split())
        change = ConfChange(changes, TRANSITIONS[case.arguments.get("transition", "auto")])
        node = self._member(case).node
        if case.arguments.get("v1") == "true":
            entry = Entry(0, 0, EntryType.CONF_CHANGE, encode_conf_change(change))
            node.raft.step(Message(MessageType.PROPOSE, sender=node.raft.id, entries=(entry,)))
        else:
            node.propose_conf_change(change)
        return []

    def _forget_leader(self, case: Case) -> list[str]:
        self._member(case).node.raft.step(Message(MessageType.FORGET_LEADER))
        return []

    def _transfer_leadership(self, case: Case) -> list[str]:
        self.members[int(case.arguments["from"]) - 1].node.transfer_leadership(int(case.arguments["to"]))
        return []

    def _tick_heartbeat(self, case: Case) -> list[str]:
        self._member(case).node.tick()
        return []

    def _tick_election(self, case: Case) -> list[str]:
        for _ in range(ELECTION_TICKS):
            self._member(case).node.tick()
        return []

    def _set_randomized_election_timeout(self, case: Case) -> list[str]:
        self._member(case).node.raft.randomized_election_ticks = int(case.arguments["timeout"])
        return []

    def _compact(self, case: Case) -> list[str]:
        self._member(case).storage.compact(int(case.words[1]))
        return self._raft_log(case)

    def _raft_log(self, case: Case) -> list[str]:
        storage = self._member(case).storage
        entries = storage.entries(storage.first_index(), storage.last_index() + 1, READ_ALL_BYTES)
        return [describe_entry(entry) for entry in entries]

    def _raft_state(self, _case: Case) -> list[str]:
        lines = []
        for member in self.members:
            raft = member.node.raft
            kind = "Voter" if member.number in raft.tracker.config.voters else "Non-Voter"
            lines.append(f"{member.number}: {raft.role} ({kind}) Term:{raft.term} Lead:{raft.leader}")
        return lines

    def _status(self, case: Case) -> list[str]:
        tracker = self._member(case).node.raft.tracker
        return [f"{member}: {progress}" for member, progress in tracker.members()]

    def _process_ready(self, case: Case) -> list[str]:
        return self._handle_ready(self._member(case))

    def _deliver_msgs(self, case: Case) -> list[str]:
        lines: list[str] = []
        for number in case.words:
            lines += self._deliver(int(number))
        for number in case.numbers("drop"):
            lines += self._deliver(int(number), drop=True)
        return lines

    def _stabilize(self, case: Case) -> list[str]:
        chosen = [self.members[int(word) - 1] for word in case.words] or self.members
        lines: list[str] = []
        active = True
        while active:
            active = False
            for member in chosen:
                if member.node.has_ready():
                    active = True
                    lines += [f"> {member.number} handling Ready", *_indent(self._handle_ready(member))]
            for member in chosen:
                if any(message.to == member.number for message in self.flight):
                    active = True
                    lines += [f"> {member.number} receiving messages", *_indent(self._deliver(member.number))]
        return lines

    # -- what they are made of

    def _handle_ready(self, member: InteractionMember) -> list[str]:
        ready = member.node.ready()
        lines = describe_ready(ready)
        member.write(ready)
        member.apply(ready.committed_entries)
        self.flight += ready.messages
        member.node.advance()
        return lines

    def _deliver(self, number: int, drop: bool = False) -> list[str]:
        chosen = [message for message in self.flight if message.to == number]
        self.flight = [message for message in self.flight if message.to != number]
        lines: list[str] = []
        for message in chosen:
            described = describe_message(message)
            if drop:
                described[0] = f"dropped: {described[0]}"
            else:
                self.members[number - 1].node.step(message)
            lines += described
        return lines


def _indent(lines: list[str]) -> list[str]:
    return [f"  {line}" for line in lines]


# -- etcd's words


def describe_entry(entry: Entry) -> str:
    if entry.type is EntryType.NORMAL:
        text = f'"{entry.data.decode()}"'
    else:
        changes = decode_conf_change(entry.data).changes
        text = " ".join(f"{LETTERS[change.type]}{change.node_id}" for change in changes)
    return f"{entry.term}/{entry.index} {entry.type} {text}".rstrip()


def describe_snapshot(snapshot: SnapshotMeta) -> str:
    def ids(members: tuple[int, ...]) -> str:
        return "[" + " ".join(map(str, members)) + "]"

    state = snapshot.conf_state
    return (
        f"Index:{snapshot.index} Term:{snapshot.term} ConfState:Voters:{ids(state.voters)} "
        f"VotersOutgoing:{ids(state.voters_outgoing)} Learners:{ids(state.learners)} "
        f"LearnersNext:{ids(state.learners_next)} AutoLeave:{str(state.auto_leave).lower()}"
    )


def describe_message(message: Message) -> list[str]:
    line = f"{message.sender}->{message.to} {message.type} Term:{message.term} Log:{message.log_term}/{message.index}"
    if message.reject:
        line += f" Rejected (Hint: {message.reject_hint})"
    if message.commit:
        line += f" Commit:{message.commit}"
    lines = [line]
    if len(message.entries) == 1:
        lines = [f"{line} Entries:[{describe_entry(message.entries[0])}]"]
    elif message.entries:
        lines = [f"{line} Entries:[", *_indent([describe_entry(entry) for entry in message.entries]), "]"]
    if message.snapshot is not None:
        lines.append(f"  Snapshot: {describe_snapshot(message.snapshot)}")
    return lines


def describe_hard_state(state: HardState) -> str:
    vote = f" Vote:{state.vote}" if state.vote else ""
    return f"HardState Term:{state.term}{vote} Commit:{state.commit}"


def describe_ready(ready: Ready) -> list[str]:
    lines = [f"Ready MustSync={str(ready.must_sync).lower()}:"]
    if ready.soft_state is not None:
        lines.append(f"Lead:{ready.soft_state.leader} State:{ready.soft_state.role}")
    if ready.hard_state is not None:
        lines.append(describe_hard_state(ready.hard_state))
    if ready.entries:
        lines += ["Entries:", *(describe_entry(entry) for entry in ready.entries)]
    if ready.snapshot is not None:
        lines.append(f"Snapshot {describe_snapshot(ready.snapshot)}")
    if ready.committed_entries:
        lines += ["CommittedEntries:", *(describe_entry(entry) for entry in ready.committed_entries)]
    if ready.messages:
        lines.append("Messages:")
        for message in ready.messages:
            lines += describe_message(message)
    return lines
