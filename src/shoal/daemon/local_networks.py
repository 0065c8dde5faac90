"""The networks of this node alone: kept in DATA/networks, told to the node's network, given to plain containers.

Which containers are on them stands in the containers' own records; a network is known again after a crash as it was.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path

import msgspec
import structlog

from shoal.core.local_networks import make_local_network, place_container, service_of, update_of
from shoal.core.validate.network import prepare_local_network
from shoal.engine.protocol import Engine
from shoal.errors import Forbidden, NameConflict
from shoal.lib.clock import Clock
from shoal.lib.files import sync_directory, write_atomically
from shoal.lib.ids import Ids
from shoal.model.netstate import OverlayService
from shoal.model.node_port import AttachAnswer, AttachCall
from shoal.model.objects import Network
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
            plain = container.config.plain
            for each in plain.attachments if plain is not None else ():
                if each.network_id in self._places:
                    self._places[each.network_id][each.task_id] = service_of(
                        each.task_id, container.id, container.config.name, each.addresses, each.aliases
                    )
        await self._tell()

    def _read(self) -> dict[str, Network]:
        self._directory.mkdir(exist_ok=True, mode=0o700)
        found = (msgspec.json.decode(path.read_bytes(), type=Network) for path in self._directory.glob("*.json"))
        return {network.id: network for network in found}

    def list(self) -> tuple[Network, ...]:
        """Return the networks by id."""
        return tuple(self._known[network_id] for network_id in sorted(self._known))

    def find(self, reference: str) -> Network | None:
        """Return a network by id, name or beginning of its id; None if there is none, or several."""
        if reference in self._known:
            return self._known[reference]
        named = [network for network in self._known.values() if network.spec.name == reference]
        found = named or [network for network in self._known.values() if network.id.startswith(reference)]
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
            if any(network.spec.name == spec.name for network in self._known.values()):
                raise NameConflict(f"network with name {spec.name} already exists")
            host_subnets = await self._network.routed_subnets()
            network = make_local_network(
                self._ids.new_hex(), spec, self._known.values(), host_subnets, self._clock.now_ns()
            )
            await asyncio.to_thread(self._write, network)
            self._known[network.id] = network
            self._places[network.id] = {}
            await self._tell()
        _log.info("network created", name=spec.name, network_id=network.id, subnets=network.subnets)
        return network.id

    def _write(self, network: Network) -> None:
        write_atomically(self._directory / f"{network.id}.json", msgspec.json.encode(network))
        sync_directory(self._directory)

    async def remove(self, network: Network) -> None:
        """Remove a network. Raises Forbidden: a container that runs is on it."""
        async with self._turn:
            if self._places.get(network.id):
                name = network.spec.name
                raise Forbidden(
                    f"error while removing network: network {name} id {network.id} has active endpoints: "
                    f"{', '.join(sorted(each.endpoints[0].name for each in self._placed(network.id)))}"
                )
            path = self._directory / f"{network.id}.json"
            await asyncio.to_thread(path.unlink, missing_ok=True)
            self._known.pop(network.id, None)
            self._places.pop(network.id, None)
            await self._tell()
        _log.info("network removed", name=network.spec.name, network_id=network.id)

    async def attach(self, network: Network, call: AttachCall) -> AttachAnswer:
        """Give a container a place. Raises InvalidArgument, Conflict (addresses)."""
        async with self._turn:
            answer, service = place_container(network, call, self._placed(network.id))
            self._places[network.id][answer.task_id] = service
            await self._tell()
        return answer

    async def release(self, task_ids: Sequence[str]) -> tuple[str, ...]:
        """Take places back; returns those that are held after that."""
        async with self._turn:
            gone = False
            for places in self._places.values():
                for task_id in task_ids:
                    gone = places.pop(task_id, None) is not None or gone
            if gone:
                await self._tell()
        return tuple(task_id for places in self._places.values() for task_id in places)

    async def _tell(self) -> None:
        updates = (update_of(network, self._places[network.id].values()) for network in self._known.values())
        await self._network.set_local_networks(tuple(updates))
