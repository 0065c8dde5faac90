"""Plain containers on networks of the swarm, as the leader keeps them: attached and let go of at their nodes' word."""

from __future__ import annotations

from collections.abc import Sequence

import structlog

from shoal.core.attachments import COULD_NOT, attachment_task, check_attachable, choose_addresses, is_attachment
from shoal.core.networks import is_overlay
from shoal.errors import Conflict, NotFound, NotLeader
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.manager.lookup import find_network
from shoal.model.actions import Action, Create, Remove
from shoal.model.node_port import AttachAnswer, AttachCall, AttachmentsAnswer
from shoal.model.objects import AttachedContainer, Network, Node, Task
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

# how often an address is chosen anew because a task was given it meanwhile
OUTRUN_MOST = 20


class Attachments:
    """The writes of a manager about plain containers on networks."""

    def __init__(self, store: Store, ids: Ids, clock: Clock) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock

    async def attach(self, call: AttachCall, node_id: str) -> AttachAnswer:
        """Give a container of a node a place on a network.

        Raises:
            NotFound, InvalidArgument: no such network, or several.
            Forbidden: the network is not attachable.
            Conflict: an address that is taken, or none left.
            NotLeader: another manager leads.
        """
        self._require_lead()
        task_id = self._ids.new()
        made: list[tuple[Network, Task]] = []

        def plan(view: View) -> Sequence[Action]:
            network = _network(view, call.network)
            check_attachable(network, call.network)
            if view.get(Node, node_id) is None:
                raise NotFound(f"node {node_id} is not part of this swarm any more")
            used = view.addresses_in_use(network.id)
            # of a network that each node makes for itself the node gives them
            addresses = choose_addresses(network, call.addresses, used, task_id) if is_overlay(network) else ()
            container = AttachedContainer(container_id=call.container_id, name=call.name, aliases=call.aliases)
            task = attachment_task(task_id, node_id, network, addresses, container, self._clock.now_ns())
            made[:] = [(network, task)]
            return [Create(object=task)]

        for attempt in range(OUTRUN_MOST):
            try:
                await self._store.update(plan)
                break
            except Conflict:
                taken = not made or attempt + 1 == OUTRUN_MOST
                if taken or call.addresses:
                    raise
        network, task = made[0]
        held = task.attachments[0]
        _log.info("a container is attached", network=network.spec.name, container=call.container_id, node=node_id)
        return AttachAnswer(
            task_id=task_id,
            network_id=network.id,
            network_name=network.spec.name,
            addresses=held.addresses,
            internal=held.internal,
            spec=held.spec,
        )

    async def release(self, task_ids: Sequence[str], node_id: str) -> AttachmentsAnswer:
        """Take places of containers of a node away; return those that it has after that. Raises NotLeader."""
        self._require_lead()
        wanted = frozenset(task_ids)
        if wanted:
            await self._store.update(
                lambda view: [Remove(kind="task", id=task.id) for task in _held(view, node_id) if task.id in wanted]
            )
        return AttachmentsAnswer(task_ids=tuple(task.id for task in _held(self._store.view, node_id)))

    def _require_lead(self) -> None:
        if not self._store.consensus.is_leader:
            raise NotLeader("only the leader attaches containers to networks")


def _network(view: View, reference: str) -> Network:
    try:
        return find_network(view, reference)
    except NotFound:
        prefix = COULD_NOT.format(name=reference, code="NotFound")
        raise NotFound(f"{prefix}network {reference} not found") from None


def _held(view: View, node_id: str) -> list[Task]:
    return [task for task in view.tasks_of_node(node_id) if is_attachment(task)]
