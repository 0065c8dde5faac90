"""What a member is given from outside: the state machine that it drives, and the transport to other members."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from shoal.raft.core.messages import Message


class StateMachine(Protocol):
    """What committed entries are applied to. It must be deterministic: all members apply the same."""

    def apply(self, index: int, data: bytes) -> object:
        """Apply an entry, or what a change of members carries; the result goes to its proposer.

        An exception that is returned (not raised) with a change of members takes back that change, on every member
        alike: so what the store says of the members and who they are never differ.
        """

    def snapshot(self) -> Iterator[bytes]:
        """Yield the state at the time of the call, in chunks."""

    def restore(self, chunks: Iterable[bytes]) -> None:
        """Replace the state."""


class Transport(Protocol):
    """Carries messages to other members. Neither method waits or raises."""

    def send(self, messages: Iterable[Message]) -> None:
        """Send messages, best effort; failures are told to `RaftDriver.report_unreachable`.

        Once messages can be sent again, `RaftDriver.report_reachable` is called.
        """

    def send_snapshot(self, message: Message, chunks: Iterator[bytes]) -> None:
        """Send a message of type SNAPSHOT with the opened chunks of its snapshot to `message.to`.

        `RaftDriver.report_snapshot` must be called exactly once for it, however it ends: with True when the receiver
        has it (its `receive_snapshot` returned), else with False; until then the core sends that member nothing.
        Iterating reads and opens a file: it belongs in a thread, and may raise OSError and BrokenSeal.
        """


class NoTransport:
    """For a group of one member: there is nobody to send to."""

    def send(self, messages: Iterable[Message]) -> None:
        """Send nothing."""
        for message in messages:
            raise AssertionError(f"a message to {message.to} in a group of one")

    def send_snapshot(self, message: Message, chunks: Iterator[bytes]) -> None:
        """Send nothing."""
        raise AssertionError(f"a snapshot to {message.to} in a group of one: {chunks}")
