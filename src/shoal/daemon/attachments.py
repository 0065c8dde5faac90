"""How plain containers of this node get onto networks of the swarm: the leader is asked, the node told of them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from shoal.daemon.local_networks import LocalNetworks
from shoal.daemon.node_port import ATTACH_PATH, RELEASE_PATH
from shoal.daemon.participation import Participation
from shoal.errors import NotFound, Unavailable
from shoal.model.node_port import AttachAnswer, AttachCall, AttachmentsAnswer, ReleaseCall
from shoal.model.plain import LOCAL_PREFIX
from shoal.network.node import NodeNetwork

NETWORK_SECONDS = 20.0
# nobody waits longer for a place to be given back: it is given back with a later session
RELEASE_SECONDS = 5.0


class NodeAttachments:
    """See `agent.container_network.SwarmNetworks`.

    Args:
        part: returns this node's part in the swarm, None in no swarm.
        network: is told of the networks.
        local: networks of this node alone; their names come first.
    """

    def __init__(self, part: Callable[[], Participation | None], network: NodeNetwork, local: LocalNetworks) -> None:
        self._part = part
        self._local = local
        self._network = network

    async def attach(self, call: AttachCall) -> AttachAnswer:
        """Get a place on a network; returns when the node knows the network.

        Raises:
            NotFound, InvalidArgument, Forbidden, Conflict: the leader refuses.
            Unavailable: no leader answers, or the node was not told in time.
        """
        own = self._local.find(call.network)
        if own is not None:
            return await self._local.attach(own, call)
        part = self._part()
        if part is None:
            raise NotFound(f"network {call.network} not found")
        node_id = part.membership.node_id
        answer = await part.ask_leader(
            ATTACH_PATH, call, AttachAnswer, lambda manager: manager.attachments.attach(call, node_id)
        )
        try:
            if answer.spec is not None:
                return await self._local.attach_to_copy(answer, call)
            async with asyncio.timeout(NETWORK_SECONDS):
                await self._network.wait_for_network(answer.network_id)
        except BaseException as error:
            await self.release((answer.task_id,))
            if isinstance(error, TimeoutError):
                raise Unavailable(
                    f"this node was not told of network {answer.network_name} within {NETWORK_SECONDS:g} s: "
                    "see whether it is in session with a manager (docker info)"
                ) from None
            raise
        return answer

    async def release(self, task_ids: Sequence[str]) -> tuple[str, ...]:
        """Give places back; returns those that are held after that. Raises Unavailable."""
        held = await self._local.release(task_ids)
        part = self._part()
        of_swarm = tuple(task_id for task_id in task_ids if not task_id.startswith(LOCAL_PREFIX))
        if part is None or (task_ids and not of_swarm):
            return held
        node_id = part.membership.node_id
        call = ReleaseCall(task_ids=of_swarm)
        try:
            async with asyncio.timeout(RELEASE_SECONDS):
                answer = await part.ask_leader(
                    RELEASE_PATH,
                    call,
                    AttachmentsAnswer,
                    lambda manager: manager.attachments.release(call.task_ids, node_id),
                )
        except TimeoutError:
            raise Unavailable("no manager takes a place on a network back at the moment") from None
        return (*held, *answer.task_ids)
