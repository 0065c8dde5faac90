"""A simulated raft group: members on disks that crash, a network that loses, doubles, delays and cuts, and an operator.

The operator writes, reads, changes the members and hands the lead over. One seed is one history, the same every time.

Time passes in rounds: every member that runs ticks once, then what is due is delivered. Each seed draws its own mixture
of faults (`Plan`), so that some histories are calm but for one fault and some have everything at once. The referee
judges after every single thing that a member does.
"""

from __future__ import annotations

import random
from dataclasses import dataclass

from shoal.raft.core.messages import (
    ConfChange,
    ConfChangeSingle,
    ConfChangeType,
    EntryType,
    HardState,
    Message,
    MessageType,
    SnapshotMeta,
    decode_conf_change,
)
from shoal.raft.core.raft import ProposalDropped, RaftConfig, Role
from shoal.raft.core.rawnode import RawNode, Ready
from shoal.raft.driver import BEFORE_WRITE_TYPES
from tests.sim.raft_disk import Disk, Saved, first_on_disk
from tests.sim.raft_referee import Referee

MEMBERS_MOST = 9
MEMBERS_ALIVE_MOST = 6
STRAGGLER_ROUNDS = 60


@dataclass(frozen=True)
class Plan:
    """What a history is made of: chances by round, by message or by write, and settings of the core."""

    voters: int
    rounds: int
    election_ticks: int
    loss: float
    doubling: float
    delay_rounds: int
    straggling: float
    crash: float
    cut: float
    stall: float
    slow_disk: float
    prompt: float
    writes: float
    reads: float
    member_changes: float
    transfers: float
    snapshot_interval: int
    entries_kept: int
    inflight_messages: int
    message_bytes: int
    uncommitted_bytes: int

    @classmethod
    def draw(cls, chance: random.Random) -> Plan:
        """Draw the mixture of a seed."""
        pick = chance.choice
        return cls(
            voters=pick((3, 3, 5)),
            rounds=pick((60, 100, 140)),
            election_ticks=pick((3, 4, 6, 10)),
            loss=pick((0.0, 0.0, 0.02, 0.1, 0.3)),
            doubling=pick((0.0, 0.0, 0.1)),
            delay_rounds=pick((0, 1, 1, 3, 6)),
            straggling=pick((0.0, 0.01, 0.05)),
            crash=pick((0.0, 0.003, 0.01, 0.03)),
            cut=pick((0.0, 0.03, 0.1)),
            stall=pick((0.0, 0.02, 0.05)),
            slow_disk=pick((0.0, 0.0, 0.1, 0.4)),
            prompt=pick((0.3, 0.8, 1.0)),
            writes=pick((0.2, 0.5, 1.5)),
            reads=pick((0.1, 0.4)),
            member_changes=pick((0.0, 0.05, 0.2)),
            transfers=pick((0.0, 0.0, 0.02, 0.1)),
            snapshot_interval=pick((4, 10, 25, 1000)),
            entries_kept=pick((0, 2, 6)),
            inflight_messages=pick((2, 4, 256)),
            message_bytes=pick((1, 60, 1 << 20)),
            uncommitted_bytes=pick((0, 0, 30)),
        )


