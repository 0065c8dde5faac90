"""Several members in one process: joining, failing, removing, handing over; what was acknowledged is kept."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shoal.errors import Conflict, NotLeader, Unavailable
from shoal.raft import membership
from shoal.raft.core.messages import (
    ConfState,
    Entry,
    EntryType,
    Message,
    MessageType,
    SnapshotMeta,
    decode_conf_change,
)
from shoal.raft.driver import RaftDriver
from tests.doubles.raft_group import DEADLINE_SECONDS, Group

Scenario = Callable[[Group], Awaitable[None]]


def run(folder: Path, scenario: Scenario, seed: int = 0, **settings: int) -> None:
    async def whole() -> None:
        async with asyncio.timeout(4 * DEADLINE_SECONDS), Group(folder, seed, **settings) as group:
            await scenario(group)

    asyncio.run(whole())


async def propose(group: Group, data: bytes) -> None:
    """As a client would: until a leader takes it. It may be made twice, never less than once."""
    while True:
        leader = await group.leader()
        try:
            await leader.propose(data)
        except Unavailable:
            continue
        return


# -- joining


def test_a_founders_log_begins_with_the_entry_that_adds_it(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(1)
        first = leader._storage.entries(1, 2, 1 << 20)[0]
        assert (first.index, first.term, first.type) == (1, 1, EntryType.CONF_CHANGE_V2)
        assert decode_conf_change(first.data).changes[0].node_id == 1
        await group.kill(1)
        await group.start(1, founds=True)
        leader = await group.leader()
        assert [view.raft_id for view in leader.members()] == [1]

    run(tmp_path, scenario)


def test_joined_members_have_everything_and_vote(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(1)
        await leader.propose(b"before")
        joining = await group.start(2)
        assert not joining.has_quorum()
        index = await leader.add_learner(2, b"learner 2")
        assert [(view.raft_id, view.is_voter) for view in leader.members()] == [(1, True), (2, False)]
        assert await leader.promote(2, b"voter 2") == index + 1
        await group.join(3)
        await leader.propose(b"after")
        expected = [b"before", b"learner 2", b"voter 2", b"learner 3", b"voter 3", b"after"]
        assert await group.until_alike() == expected
        for driver in group.drivers.values():
            assert [view.raft_id for view in driver.members() if view.is_voter] == [1, 2, 3]
            assert driver.leader_id == 1
            assert driver.has_quorum()
        assert all(view.is_reachable for view in leader.members())
        await group.until(
            lambda: {view.match_index for view in leader.members()} == {leader.applied_index}, "all have said so"
        )

    run(tmp_path, scenario)


def test_a_member_that_was_not_added_does_nothing(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        await group.found(1)
        joining = await group.start(2)
        await group.until(lambda: joining._tick > 50, "five election timeouts")
        assert (joining.term, joining.leader_id, joining.members()) == (0, 0, ())
        assert not joining.removed.is_set()

    run(tmp_path, scenario)


def test_a_change_whose_data_is_refused_changes_no_member(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(2)
        result = await leader.add_learner(3, b"refused")
        assert isinstance(result, ValueError)
        assert isinstance(await leader.remove_member(2, b"refused"), ValueError)
        await group.until_alike()
        for driver in group.drivers.values():
            assert [view.raft_id for view in driver.members()] == [1, 2]
        await group.kill(1)
        await group.start(1)
        await group.until_alike()
        assert [view.raft_id for view in group.drivers[1].members()] == [1, 2]

    run(tmp_path, scenario)


def test_changes_wait_for_one_another_and_may_be_repeated(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(1)
        for raft_id in (2, 3, 4):
            await group.start(raft_id)
        indexes = await asyncio.gather(*(leader.add_learner(raft_id) for raft_id in (2, 3, 4, 2)))
        assert len(set(indexes)) == 4
        await asyncio.gather(*(leader.promote(raft_id) for raft_id in (2, 3, 4)))
        assert [view.is_voter for view in leader.members()] == [True] * 4
        # Asked again, as after a lost reply: who is a voter stays one.
        await leader.add_learner(2)
        await leader.promote(2)
        assert [view.is_voter for view in leader.members()] == [True] * 4
        with pytest.raises(Unavailable, match="no member"):
            await leader.promote(9)

    run(tmp_path, scenario)


def test_changes_are_the_leaders(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        await group.found(2)
        follower = group.drivers[2]
        for change in (follower.add_learner, follower.promote, follower.remove_member, follower.transfer_lead):
            with pytest.raises(NotLeader):
                await change(1)

    run(tmp_path, scenario)


def test_a_learner_that_does_not_catch_up_is_not_promoted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(membership, "CATCH_UP_TIMEOUT_SECONDS", 0.3)

    async def scenario(group: Group) -> None:
        leader = await group.found(1)
        await leader.add_learner(2)  # that never starts
        with pytest.raises(Unavailable, match="caught up"):
            await leader.promote(2)
        await leader.propose(b"x")
        assert [view.is_voter for view in leader.members()] == [True, False]
        assert not leader.is_reachable(2)

    run(tmp_path, scenario)


def test_a_log_of_the_first_versions_can_be_joined(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.start(1)
        # They named the founder in an empty snapshot instead of in the log.
        leader._database.write((), None, SnapshotMeta(conf_state=ConfState(voters=(1,))))
        await group.kill(1)
        leader = await group.start(1, founds=True)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await leader.wait_for_leadership(True)
        await leader.propose(b"one")
        await group.join(2)
        await group.until_alike()
        assert [view.raft_id for view in group.drivers[2].members()] == [1, 2]

    run(tmp_path, scenario)


# -- failing


def test_when_the_leader_dies_another_leads_and_nothing_acknowledged_is_lost(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        acknowledged: list[bytes] = []
        leading = asyncio.Event()

        async def write(client: int) -> None:
            for number in range(30):
                data = b"%d-%d" % (client, number)
                await propose(group, data)
                acknowledged.append(data)
                leading.set()

        writing = asyncio.gather(*(write(client) for client in range(4)))
        await leading.wait()
        await group.kill(leader.raft_id)
        await writing
        assert (await group.leader()).raft_id != 1
        await group.start(1)
        data = await group.until_alike(1, 2, 3)
        assert set(acknowledged) <= set(data)
        assert len(acknowledged) == 120

    run(tmp_path, scenario)


@pytest.mark.parametrize("seed", range(4))
def test_lost_and_late_messages_and_restarts(tmp_path: Path, seed: int) -> None:
    async def scenario(group: Group) -> None:
        await group.found(3)
        network = group.network
        network.loss, network.delay_seconds = 0.05, 0.02
        acknowledged: list[bytes] = []

        async def write(client: int) -> None:
            for number in range(40):
                data = b"%d-%d" % (client, number)
                await propose(group, data)
                acknowledged.append(data)

        async def disturb() -> None:
            for _ in range(5):
                count = len(acknowledged)
                await group.until(lambda count=count: len(acknowledged) > count + 5, "progress")
                raft_id = network.random.choice(tuple(group.drivers))
                if network.random.random() < 0.5:
                    await group.kill(raft_id)
                    await group.leader()
                    await group.start(raft_id)
                else:
                    network.cut = {raft_id}
                    await group.leader(*({1, 2, 3} - {raft_id}))
                    network.cut = set()

        reads = 0

        async def read() -> None:
            nonlocal reads
            while True:
                raft_id = network.random.choice(tuple(group.drivers))
                known = set(acknowledged)
                try:
                    await group.drivers[raft_id].read_barrier()
                except Unavailable:
                    continue  # it was stopped meanwhile
                assert known <= set(group.journals[raft_id].data), f"member {raft_id} served a stale read"
                reads += 1

        writing = asyncio.gather(*(write(client) for client in range(4)))
        reading = asyncio.create_task(read())
        await disturb()
        await writing
        network.loss = network.delay_seconds = 0.0
        await group.until(lambda: reading.done() or reads > 10, "reads go on")
        assert not reading.done(), reading.exception()
        reading.cancel()
        data = await group.until_alike()
        assert set(acknowledged) <= set(data)

    run(tmp_path, scenario, seed, snapshot_interval=25, entries_kept=5)


def test_a_leader_on_a_full_disk_leads_no_more(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)

        def full(*_: object) -> None:
            raise OSError(28, "No space left on device")

        leader._database.write = full  # type: ignore[method-assign]
        with pytest.raises(Unavailable):
            await leader.propose(b"x")
        assert not leader.is_leader
        assert not leader.has_quorum()
        assert (await group.leader(2, 3)).raft_id in (2, 3)
        await propose(group, b"y")
        assert isinstance(await leader.failure, OSError)
        # What the process does then: it ends, and starts anew when there is room.
        await group.kill(1)
        await group.start(1)
        assert (await group.until_alike())[-1] == b"y"

    run(tmp_path, scenario)


def test_a_cut_off_leader_steps_down_and_what_it_took_is_not_made(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {1}
        with pytest.raises(NotLeader):
            await leader.propose(b"lost")
        assert not leader.has_quorum()
        other = await group.leader(2, 3)
        await other.propose(b"kept")
        group.network.cut = set()
        data = await group.until_alike()
        assert b"kept" in data
        assert b"lost" not in data

    run(tmp_path, scenario)


def test_who_returns_from_a_cut_disturbs_nobody(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        term = leader.term
        group.network.cut = {3}
        cut_off = group.drivers[3]
        await group.until(lambda: not cut_off.has_quorum() and cut_off.leader_id == 0, "an election asked for")
        assert not leader.is_reachable(3)
        assert leader.can_remove(3)
        assert not leader.can_remove(2)
        group.network.cut = set()
        await leader.propose(b"x")
        await group.until_alike()
        assert leader.is_leader
        assert leader.term == term

    run(tmp_path, scenario)


def test_a_one_way_cut_of_the_leader_heals_itself(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        await group.found(3)
        group.network.cut_ways = {(2, 1), (3, 1)}  # it is heard and hears nobody
        assert (await group.leader(2, 3)).raft_id in (2, 3)

    run(tmp_path, scenario)


# -- sending before the own disk


def test_a_leader_sends_entries_while_it_writes_them(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        await group.until_alike()
        may_write, write = threading.Event(), leader._database.write

        def slow(*arguments: object) -> None:
            may_write.wait(DEADLINE_SECONDS)
            write(*arguments)  # type: ignore[arg-type]

        leader._database.write = slow  # type: ignore[method-assign]
        last = leader._storage.last_index()
        proposing = asyncio.create_task(leader.propose(b"x"))
        others = [group.drivers[2], group.drivers[3]]
        async with asyncio.timeout(DEADLINE_SECONDS):
            for other in others:
                await other.wait_until(lambda other=other: other._storage.last_index() == last + 1)
        assert leader._storage.last_index() == last
        assert not proposing.done()
        may_write.set()
        assert await proposing == last + 1

    run(tmp_path, scenario)


def test_votes_leave_after_they_are_written(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        await group.found(3)
        written: dict[int, int] = {}

        def watch(driver: RaftDriver) -> None:
            write = driver._database.write

            def noted(entries: object, hard_state: object, *rest: object) -> None:
                write(entries, hard_state, *rest)  # type: ignore[arg-type]
                written[driver.raft_id] = hard_state.term  # type: ignore[attr-defined]

            driver._database.write = noted  # type: ignore[method-assign,assignment]

        def check(message: Message) -> bool:
            if message.type in (MessageType.VOTE, MessageType.VOTE_RESPONSE):
                assert written[message.sender] == message.term
                votes.append(message)
            return True

        votes: list[Message] = []
        for driver in group.drivers.values():
            watch(driver)
        group.network.filter = check
        await group.kill(1)
        await group.leader()
        assert len(votes) >= 2

    run(tmp_path, scenario)


# -- removing


def test_a_removed_member_knows_it_and_is_quiet(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        gone = group.drivers[3]
        await leader.remove_member(3, b"gone 3")
        async with asyncio.timeout(DEADLINE_SECONDS):
            await gone.removed.wait()
        term = leader.term
        tick = gone._tick
        await group.until(lambda: gone._tick > tick + 50, "five election timeouts")
        assert leader.is_leader
        assert leader.term == gone.term == term
        assert await group.until_alike(1, 2)
        await group.kill(3)
        gone = await group.start(3)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await gone.removed.wait()

    run(tmp_path, scenario)


def test_a_member_removed_while_it_was_cut_off_disturbs_nobody(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.cut = {3}
        await leader.remove_member(3)
        term = leader.term
        gone = group.drivers[3]
        await group.until(lambda: gone.leader_id == 0, "an election asked for")
        group.network.cut = set()
        tick = gone._tick
        await group.until(lambda: gone._tick > tick + 50, "five election timeouts")
        await leader.propose(b"x")
        assert leader.is_leader
        assert leader.term == term
        assert [view.raft_id for view in leader.members()] == [1, 2]

    run(tmp_path, scenario)


def test_the_leader_can_be_removed_but_not_the_last_member(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        await leader.remove_member(1)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await leader.removed.wait()
        assert not leader.is_leader
        other = await group.leader(2, 3)
        await other.propose(b"x")
        await other.remove_member(({2, 3} - {other.raft_id}).pop())
        assert not other.can_remove(other.raft_id)
        with pytest.raises(Unavailable, match="last"):
            await other.remove_member(other.raft_id)
        await other.propose(b"y")

    run(tmp_path, scenario)


def test_a_follower_believes_well_of_another_once_a_link_to_it_is_open_again(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        follower, other = {1, 2, 3} - {leader.raft_id}
        driver = group.network.drivers[follower]
        driver.report_unreachable(other)
        assert not driver.is_reachable(other)
        driver.report_reachable(other)
        assert driver.is_reachable(other)

    run(tmp_path, scenario)


# -- handing over


def test_the_lead_is_handed_over(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        await leader.transfer_lead(3)
        assert leader.leader_id == 3
        third = await group.leader()
        assert third.raft_id == 3
        group.network.cut = {2}
        await group.until(lambda: not third.is_reachable(2), "2 to be missed")
        await third.transfer_lead()
        assert (await group.leader(1, 3)).raft_id == 1
        await leader.transfer_lead(1)
        with pytest.raises(Unavailable, match="no voting manager"):
            await leader.transfer_lead(9)

    run(tmp_path, scenario)


def test_the_lead_stays_when_the_heir_does_not_answer(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        group.network.filter = lambda message: message.type is not MessageType.TIMEOUT_NOW
        with pytest.raises(Unavailable, match="goes on leading"):
            await leader.transfer_lead(2)
        await leader.propose(b"x")

    run(tmp_path, scenario)


def test_alone_there_is_no_heir(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(1)
        with pytest.raises(Unavailable, match="no other manager"):
            await leader.transfer_lead()

    run(tmp_path, scenario)


# -- reading


def test_a_follower_reads_what_was_acknowledged_before(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        for number in range(20):
            index = await leader.propose(b"%d" % number)
            for raft_id in (2, 3):
                assert await group.drivers[raft_id].read_barrier() >= index
                assert group.journals[raft_id].data[-1] == b"%d" % number

    run(tmp_path, scenario)


@pytest.mark.parametrize("lost", [MessageType.READ_INDEX, MessageType.READ_INDEX_RESPONSE])
def test_a_read_that_gets_lost_is_asked_again(tmp_path: Path, lost: MessageType) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        asked: list[Message] = []

        def loses_first(message: Message) -> bool:
            if message.type is lost:
                asked.append(message)
            return message.type is not lost or len(asked) > 1

        group.network.filter = loses_first
        index = await leader.propose(b"x")
        assert await group.drivers[2].read_barrier() >= index
        assert len(asked) == 2
        assert len({message.entries[0].data for message in asked}) == 2

    run(tmp_path, scenario)


def test_a_read_outlives_the_leader(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        index = await leader.propose(b"x")
        group.network.cut = {1}
        assert await group.drivers[2].read_barrier() >= index
        assert group.drivers[2].leader_id in (2, 3)

    run(tmp_path, scenario)


def test_an_answer_for_a_former_life_releases_nothing(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(2)
        contexts: list[bytes] = []

        def note(message: Message) -> bool:
            if message.type is MessageType.READ_INDEX:
                contexts.append(message.entries[0].data)
            return True

        group.network.filter = note
        await group.drivers[2].read_barrier()
        await group.kill(2)
        await group.start(2)
        await leader.propose(b"x")
        await group.drivers[2].read_barrier()
        assert len(set(contexts)) == len(contexts) >= 2

    run(tmp_path, scenario)


# -- what does not belong here


def test_messages_that_are_nobodys_business_are_dropped(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(2)
        before = leader._storage.last_index()
        follower = group.drivers[2]
        follower.receive(Message(MessageType.APPEND, to=9, sender=1, term=99))
        follower.receive(Message(MessageType.SNAPSHOT, to=2, sender=1, term=99, snapshot=SnapshotMeta(999, 9)))
        leader.receive(Message(MessageType.PROPOSE, to=1, sender=2, entries=(Entry(0, 0, EntryType.NORMAL, b"x"),)))
        with pytest.raises(Unavailable):
            await follower.receive_snapshot(Message(MessageType.APPEND, to=2, sender=1), aiter_nothing())
        await follower.read_barrier()
        assert leader._storage.last_index() == before
        assert follower.term == leader.term

    async def aiter_nothing():  # type: ignore[no-untyped-def]
        return
        yield b""

    run(tmp_path, scenario)


# -- going on alone


def test_forgetting_the_others_keeps_everything_and_can_be_repeated(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(3)
        await leader.propose(b"committed")
        group.network.cut = {1}
        with pytest.raises(NotLeader):
            await leader.propose(b"uncommitted")
        for raft_id in (1, 2, 3):
            await group.kill(raft_id)
        group.network.cut = set()
        for _ in range(2):
            alone = await group.start(1, forgets_others=True)
            async with asyncio.timeout(DEADLINE_SECONDS):
                await alone.wait_for_leadership(True)
            assert [view.raft_id for view in alone.members()] == [1]
            assert group.journals[1].data[-2:] == [b"committed", b"uncommitted"]
            await group.kill(1)
        alone = await group.start(1)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await alone.wait_for_leadership(True)
        await alone.propose(b"more")
        await group.join(4)
        assert (await group.until_alike())[-3:] == [b"more", b"learner 4", b"voter 4"]

    run(tmp_path, scenario)


def test_a_removed_member_can_go_on_alone(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        leader = await group.found(2)
        await leader.remove_member(2)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await group.drivers[2].removed.wait()
        await group.kill(1)
        await group.kill(2)
        alone = await group.start(2, forgets_others=True)
        async with asyncio.timeout(DEADLINE_SECONDS):
            await alone.wait_for_leadership(True)
        assert not alone.removed.is_set()
        await alone.propose(b"x")

    run(tmp_path, scenario)


def test_without_a_log_there_is_nothing_to_go_on_with(tmp_path: Path) -> None:
    async def scenario(group: Group) -> None:
        with pytest.raises(Conflict, match="no log"):
            await group.start(1, forgets_others=True)

    run(tmp_path, scenario)
