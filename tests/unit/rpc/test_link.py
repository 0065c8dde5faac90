from __future__ import annotations

import asyncio

import pytest

from shoal.model.messages import EndSession, Heartbeat
from shoal.rpc.link import FRAMES_QUEUED_MOST, LinkClosed, make_pair


def test_messages_come_in_order_and_both_ways() -> None:
    async def scenario() -> None:
        one, other = make_pair()
        for number in range(3):
            await one.send(Heartbeat(session_id=str(number)))
        await other.send(EndSession(reason="x"))
        assert [await other.receive() for _ in range(3)] == [Heartbeat(session_id=str(n)) for n in range(3)]
        assert await one.receive() == EndSession(reason="x")

    asyncio.run(scenario())


def test_what_was_sent_before_the_end_is_received_and_then_it_is_closed_for_both() -> None:
    async def scenario() -> None:
        one, other = make_pair()
        await one.send(Heartbeat(session_id="last"))
        one.close()
        assert await other.receive() == Heartbeat(session_id="last")
        for link in (one, other):
            with pytest.raises(LinkClosed):
                await link.receive()
            with pytest.raises(LinkClosed):
                await link.send(Heartbeat(session_id="late"))

    asyncio.run(scenario())


def test_who_waits_is_woken_by_the_end() -> None:
    async def scenario() -> None:
        one, other = make_pair()
        receiving = asyncio.create_task(other.receive())
        for number in range(FRAMES_QUEUED_MOST):
            await other.send(Heartbeat(session_id=str(number)))
        sending = asyncio.create_task(other.send(Heartbeat(session_id="one too many")))
        await asyncio.sleep(0)
        assert not sending.done(), "a sender waits while the other side is behind"
        one.close()
        for waiting in (receiving, sending):
            with pytest.raises(LinkClosed):
                await asyncio.wait_for(waiting, 5)

    asyncio.run(scenario())


def test_a_sender_goes_on_when_the_other_side_has_read() -> None:
    async def scenario() -> None:
        one, other = make_pair()
        for number in range(FRAMES_QUEUED_MOST):
            await one.send(Heartbeat(session_id=str(number)))
        sending = asyncio.create_task(one.send(Heartbeat(session_id="next")))
        await asyncio.sleep(0)
        received = [await other.receive() for _ in range(FRAMES_QUEUED_MOST + 1)]
        await asyncio.wait_for(sending, 5)
        assert received[-1] == Heartbeat(session_id="next")

    asyncio.run(scenario())