class Member:
    """A member and its disk. `crash` loses what is not synced; `start` reads the disk."""

    def __init__(self, id_: int, world: World, disk: Disk) -> None:
        self.id = id_
        self.world = world
        self.disk = disk
        self.life = 0
        self.start()

    def start(self) -> None:
        self.storage = self.disk.load()
        plan, meta = self.world.plan, self.disk.saved.meta
        config = RaftConfig(
            id=self.id,
            election_ticks=plan.election_ticks,
            random_int=self.world.chance.randrange,
            message_bytes_most=plan.message_bytes,
            inflight_messages_most=plan.inflight_messages,
            uncommitted_bytes_most=plan.uncommitted_bytes,
            applied=meta.index,
        )
        self.node = RawNode(config, self.storage)
        self.applied, self.applied_term, self.state = meta.index, meta.term, self.disk.saved.state
        self.saved = {meta.index: self.disk.saved}
        self.in_hand: Ready | None = None
        self.write_ends = 0
        self.handover_seen: Message | None = None
        self.commit_seen = self.node.raft.log.committed
        self.up = True
        self.stalled_until = 0

    def crash(self) -> None:
        self.up = False
        self.life += 1

    @property
    def runs(self) -> bool:
        """Whether it does anything now: not crashed, not stalled."""
        return self.up and self.stalled_until <= self.world.now

    def observe(self) -> None:
        """Let the referee look, after anything that may have changed the core."""
        raft = self.node.raft
        if raft.log.committed != self.commit_seen:
            self.world.referee.note_commit(raft, self.world.disks, self.commit_seen, self.applied)
            self.commit_seen = raft.log.committed
        if raft.role is Role.LEADER:
            self.world.referee.look_at_leader(raft)
            if raft.transferee:
                self._observe_handover()
        elif raft.leader:
            self.world.referee.look_at_follower(raft)

    def _observe_handover(self) -> None:
        for message in self.node.raft.messages:
            if message.type is MessageType.TIMEOUT_NOW and message is not self.handover_seen:
                self.handover_seen = message
                self.world.referee.check_handover(self.node.raft, message.to)

    def work(self) -> None:
        """Carry out all that is ready; a slow disk leaves something in hand for later."""
        while self.up:
            if self.in_hand is None:
                if not self.node.has_ready():
                    return
                self.in_hand = self.node.ready()
                if self.in_hand.entries:
                    self.world.referee.note_written(self.node.raft, self.in_hand.entries, self.disk)
                # As the driver does: what a leader sends may leave before its own write.
                for message in self.in_hand.messages:
                    if message.type in BEFORE_WRITE_TYPES:
                        self.world.send(self, message)
                if self.world.happens(self.world.slow_disk):
                    self.write_ends = self.world.now + self.world.chance.randrange(1, 3)
            if self.world.now < self.write_ends:
                return
            self._finish(self.in_hand)

    def _finish(self, ready: Ready) -> None:
        world, raft = self.world, self.node.raft
        crash = world.crash
        if world.happens(crash):
            return self.crash()
        if ready.must_sync or ready.snapshot is not None:
            # What the Ready did not change is as it was before, or newer: both are true.
            hard_state = ready.hard_state or HardState(raft.term, raft.vote, min(raft.log.committed, self.commit_limit))
            if world.happens(crash):
                self.disk.write_and_crash(ready.snapshot, ready.entries, hard_state, world.chance)
                return self.crash()
            self.disk.write(ready.snapshot, ready.entries, hard_state)
        if ready.snapshot is not None:
            self._begin_anew(ready.snapshot)
        self.storage.append(list(ready.entries))
        if world.happens(crash):
            return self.crash()
        for message in ready.messages:
            if message.type not in BEFORE_WRITE_TYPES:
                world.send(self, message)
        self._apply(ready)
        for read in ready.read_states:
            world.referee.end_read(self.id, read.index, read.context)
        self.in_hand = None
        self.node.advance()
        self.observe()
        self._maybe_save()
        return None

    @property
    def commit_limit(self) -> int:
        """How far a commit index may be on the disk: no further than its entries."""
        return self.storage.last_index()

    def _begin_anew(self, snapshot: SnapshotMeta) -> None:
        saved = self.disk.received[snapshot.index]
        self.world.referee.check_restored(self.id, saved)
        self.storage.apply_snapshot(snapshot)
        self.applied, self.applied_term, self.state = snapshot.index, snapshot.term, saved.state
        self.saved = {snapshot.index: saved}
        self.world.referee.check_members(self.node.raft, self.applied)

    def _apply(self, ready: Ready) -> None:
        referee = self.world.referee
        for entry in ready.committed_entries:
            assert entry.index == self.applied + 1, f"{self.id} was given {entry.index} after {self.applied}"
            self.state = referee.note_applied(self.id, entry, self.state)
            self.applied, self.applied_term = entry.index, entry.term
            if entry.type is not EntryType.NORMAL:
                self.node.apply_conf_change(decode_conf_change(entry.data))
                referee.check_members(self.node.raft, entry.index)
                self.observe()

    def _maybe_save(self) -> None:
        plan = self.world.plan
        if self.applied - self.storage.snapshot().index < plan.snapshot_interval:
            return
        meta = SnapshotMeta(self.applied, self.applied_term, self.node.raft.tracker.config.to_conf_state())
        first_kept = max(self.storage.first_index(), self.applied - plan.entries_kept + 1)
        self.disk.save(Saved(meta, self.state), first_kept)
        # The newest and the one before are files that can be sent.
        self.saved = {index: saved for index, saved in self.saved.items() if index == self.storage.snapshot().index}
        self.saved[meta.index] = self.disk.saved
        self.storage.set_snapshot(meta)
        if first_kept > self.storage.first_index():
            self.storage.compact(first_kept - 1)


@dataclass(frozen=True)
class Parcel:
    """Something under way: a message (with the state, if it is a snapshot), or word of how sending one went."""

    due: int
    message: Message
    saved: Saved | None = None
    report_to: Member | None = None
    life: int = 0
    ok: bool = False


