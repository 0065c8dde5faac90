"""Networks of the swarm: made and removed (docker-swarm.md 3.7, 4.11). What a network is never changes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

import structlog

from shoal.core.allocate.subnets import allocate_network
from shoal.core.network_keys import is_encrypted
from shoal.core.networks import PREDEFINED, is_overlay
from shoal.core.validate.network import prepare_network
from shoal.errors import Forbidden, InvalidArgument, NameConflict, NotFound, Unavailable
from shoal.lib.ids import Ids
from shoal.manager.lookup import find_network, require_cluster
from shoal.model.actions import Action, Create, Remove
from shoal.model.objects import Network, Node
from shoal.model.specs import NetworkSpec
from shoal.store.apply import Taken
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

# how often a subnet or a VXLAN id is chosen anew because another network was given it meanwhile
OUTRUN_MOST = 20
# `docker stack rm` removes services and then networks, without waiting: longer than the usual grace of a stop
LAST_TASKS_SECONDS = 15.0


class TasksLeft(InvalidArgument):
    """No service is on a network any more, but tasks that are to stop still are."""


class Networks:
    """The writes of a manager about networks."""

    def __init__(self, store: Store, ids: Ids) -> None:
        self._store = store
        self._ids = ids

    async def create(self, spec: NetworkSpec, actor: str = "") -> str:
        """Make a network and return its id.

        Raises:
            Forbidden: a name that Docker keeps for itself.
            InvalidArgument: a bad spec, or a subnet or VXLAN id that is another network's.
            NameConflict: the name is taken, or there is a network of the routing mesh already.
            NotFound: a driver that Shoal does not have.
            NotBuilt: a driver, or another way of giving addresses.
            Unavailable: no subnet is free, or no node can encrypt what is to be encrypted.
        """
        prepared = prepare_network(spec)
        network_id = self._ids.new()

        def plan(view: View) -> Sequence[Action]:
            return [Create(object=_planned(view, Network(id=network_id, spec=prepared)))]

        for attempt in range(OUTRUN_MOST):
            try:
                await self._store.update(plan, actor)
                break
            except Taken:
                if attempt + 1 == OUTRUN_MOST:
                    raise
        _log.info("network created", network_id=network_id, name=prepared.name, driver=prepared.driver, actor=actor)
        return network_id

    async def remove(self, reference: str, actor: str = "", patience_seconds: float = LAST_TASKS_SECONDS) -> None:
        """Remove a network. One that only tasks on their way out are on is removed when they have gone.

        Raises:
            NotFound, InvalidArgument (several; or a service or a task is on it), Forbidden (every node has it).
        """
        found: list[Network] = []
        follower = self._store.follow("task")
        loop = asyncio.get_running_loop()
        deadline = loop.time() + patience_seconds

        def plan(view: View) -> Sequence[Action]:
            network = find_network(view, reference)
            found[:] = [network]
            if network.id in PREDEFINED:
                raise Forbidden(f"{network.spec.name} is a pre-defined network and cannot be removed")
            users = sorted(service.spec.name for service in view.services_on(network.id))
            if users and network.spec.ingress:
                raise InvalidArgument(
                    f"ingress network cannot be removed because service {users[0]} depends on it: "
                    "remove the service, or its published ports"
                )
            if users:
                raise InvalidArgument(f"network {network.spec.name} is in use by service {', '.join(users)}")
            tasks = view.tasks_on(network.id)
            attached = next((task for task in tasks if task.container is not None), None)
            if attached is not None and attached.container is not None:
                raise InvalidArgument(
                    f"network {network.spec.name} is in use by container {attached.container.name}: "
                    "remove the container, or disconnect it (docker network disconnect)"
                )
            if tasks:
                raise TasksLeft(f"network {network.spec.name} is in use by task {tasks[0].id}")
            return [Remove(kind="network", id=network.id, must_exist=True)]

        while True:
            try:
                await self._store.update(plan, actor)
                break
            except TasksLeft:
                if loop.time() >= deadline:
                    raise
                await follower.wait(deadline - loop.time())
        _log.info("network removed", network_id=found[0].id, name=found[0].spec.name, actor=actor)

    async def prune(self, is_wanted: Callable[[Network], bool], actor: str = "") -> tuple[str, ...]:
        """Remove the networks that `is_wanted` picks and nothing uses; return their names. The mesh's own stays."""
        removed: list[str] = []
        for network in self._store.view.all(Network):
            if network.spec.ingress or not is_wanted(network):
                continue
            try:
                await self.remove(network.id, actor, patience_seconds=0.0)
            except (InvalidArgument, NotFound):
                # in use, or gone by itself
                continue
            removed.append(network.spec.name)
        return tuple(sorted(removed))


def _planned(view: View, network: Network) -> Network:
    """Return `network` with what it is given. Raises as `Networks.create`."""
    others = view.all(Network)
    taken = view.by_name(Network, network.spec.name)
    if taken is not None:
        raise NameConflict(f"network with name {network.spec.name} already exists")
    if network.spec.ingress:
        present = next((other for other in others if other.spec.ingress), None)
        if present is not None:
            raise NameConflict(f"ingress network ({present.id}) is already present")
    if not is_overlay(network):
        return network
    _demand_encryption(view, network)
    return allocate_network(network, others, require_cluster(view))


def _demand_encryption(view: View, network: Network) -> None:
    """Raise Unavailable for an encrypted network that no node could carry."""
    if not is_encrypted(network):
        return
    if not any(node.description.wireguard_key for node in view.find(Node)):
        raise Unavailable(
            "Options: no node of the swarm can encrypt: install wireguard-tools, and a kernel with WireGuard or the "
            "package wireguard-go, on the nodes (shoal doctor says what is missing), or leave --opt encrypted out"
        )
