"""The agent: this node's side of the session with a manager."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Protocol

import structlog

from shoal.agent.worker import Worker
from shoal.errors import ShoalError
from shoal.lib.backoff import Backoff
from shoal.lib.supervise import cancel_and_wait
from shoal.model.messages import (
    Assignments,
    DescribeNode,
    EndSession,
    Heartbeat,
    NetworkAcknowledged,
    NetworkUpdate,
    OpenSession,
    SessionOpened,
    StatusAcknowledged,
)
from shoal.model.netstate import IngressState
from shoal.model.objects import NodeDescription
from shoal.rpc.link import Link, LinkClosed

_log = structlog.get_logger(__name__)

DESCRIPTION_PERIOD_SECONDS = 20.0


class MeshNetwork(Protocol):
    """What the agent tells the node's network."""

    async def set_ingress(self, state: IngressState) -> None:
        """Make the kernel balance to these backends."""


class Agent:
    """Keeps a session with a manager and hands what comes to the worker and the network.

    Args:
        node_id: who this node is.
        describe: what it is like now.
        dial: makes a new link to a manager.
        worker: runs the tasks.
        network: balances to them.
    """

    def __init__(
        self,
        node_id: str,
        describe: Callable[[], NodeDescription],
        dial: Callable[[], Awaitable[Link]],
        worker: Worker,
        network: MeshNetwork,
    ) -> None:
        self._node_id = node_id
        self._describe = describe
        self._dial = dial
        self._worker = worker
        self._network = network
        self.session_id = ""

    async def run(self) -> None:
        """Keep a session for ever; when it ends, open another."""
        backoff = Backoff()
        while True:
            try:
                link = await self._dial()
                await self._serve(link, backoff)
            except (ShoalError, OSError, TimeoutError) as error:
                _log.info("session lost", node=self._node_id, reason=str(error))
            self.session_id = ""
            await asyncio.sleep(backoff.next_delay_seconds())

    async def _serve(self, link: Link, backoff: Backoff) -> None:
        description = self._describe()
        await link.send(OpenSession(node_id=self._node_id, description=description))
        opened = await link.receive()
        if not isinstance(opened, SessionOpened):
            reason = opened.reason if isinstance(opened, EndSession) else "no session was opened"
            raise LinkClosed(reason)
        self.session_id = opened.session_id
        backoff.reset()
        self._worker.report_all()
        tasks = [
            asyncio.create_task(self._receive(link)),
            asyncio.create_task(self._send_reports(link)),
            asyncio.create_task(self._beat(link, opened, description)),
        ]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
        finally:
            await cancel_and_wait(*tasks)
            link.close()
        for task in done:
            task.result()

    async def _receive(self, link: Link) -> None:
        while True:
            message = await link.receive()
            match message:
                case Assignments():
                    self._worker.take(message)
                case NetworkUpdate():
                    await self._network.set_ingress(message.ingress)
                    await link.send(NetworkAcknowledged(ingress_version=message.ingress.version))
                case StatusAcknowledged():
                    self._worker.acknowledge(message.sequence)
                case EndSession():
                    raise LinkClosed(message.reason)
                case _:
                    raise ShoalError(f"a manager does not send {type(message).__name__}")

    async def _send_reports(self, link: Link) -> None:
        while True:
            await link.send(await self._worker.next_report())

    async def _beat(self, link: Link, opened: SessionOpened, description: NodeDescription) -> None:
        loop = asyncio.get_running_loop()
        described_at = loop.time()
        while True:
            await asyncio.sleep(opened.heartbeat_period_seconds)
            await link.send(Heartbeat(session_id=opened.session_id))
            if loop.time() - described_at >= DESCRIPTION_PERIOD_SECONDS:
                described_at = loop.time()
                fresh = self._describe()
                if fresh != description:
                    description = fresh
                    await link.send(DescribeNode(description=fresh))