class World:
    """The group, the network and the operator."""

    def __init__(self, seed: int) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.plan = plan = Plan.draw(self.chance)
        self.loss, self.crash, self.slow_disk = plan.loss, plan.crash, plan.slow_disk
        self.delay_rounds, self.straggling = plan.delay_rounds, plan.straggling
        self.now = 0
        self.flight: list[Parcel] = []
        self.cut: set[tuple[int, int]] = set()
        first = range(1, plan.voters + 1)
        entries, hard_state = first_on_disk(first)
        self.referee = Referee(entries)
        self.members: dict[int, Member] = {}
        self.disks: dict[int, Disk] = {}
        for id_ in first:
            self._add_member(id_, Disk(entries, hard_state))
        self.written = 0
        self.asked = 0

    def _add_member(self, id_: int, disk: Disk) -> None:
        self.disks[id_] = disk
        self.members[id_] = Member(id_, self, disk)

    def happens(self, probability: float) -> bool:
        """Whether something of that probability happens."""
        return probability > 0 and self.chance.random() < probability

    def running(self) -> list[Member]:
        """The members that do something now."""
        return [member for member in self.members.values() if member.runs]

    def leaders(self) -> list[Member]:
        """The members that run and hold themselves for the leader."""
        return [member for member in self.members.values() if member.node.raft.role is Role.LEADER and member.runs]

    # -- the network

    def send(self, member: Member, message: Message) -> None:
        """Take a message from a member, or lose it."""
        self.referee.check_promise(message, self.disks)
        due = self.now + (self.chance.randrange(self.delay_rounds + 1) if self.delay_rounds else 0)
        if self.happens(self.straggling):
            due += self.chance.randrange(STRAGGLER_ROUNDS)
        is_snapshot = message.type is MessageType.SNAPSHOT
        if (message.sender, message.to) in self.cut or self.happens(self.loss):
            if is_snapshot or self.happens(0.3):
                self.flight.append(Parcel(due, message, report_to=member, life=member.life))
            return
        saved = None
        if is_snapshot:
            assert message.snapshot is not None, "a snapshot message holds a snapshot"
            saved = member.saved.get(message.snapshot.index)
            if saved is None:  # its file is gone already: there is a newer one
                self.flight.append(Parcel(due, message, report_to=member, life=member.life))
                return
        self.flight.append(Parcel(due, message, saved))
        if self.happens(self.plan.doubling) and not is_snapshot:
            self.flight.append(Parcel(due + self.chance.randrange(12), message))

    def deliver_due(self) -> None:
        """Deliver what is due, in any order; what comes of it may be delivered in the same round, a little."""
        for _ in range(3):
            due = [parcel for parcel in self.flight if parcel.due <= self.now]
            if not due:
                return
            self.flight = [parcel for parcel in self.flight if parcel.due > self.now]
            self.chance.shuffle(due)
            for parcel in due:
                self._deliver(parcel)
            for member in self.running():
                member.work()

    def _deliver(self, parcel: Parcel) -> None:
        message = parcel.message
        if parcel.report_to is not None:
            self._report(parcel, parcel.report_to)
            return
        target = self.members[message.to]
        if target.up and not target.runs:
            # A stalled member's messages wait in its socket.
            self.flight.append(Parcel(target.stalled_until, message, parcel.saved))
            return
        arrives = target.up and (message.sender, message.to) not in self.cut
        if parcel.saved is not None:
            sender = self.members[message.sender]
            word = Parcel(self.now + self.chance.randrange(4), message, None, sender, sender.life, arrives)
            self.flight.append(word)
        if not arrives:
            return
        if parcel.saved is not None:
            target.disk.received[parcel.saved.meta.index] = parcel.saved
        target.node.step(message)
        target.observe()
        if self.happens(self.plan.prompt):
            target.work()

    def _report(self, parcel: Parcel, sender: Member) -> None:
        if not sender.up or sender.life != parcel.life:
            return
        if parcel.message.type is MessageType.SNAPSHOT:
            sender.node.report_snapshot(parcel.message.to, parcel.ok)
        else:
            sender.node.report_unreachable(parcel.message.to)
        sender.observe()

    # -- faults

    def _change_cuts(self) -> None:
        ids = list(self.members)
        leaders = self.leaders()
        # Who leads is the one that matters most.
        one = self.chance.choice(leaders).id if leaders and self.happens(0.6) else self.chance.choice(ids)
        others = [id_ for id_ in ids if id_ != one]
        match self.chance.randrange(8):
            case 0 | 1:
                self.cut.clear()
            case 7:  # with one other on a small side
                two = {one, self.chance.choice(others)}
                self.cut |= {(a, b) for a in ids for b in ids if (a in two) is not (b in two)}
            case 2:  # alone
                self.cut |= {(one, other) for other in others} | {(other, one) for other in others}
            case 3:  # it hears, but is not heard
                self.cut |= {(one, other) for other in others}
            case 4:  # it is heard, but does not hear
                self.cut |= {(other, one) for other in others}
            case 5:  # one link, one way
                self.cut.add((one, self.chance.choice(others)))
            case _:  # two sides
                side = set(self.chance.sample(ids, len(ids) // 2))
                self.cut |= {(a, b) for a in ids for b in ids if (a in side) is not (b in side)}

    def _disturb(self) -> None:
        if self.happens(self.plan.cut):
            self._change_cuts()
            for _ in range(self.chance.randrange(4)):
                self.write()  # a leader that is cut off gets entries that may have to go again
        if self.happens(self.plan.stall):
            leaders = self.leaders()
            stalled = self.chance.choice(leaders if leaders and self.happens(0.5) else list(self.members.values()))
            stalled.stalled_until = self.now + self.chance.randrange(1, 4 * self.plan.election_ticks)
        if self.crash and self.happens(self.crash * 2):
            self.chance.choice(list(self.members.values())).crash()
        for member in self.members.values():
            if not member.up and self.happens(0.15):
                member.start()

    # -- the operator

    def write(self) -> bool:
        """Write something at every member that says it leads, be it so or not; whether one took it."""
        taken = False
        for member in self.leaders():
            self.written += 1
            try:
                member.node.propose(b"%d" % self.written)
                taken = True
            except ProposalDropped:
                continue
            finally:
                member.observe()
        return taken

    def read(self, member: Member) -> None:
        """Ask for a read anywhere."""
        self.asked += 1
        context = b"read-%d" % self.asked
        self.referee.begin_read(context)
        member.node.read_index(context)
        member.observe()

    def _change_members(self, leader: Member) -> None:
        config = leader.node.raft.tracker.config
        voters, learners = sorted(config.incoming), sorted(config.learners)
        kinds: list[str] = [ConfChangeType.REMOVE_NODE] if len(voters) > 1 else []
        if len(self.members) < MEMBERS_MOST and len(voters) + len(learners) < MEMBERS_ALIVE_MOST:
            kinds += [ConfChangeType.ADD_LEARNER, ConfChangeType.ADD_LEARNER, ConfChangeType.ADD_NODE]
        if learners:
            kinds += ["promote", "promote", "promote"]
        if len(voters) > 2:
            kinds.append("demote")
        if not kinds:
            return
        kind = self.chance.choice(kinds)
        new = max(self.members) + 1
        match kind:
            case "promote":
                change = ConfChangeSingle(ConfChangeType.ADD_NODE, self.chance.choice(learners))
            case "demote":
                change = ConfChangeSingle(ConfChangeType.ADD_LEARNER, self.chance.choice(voters))
            case ConfChangeType.REMOVE_NODE:
                change = ConfChangeSingle(ConfChangeType.REMOVE_NODE, self.chance.choice(voters + learners))
            case _:
                change = ConfChangeSingle(ConfChangeType(kind), new)
        try:
            leader.node.propose_conf_change(ConfChange((change,)))
        except ProposalDropped:
            return
        finally:
            leader.observe()
        if change.node_id == new:
            self._add_member(new, Disk((), HardState()))

    def _operate(self) -> None:
        plan = self.plan
        for _ in range(int(plan.writes) + self.happens(plan.writes % 1)):
            self.write()
        running = self.running()
        if running and self.happens(plan.reads):
            self.read(self.chance.choice(running))
        leaders = self.leaders()
        if len(leaders) > 1:  # one of them is deposed and does not know: ask it
            self.write()
            for leader in leaders:
                self.read(leader)
        if leaders and self.happens(plan.member_changes):
            self._change_members(self.chance.choice(leaders))
        if leaders and self.happens(plan.transfers):
            leader = self.chance.choice(leaders)
            heirs = sorted(leader.node.raft.tracker.progress)
            leader.node.transfer_leadership(self.chance.choice(heirs))
            leader.observe()

    # -- time

    def tick(self) -> None:
        """One round without troubles."""
        self.now += 1
        self._pass_time()

    def _pass_time(self) -> None:
        for member in self.running():
            member.node.tick()
            member.observe()
            member.work()
        self.deliver_due()

    def round(self) -> None:
        """One round with all its troubles. Who wakes from a stall is asked before it hears what it missed."""
        self.now += 1
        self._disturb()
        self._operate()
        self._pass_time()
