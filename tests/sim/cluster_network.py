"""The simulated network: connections between hosts that behave as TCP with the watch of `rpc.websocket` does.

Frames keep their order within a connection, not between connections. What is sent over a cut waits (TCP sends it again)
and comes when the cut heals; a connection that got no acknowledgement for some three seconds, either way, has fallen
silent, for both ends. A process that dies resets its connections; a host that loses its power says nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, NamedTuple

from shoal.errors import ShoalError, Unavailable
from shoal.model.node_port import Identity
from shoal.rpc.dialer import CONNECT_TIMEOUT_SECONDS
from shoal.rpc.link import LinkClosed, LinkSilent
from shoal.rpc.websocket import SILENCE_SECONDS
from tests.sim.virtual_loop import PROCESS, Process, VirtualLoop

SILENCE_SPREAD_SECONDS = 1.5
RESET_SPREAD_SECONDS = 1.0


class Refused(Unavailable):
    """Nothing listens there: no byte was sent."""


class Serve(NamedTuple):
    """`check` raises what a connection is refused with after all, `run` answers it."""

    check: Callable[[], Awaitable[None]]
    run: Callable[[Connection], Awaitable[None]]


class Listener:
    """What a process offers on its node port. `admit` raises what a connection is refused with, or says who serves."""

    def __init__(self, process: Process, admit: Callable[[str, Identity | None], Serve]) -> None:
        self.process = process
        self.admit = admit


class Machine:
    """A host on the network."""

    def __init__(self, address: str) -> None:
        self.address = address
        self.is_powered = True
        self.listener: Listener | None = None
        self.ends: set[Connection] = set()


class Connection:
    """One end of a connection, as `rpc.websocket.FrameSocket` is."""

    def __init__(self, number: int, network: Network, machine: Machine, process: Process, peer: Machine) -> None:
        self.number = number
        self.healed_at = 0.0
        self.network = network
        self.machine = machine
        self.process = process
        self.peer_machine = peer
        self.peer: Connection | None = None
        self._incoming: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.ended: LinkClosed | None = None
        self._half_closed = False
        self._under_way: deque[Callable[[], None]] = deque()
        self._held: deque[Callable[[], None]] = deque()
        self._last_arrival = 0.0
        machine.ends.add(self)

    def __hash__(self) -> int:
        return self.number

    def __eq__(self, other: object) -> bool:
        return self is other

    # -- as a FrameSocket

    async def send(self, frame: bytes) -> None:
        if self.ended is not None and self._half_closed:
            # the other side has said its last word, and does not read this
            return
        if self.ended is not None:
            raise type(self.ended)(self.ended.message)
        peer = self.peer
        self._post(lambda: peer._arrive(frame))

    async def receive(self) -> bytes:
        while not self._incoming:
            if self.ended is not None:
                raise type(self.ended)(self.ended.message)
            self._waiter = asyncio.get_running_loop().create_future()
            await self._waiter
        return self._incoming.popleft()

    def close(self) -> None:
        if self.ended is None:
            peer = self.peer
            self._end(LinkClosed("the link is closed"))
            self._incoming.clear()
            self._post(peer._finish)
        self._half_closed = False

    async def wait_closed(self) -> None:
        self.close()

    # -- what the kernel does

    def _post(self, arrival: Callable[[], None]) -> None:
        """Let something arrive at the other end, after all that was sent before."""
        self._under_way.append(arrival)
        self._time_next()

    def _time_next(self) -> None:
        network = self.network
        at = max(self._last_arrival, network.loop.now + network.delay(self.machine, self.peer_machine))
        self._last_arrival = at
        # timers of one moment come in any order, what is under way does not
        network.loop.call_at(at, self._carry, context=network.loop.neutral)

    def _carry(self) -> None:
        arrival = self._under_way.popleft()
        if self._held or not self.network.carries(self.machine, self.peer_machine):
            self._held.append(arrival)
        else:
            arrival()

    def send_held_again(self) -> None:
        # before all that was sent since
        held, self._held = self._held, deque()
        self._under_way.extendleft(reversed(held))
        for _ in held:
            self._time_next()

    def _arrive(self, frame: bytes) -> None:
        if self.ended is None and self.process.is_alive:
            self._incoming.append(frame)
            self._wake()

    def _finish(self) -> None:
        self._half_closed = self.ended is None
        self._end(LinkClosed("the other side has ended the link"))

    def _end(self, error: LinkClosed) -> None:
        if self.ended is None:
            self.ended = error
            self.machine.ends.discard(self)
            self._wake()

    def _wake(self) -> None:
        waiter, self._waiter = self._waiter, None
        if waiter is not None and not waiter.done():
            waiter.set_result(None)

    def fall_silent(self) -> None:
        self._end(LinkSilent("nothing was acknowledged for 3 s"))

    def abort(self) -> None:
        """End without a word, as after a silence that was too long."""
        if self.ended is None:
            self.fall_silent()
            peer = self.peer
            self._post(peer.reset)

    def reset(self) -> None:
        self._end(LinkClosed("the link is closed: connection reset"))

    def process_died(self) -> None:
        """The kernel says it to the other side."""
        self.machine.ends.discard(self)
        self.ended = self.ended or LinkClosed("its process is dead")
        peer = self.peer
        self._post(peer.reset)


class Network:
    """Hosts and what is between them.

    Attributes:
        cut: pairs (from, to) of addresses between which nothing goes that way.
        far: the seconds a frame takes one way, by pair; else a few milliseconds.
        is_gone: at the end of the world nothing goes anywhere.
    """

    def __init__(self, loop: VirtualLoop, chance: random.Random) -> None:
        self.loop = loop
        self.chance = chance
        self.machines: dict[str, Machine] = {}
        self.cut: set[tuple[str, str]] = set()
        self.far: dict[tuple[str, str], float] = {}
        self.is_gone = False
        self.frames = 0
        self._ends_made = 0

    def carries(self, one: Machine, other: Machine) -> bool:
        return (
            not self.is_gone
            and one.is_powered
            and other.is_powered
            and (one is other or (one.address, other.address) not in self.cut)
        )

    def carries_both_ways(self, one: Machine, other: Machine) -> bool:
        return self.carries(one, other) and self.carries(other, one)

    def delay(self, one: Machine, other: Machine) -> float:
        self.frames += 1
        if one is other:
            return 0.00005
        base = self.far.get((one.address, other.address), 0.0003)
        return base * (1 + self.chance.random())

    # -- faults

    def set_cut(self, cut: set[tuple[str, str]]) -> None:
        """Cut these ways and heal the others."""
        healed, added = self.cut - cut, cut - self.cut
        self.cut = set(cut)
        for one, other in sorted(added):
            self._watch_for_silence(self.machines[one], self.machines[other])
        for one, other in sorted(healed):
            self._heal(self.machines[one], self.machines[other])

    def power_off(self, machine: Machine) -> None:
        machine.is_powered = False
        machine.listener = None
        for end in self._in_order(machine.ends):
            self._watch_for_silence(end.machine, end.peer_machine)
            end.ended = LinkClosed("its host has no power")
        machine.ends.clear()

    def power_on(self, machine: Machine) -> None:
        machine.is_powered = True
        for other in self.machines.values():
            for end in self._in_order(other.ends):
                if end.peer_machine is machine and end.peer.ended is not None:
                    self._later(self.chance.random() * RESET_SPREAD_SECONDS, end.reset)

    def _in_order(self, ends: set[Connection]) -> list[Connection]:
        return sorted(ends, key=lambda end: end.number)

    def _later(self, seconds: float, what: Callable[[], None]) -> None:
        self.loop.call_later(seconds, what, context=self.loop.neutral)

    def _between(self, one: Machine, other: Machine) -> list[Connection]:
        ends = [end for end in self._in_order(one.ends) if end.peer_machine is other]
        return ends + [end for end in self._in_order(other.ends) if end.peer_machine is one and other is not one]

    def _watch_for_silence(self, one: Machine, other: Machine) -> None:
        for end in self._between(one, other):
            seconds = SILENCE_SECONDS + self.chance.random() * SILENCE_SPREAD_SECONDS
            since = self.loop.now
            self._later(seconds, lambda end=end, since=since: self._look(end, since))

    def _look(self, end: Connection, since: float) -> None:
        is_cut = not self.carries_both_ways(end.machine, end.peer_machine)
        # a cut that healed in between began the wait anew
        if end.ended is None and is_cut and end.healed_at <= since:
            end.fall_silent()

    def _heal(self, one: Machine, other: Machine) -> None:
        if not self.carries(one, other):
            return
        for end in self._between(one, other):
            end.healed_at = self.loop.now
            if end.machine is one:
                end.send_held_again()
            if end.ended is None and end.peer.ended is not None:
                self._later(self.chance.random() * RESET_SPREAD_SECONDS, end.reset)

    # -- connections

    async def connect(self, machine: Machine, identity: Identity | None, address: str, path: str) -> Connection:
        """Open a connection; raises as the dialler does."""
        process = PROCESS.get()
        assert process is not None, "only processes connect"
        target = self.machines.get(address)
        answered: asyncio.Future[Connection] = asyncio.get_running_loop().create_future()
        if target is not None and not self.is_gone:
            arrival = self.delay(machine, target)
            self._later(arrival, lambda: self._knock(machine, process, target, identity, path, answered))
        try:
            async with asyncio.timeout(CONNECT_TIMEOUT_SECONDS):
                return await answered
        except TimeoutError:
            raise Refused(f"the manager at {address} does not answer within its time") from None

    def _knock(
        self,
        machine: Machine,
        process: Process,
        target: Machine,
        identity: Identity | None,
        path: str,
        answered: asyncio.Future[Connection],
    ) -> None:
        if not self.carries_both_ways(machine, target):
            return
        listener = target.listener
        if listener is None or not listener.process.is_alive:
            error = Refused(f"cannot reach the manager at {target.address}: Connection refused")
            self._answer(target, machine, process, lambda: _fail(answered, error))
            return
        # the handshake is the process' work: a stopped one does not answer
        self.loop.call_soon(
            self._admit, machine, process, target, listener, identity, path, answered, context=listener.process.context
        )

    def _admit(
        self,
        machine: Machine,
        process: Process,
        target: Machine,
        listener: Listener,
        identity: Identity | None,
        path: str,
        answered: asyncio.Future[Connection],
    ) -> None:
        if answered.done() or not process.is_alive:
            return
        try:
            serve = listener.admit(path, identity)
        except ShoalError as error:
            refusal = error
            self._answer(target, machine, process, lambda: _fail(answered, refusal))
            return
        self.loop.create_task(
            self._let_in(serve, machine, process, target, listener, answered),
            name=f"serve {path}",
            context=listener.process.context.copy(),
        )

    async def _let_in(
        self,
        serve: Serve,
        machine: Machine,
        process: Process,
        target: Machine,
        listener: Listener,
        answered: asyncio.Future[Connection],
    ) -> None:
        try:
            await serve.check()
        except ShoalError as error:
            refusal = error
            self._answer(target, machine, process, lambda: _fail(answered, refusal))
            return
        if not process.is_alive or target.listener is not listener:
            return
        theirs = self._end_of(target, listener.process, machine)
        ours = self._end_of(machine, process, target)
        ours.peer, theirs.peer = theirs, ours

        def accept() -> None:
            if answered.done():
                ours.close()
            else:
                answered.set_result(ours)

        self._answer(target, machine, process, accept)
        try:
            await serve.run(theirs)
        except LinkClosed:
            return
        finally:
            theirs.close()

    def _end_of(self, machine: Machine, process: Process, peer: Machine) -> Connection:
        self._ends_made += 1
        return Connection(self._ends_made, self, machine, process, peer)

    def _answer(self, target: Machine, machine: Machine, process: Process, what: Callable[[], None]) -> None:
        def arrive() -> None:
            if self.carries(target, machine) and process.is_alive:
                what()

        self._later(2 * self.delay(target, machine), arrive)


def _fail(answered: asyncio.Future[Any], error: Exception) -> None:
    if not answered.done():
        answered.set_exception(error)
