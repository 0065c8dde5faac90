"""Networks that this node makes for itself: kept in DATA/networks, told to the node's network, given to containers.

Its own, and copies of networks of the swarm that each node makes (`docker network create --scope swarm -d macvlan`): a
copy is there while a container is on it. Which containers are on a network stands in their own records; a network is
known again after a crash as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import msgspec
import structlog

from shoal.core.container import TASK_ID_LABEL, task_name
from shoal.core.local_networks import (
    SHORT_ID_LENGTH,
    addresses_of,
    answer_of,
    gateway_network,
    make_local_network,
    place_container,
    refuse_shared_parent,
    service_names,
    service_of,
    update_of,
    with_configuration,
)
from shoal.core.networks import GATEWAY_NAME, local_options
from shoal.core.validate.network import prepare_local_network
from shoal.engine.protocol import Engine
from shoal.errors import Forbidden, InvalidArgument, NameConflict, ShoalError
from shoal.lib.clock import Clock
from shoal.lib.files import sync_directory, write_atomically
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import Container
from shoal.model.netstate import GatewayNetwork, OverlayService
from shoal.model.node_port import AttachAnswer, AttachCall
from shoal.model.objects import Network, Revision, Task
from shoal.model.plain import LOCAL_PREFIX
from shoal.model.specs import NetworkSpec
from shoal.network.node import NodeNetwork

_log = structlog.get_logger(__name__)


class LocalNetworks:
    """See the module.

    Args:
        directory: where they are kept.
        engine: has the containers.
        network: of the node.
        clock: source of time.
        ids: source of ids.
    """

    def __init__(self, directory: Path, engine: Engine, network: NodeNetwork, clock: Clock, ids: Ids) -> None:
        self._directory = directory
        self._engine = engine
        self._network = network
        self._clock = clock
        self._ids = ids
        self._known: dict[str, Network] = {}
        self._places: dict[str, dict[str, OverlayService]] = {}
        self._turn = asyncio.Lock()

    async def start_up(self) -> None:
        """Read the networks and who is on them, and tell the node's network. The engine has started."""
        self._known = await asyncio.to_thread(self._read)
        self._places = {network_id: {} for network_id in self._known}
        for container in self._engine.list():
            for network_id, service in _places_of(container):
                if network_id in self._places:
                    self._places[network_id][service.service_id] = service
        await self._forget_copies()
        gateway = next((each for each in self._known.values() if each.spec.name == GATEWAY_NAME), None)
        try:
            await self._network.set_way_out(gateway_network(gateway) if gateway is not None else GatewayNetwork())
        except ShoalError as error:
            _log.error("docker_gwbridge is not as it was made", reason=error.message)
        await self._tell()

    def _read(self) -> dict[str, Network]:
        self._directory.mkdir(exist_ok=True, mode=0o700)
        found = (msgspec.json.decode(path.read_bytes(), type=Network) for path in self._directory.glob("*.json"))
        return {network.id: network for network in found}

    def list(self) -> tuple[Network, ...]:
        """Return the networks by id, copies of the swarm's among them."""
        return tuple(self._known[network_id] for network_id in sorted(self._known))

    def find(self, reference: str) -> Network | None:
        """Return a network of this node alone by id, name or beginning of its id; None: none, or several."""
        own = {network_id: network for network_id, network in self._known.items() if not _is_copy(network)}
        if reference in own:
            return own[reference]
        named = [network for network in own.values() if network.spec.name == reference]
        found = named or [network for network in own.values() if network.id.startswith(reference)]
        return found[0] if len(found) == 1 and reference else None

    def _placed(self, network_id: str) -> tuple[OverlayService, ...]:
        return tuple(self._places.get(network_id, {}).values())

    async def create(self, spec: NetworkSpec) -> str:
        """Make a network; returns its id.

        Raises:
            NameConflict: there is one of that name.
            InvalidArgument, Forbidden, NotFound, NotBuilt, Unavailable: see `prepare_local_network` and the subnets.
        """
        spec = prepare_local_network(spec)
        async with self._turn:
            if any(network.spec.name == spec.name for network in self._known.values() if not _is_copy(network)):
                raise NameConflict(f"network with name {spec.name} already exists")
            network = await self._make(self._ids.new_hex(), spec)
        return network.id

    async def _make(self, network_id: str, spec: NetworkSpec) -> Network:
        """Make a network, in this object's turn. Raises as `create`."""
        spec = with_configuration(spec, self._known.values())
        refuse_shared_parent(spec, self._known.values())
        parent = local_options(spec).parent
        if parent and not await self._network.has_link(parent):
            raise InvalidArgument(
                f"Options: this node has no link {parent}: name one that it has (ip link), or make it first "
                "(ip link add … type vlan)"
            )
        host_subnets = await self._network.routed_subnets()
        network = make_local_network(network_id, spec, self._known.values(), host_subnets, self._clock.now_ns())
        if spec.name == GATEWAY_NAME:
            await self._network.set_way_out(gateway_network(network))
            subnet, gateway = self._network.way_out()
            network = replace(network, subnets=(subnet,), gateways=(gateway,))
        await asyncio.to_thread(self._write, network)
        self._known[network.id] = network
        self._places[network.id] = {}
        await self._tell()
        _log.info("network created", name=spec.name, network_id=network.id, subnets=network.subnets)
        return network

    def _write(self, network: Network) -> None:
        write_atomically(self._directory / f"{network.id}.json", msgspec.json.encode(network))
        sync_directory(self._directory)

    async def remove(self, network: Network) -> None:
        """Remove a network. Raises Forbidden: a container that runs is on it, or a network takes its configuration."""
        name = network.spec.name
        async with self._turn:
            if network.spec.config_only and any(_takes_from(each, name) for each in self._known.values()):
                raise Forbidden(f'configuration network "{name}" is in use')
            if self._places.get(network.id):
                raise Forbidden(
                    f"error while removing network: network {name} id {network.id} has active endpoints: "
                    f"{', '.join(sorted(each.endpoints[0].name for each in self._placed(network.id)))}"
                )
            if name == GATEWAY_NAME:
                await self._network.set_way_out(GatewayNetwork())
            await self._forget(network)
            await self._tell()

    async def prune(self, is_wanted: Callable[[Network], bool]) -> tuple[str, ...]:
        """Remove the networks of this node alone that `is_wanted` picks and nothing is on; return their names.

        What was configured by hand stays: configuration networks, and docker_gwbridge.
        """
        removed = []
        async with self._turn:
            for network in self.list():
                is_kept = network.spec.config_only or network.spec.name == GATEWAY_NAME or _is_copy(network)
                if not is_kept and not self._places[network.id] and is_wanted(network):
                    await self._forget(network)
                    removed.append(network.spec.name)
            if removed:
                await self._tell()
        return tuple(sorted(removed))

    async def _forget(self, network: Network) -> None:
        path = self._directory / f"{network.id}.json"
        await asyncio.to_thread(path.unlink, missing_ok=True)
        self._known.pop(network.id, None)
        self._places.pop(network.id, None)
        _log.info("network removed", name=network.spec.name, network_id=network.id)

    async def _forget_copies(self) -> None:
        """Let go of copies of the swarm's networks that no container is on."""
        for network in self.list():
            if _is_copy(network) and not self._places[network.id]:
                await self._forget(network)

    async def attach(self, network: Network, call: AttachCall) -> AttachAnswer:
        """Give a container a place. Raises InvalidArgument, Conflict (addresses, or a network for configuration)."""
        if network.spec.config_only:
            raise Forbidden(
                f"configuration network {network.spec.name} holds no containers: name it with --config-from"
            )
        if network.spec.name == GATEWAY_NAME:
            raise Forbidden(f"{GATEWAY_NAME}: containers that need it have it by themselves")
        async with self._turn:
            return await self._place(network, call, "", ())

    async def attach_to_copy(self, place: AttachAnswer, call: AttachCall) -> AttachAnswer:
        """Give a plain container its place on a network of the swarm that this node makes. Raises as `create`."""
        return await self._place_on_copy(place.network_id, place.spec, call, place.task_id, ())

    async def join(self, task: Task, revision: Revision) -> tuple[AttachAnswer, ...]:
        """Give a task its places on networks of the swarm that this node makes for itself. Raises as `create`."""
        places = []
        for attachment in task.attachments:
            if attachment.spec is not None:
                name = task_name(revision.spec.name, task)
                call = AttachCall(network=attachment.network_id, container_id="", name=name)
                asked = (each for each in revision.spec.task_template.networks if each.target == attachment.network_id)
                names = service_names(revision.spec.name, (alias for each in asked for alias in each.aliases))
                place = await self._place_on_copy(attachment.network_id, attachment.spec, call, task.id, names)
                places.append(place)
        return tuple(places)

    async def leave(self, task_id: str) -> None:
        """Take the places of a task back; none is fine."""
        if any(task_id in places for places in self._places.values()):
            await self.release((task_id,))

    async def _place_on_copy(
        self, network_id: str, spec: NetworkSpec | None, call: AttachCall, task_id: str, names: tuple[str, ...]
    ) -> AttachAnswer:
        async with self._turn:
            network = self._known.get(network_id) or await self._make(network_id, spec or NetworkSpec())
            try:
                return await self._place(network, call, task_id, names)
            except BaseException:
                await self._forget_copies()
                raise

    async def _place(self, network: Network, call: AttachCall, task_id: str, names: tuple[str, ...]) -> AttachAnswer:
        places = self._places[network.id]
        if task_id in places:
            return answer_of(network, task_id, addresses_of(network, places[task_id]))
        answer, service = place_container(network, call, self._placed(network.id), task_id, names)
        places[answer.task_id] = service
        await self._tell()
        return answer

    async def release(self, task_ids: Sequence[str]) -> tuple[str, ...]:
        """Take places back; returns those that are held by plain containers after that."""
        async with self._turn:
            gone = False
            for places in self._places.values():
                for task_id in task_ids:
                    gone = places.pop(task_id, None) is not None or gone
            if gone:
                await self._forget_copies()
                await self._tell()
        return tuple(id_ for places in self._places.values() for id_ in places if id_.startswith(LOCAL_PREFIX))

    async def forget_swarm(self) -> None:
        """Let go of the copies of a swarm's networks that the node has left."""
        async with self._turn:
            for network in self.list():
                if _is_copy(network):
                    await self._forget(network)
            await self._tell()

    async def _tell(self) -> None:
        updates = (
            update_of(network, self._places[network.id].values())
            for network in self._known.values()
            if not network.spec.config_only and network.spec.name != GATEWAY_NAME
        )
        await self._network.set_local_networks(tuple(updates))


def _is_copy(network: Network) -> bool:
    return network.spec.scope == "swarm"


def _takes_from(network: Network, name: str) -> bool:
    return network.spec.config_from is not None and network.spec.config_from.network == name


def _places_of(container: Container) -> Iterator[tuple[str, OverlayService]]:
    """Yield the networks that a container's record says it is on, and its places there."""
    plain = container.config.plain
    for each in plain.attachments if plain is not None else ():
        aliases = (container.id[:SHORT_ID_LENGTH], *each.aliases)
        yield each.network_id, service_of(each.task_id, container.config.name, each.addresses, aliases)
    task_id = container.config.labels.get(TASK_ID_LABEL, "")
    if plain is None and task_id and container.state.status != "exited":
        for joined in container.config.networks:
            name = container.config.name
            yield joined.network_id, service_of(task_id, name, joined.addresses, (), joined.aliases)
