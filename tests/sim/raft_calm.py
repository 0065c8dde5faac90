"""What must come to pass once the disturbances are over: a leader, one log everywhere, reads on every member.

After that, by seed, one more trial: a follower comes back from a cut and disturbs nobody, a leader is cut off and steps
down, the lead is handed over, or is handed to nobody, or a deposed leader is asked to read.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from shoal.raft.core.raft import Role
from tests.sim.raft_referee import Violation
from tests.sim.raft_world import Member, World

CALM_ELECTIONS_MOST = 60
NEVER_ROUNDS = 1_000_000


def _leader(world: World) -> Member | None:
    """The member whom all members of now follow."""
    members = [world.members[id_] for id_ in world.referee.now.everyone]
    followed = {(member.node.raft.leader, member.node.raft.term) for member in members}
    leader = world.members.get(next(iter(followed))[0]) if len(followed) == 1 else None
    return leader if leader is not None and leader.node.raft.role is Role.LEADER else None


def _until(world: World, what: str, holds: Callable[[], bool]) -> None:
    for _ in range(CALM_ELECTIONS_MOST * world.plan.election_ticks):
        if holds():
            return
        world.tick()
    raise Violation(f"liveness: {what} does not come to pass after all faults are over")


def _is_in_step(world: World) -> bool:
    """Whether all members have applied all that is in the leader's log."""
    leader = _leader(world)
    if leader is None:
        return False
    last = leader.node.raft.log.last_index()
    return leader.node.raft.has_committed_own_term and all(
        world.members[id_].applied == last for id_ in world.referee.now.everyone
    )


def calm_down(world: World) -> None:
    """End all disturbances and see that the group goes on."""
    world.loss = world.crash = world.slow_disk = world.straggling = 0.0
    world.delay_rounds = min(world.delay_rounds, 1)
    # What is late comes now, or it would disturb in the middle of a trial.
    world.flight = [replace(parcel, due=min(parcel.due, world.now)) for parcel in world.flight]
    world.cut.clear()
    for member in world.members.values():
        member.stalled_until = 0
        if not member.up:
            member.start()
    _until(world, "a leader whom all follow", lambda: _leader(world) is not None)
    _until(world, "one log everywhere", lambda: _is_in_step(world))
    before = world.referee.applied
    _until(world, "a write that is taken", world.write)
    _until(world, "a write", lambda: _is_in_step(world) and world.referee.applied > before)
    served = world.referee.reads_served
    asked = [world.members[id_] for id_ in sorted(world.referee.now.everyone)]
    for member in asked:
        world.read(member)
    _until(world, "a read on every member", lambda: world.referee.reads_served >= served + len(asked))
    for index in range(1, world.referee.committed + 1):
        assert index in world.referee.states, f"committed entry {index} was never applied"


def _cut_off(world: World, id_: int, elections: int) -> None:
    others = [other for other in world.members if other != id_]
    world.cut = {(id_, other) for other in others} | {(other, id_) for other in others}
    for _ in range(elections * 2 * world.plan.election_ticks):
        world.tick()


def return_of_a_follower(world: World) -> None:
    """A voter is cut off for some election timeouts and comes back: nobody changes the term or the leader."""
    leader = _leader(world)
    assert leader is not None, "the group was calm"
    followers = sorted(world.referee.now.voters - {leader.id})
    if not followers:
        return
    term = leader.node.raft.term
    _cut_off(world, world.chance.choice(followers), 3 if len(followers) > 1 else 0)
    world.cut.clear()
    for _ in range(2 * world.plan.election_ticks):
        world.tick()
    now = _leader(world)
    if now is not leader or leader.node.raft.term != term:
        raise Violation(f"disturbance: a follower came back, and {leader.id} does not lead term {term} any more")


def loss_of_a_leader(world: World) -> None:
    """A leader is cut off: it notices and steps down, the others go on with another one."""
    leader = _leader(world)
    assert leader is not None, "the group was calm"
    if len(world.referee.now.voters) < 3:
        return
    _cut_off(world, leader.id, 2)
    if leader.node.raft.role is Role.LEADER:
        raise Violation(f"{leader.id} is cut off and still leads term {leader.node.raft.term}")
    rest = [world.members[id_] for id_ in world.referee.now.voters - {leader.id}]
    _until(world, "another leader", lambda: any(member.node.raft.role is Role.LEADER for member in rest))
    world.cut.clear()
    _until(world, "a leader whom all follow", lambda: _leader(world) is not None)


def transfer_of_the_lead(world: World) -> None:
    """The lead is handed to a voter, which comes to lead; a transfer that took too long is asked for again."""
    leader = _leader(world)
    assert leader is not None, "the group was calm"
    heirs = sorted(world.referee.now.voters - {leader.id})
    if not heirs:
        return
    heir = world.members[world.chance.choice(heirs)]
    _until(world, "a last write", world.write)

    def has_taken_over() -> bool:
        raft = leader.node.raft
        if raft.role is Role.LEADER and not raft.transferee:
            leader.node.transfer_leadership(heir.id)
        return heir.node.raft.role is Role.LEADER

    _until(world, f"a transfer of the lead to {heir.id}", has_taken_over)
    _until(world, "a write under the heir", world.write)


def transfer_to_nobody(world: World) -> None:
    """The lead is handed to a voter that is down: after an election timeout the leader goes on as before."""
    leader = _leader(world)
    assert leader is not None, "the group was calm"
    heirs = sorted(world.referee.now.voters - {leader.id})
    if len(heirs) < 2:
        return
    heir = world.members[world.chance.choice(heirs)]
    heir.crash()
    leader.node.transfer_leadership(heir.id)
    for _ in range(2 * world.plan.election_ticks):
        world.tick()
    if leader.node.raft.role is not Role.LEADER or not world.write():
        raise Violation(f"transfer: {leader.id} handed over to {heir.id}, which is down, and takes no writes any more")


def reads_of_a_deposed_leader(world: World) -> None:
    """A leader sleeps, on a small side with all learners, until the others have another one: then it is to read."""
    old = _leader(world)
    assert old is not None, "the group was calm"
    members = world.referee.now
    voters = sorted(members.voters - {old.id})
    if len(voters) < 2:
        return
    side = {old.id, *members.learners, *voters[: len(voters) // 2 - 1]}
    world.cut = {(a, b) for a in world.members for b in world.members if (a in side) is not (b in side)}
    before = world.referee.committed
    for id_ in side:
        world.members[id_].stalled_until = world.now + NEVER_ROUNDS
    _until(world, "a leader of the other side", lambda: world.referee.committed > before)
    for id_ in side:
        world.members[id_].stalled_until = 0
    # What waited in the sockets of those who slept.
    world.flight = [replace(parcel, due=min(parcel.due, world.now)) for parcel in world.flight]
    world.read(old)
    for _ in range(4):
        world.tick()
    world.cut.clear()
    _until(world, "a leader whom all follow", lambda: _leader(world) is not None)


def run(seed: int) -> World:
    """Run one history from its start to calm. Raises Violation, or an assertion of the core."""
    world = World(seed)
    for _ in range(world.plan.rounds):
        world.round()
    calm_down(world)
    match seed % 5:
        case 0:
            return_of_a_follower(world)
        case 1:
            loss_of_a_leader(world)
        case 2:
            transfer_of_the_lead(world)
        case 3:
            reads_of_a_deposed_leader(world)
        case _:
            transfer_to_nobody(world)
    return world
