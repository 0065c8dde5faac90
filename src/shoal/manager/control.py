"""What users ask of a manager, over the store: services, nodes, the swarm itself.

Secrets and configs are in payloads.py, networks in networks.py.
Every write is one plan, judged again when it is applied. Knows no HTTP: the API turns requests into these calls.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import structlog

from shoal.core.network_keys import order_rotation
from shoal.core.service_names import RANDOM_BYTES_NEEDED, make_service_name
from shoal.core.validate.cluster import prepare_cluster
from shoal.core.validate.node import prepare_node
from shoal.errors import InvalidArgument, OutOfSequence
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.manager.lookup import find_node, find_service, require_cluster
from shoal.manager.networks import Networks
from shoal.manager.payloads import Payloads
from shoal.manager.rebalancing import order_rebalancing
from shoal.manager.root_change import Signer
from shoal.manager.service_plans import ServiceUpdate, new_service, promotion_of, rolled_back_to, updated_service
from shoal.model.actions import Action, Create, PatchNode, Remove, Replace
from shoal.model.base import Struct, replace
from shoal.model.objects import Cluster, JoinTokens, ManagerStatus, Node, RootCA, Service
from shoal.model.specs import ClusterSpec, NodeSpec, ServiceSpec
from shoal.model.states import NodeState, Role
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

MakeJoinToken = Callable[[RootCA], str]
MakeUnlockKey = Callable[[], str]
NAME_ATTEMPTS = 20
# how often a change is planned anew because what it is based on has changed meanwhile
OUTRUN_MOST = 20


class Rotation(Struct):
    """Which secrets of the swarm are to be made anew."""

    worker_token: bool = False
    manager_token: bool = False
    unlock_key: bool = False
    network_keys: bool = False


class Control:
    """The writes of a manager.

    Args:
        store: where all is written.
        ids: makes ids and chance.
        clock: for times that stand in objects (the start of a rollback, of a job's run).
        make_join_token: a fresh join token for this root, in Docker's form.
        make_unlock_key: a fresh unlock key.
        signer: what is behind the swarm's certificates, to change it.
    """

    def __init__(
        self,
        store: Store,
        ids: Ids,
        clock: Clock,
        *,
        make_join_token: MakeJoinToken,
        make_unlock_key: MakeUnlockKey,
        signer: Signer,
    ) -> None:
        self._store = store
        self._ids = ids
        self._clock = clock
        self._make_join_token = make_join_token
        self._make_unlock_key = make_unlock_key
        self._signer = signer
        self.payloads = Payloads(store, ids)
        self.networks = Networks(store, ids)

    # -- services

    async def create_service(self, spec: ServiceSpec, registry_auth: str = "", actor: str = "") -> str:
        """Make a service and return its id.

        Args:
            spec: as the client sent it; without a name it gets one.
            registry_auth: the X-Registry-Auth header, kept for pulls and never returned.
            actor: who asks, for events.

        Raises:
            InvalidArgument: bad spec, or a published port is taken.
            NameConflict: the name is taken.
            NotFound: an unknown network.
            NotBuilt: a part of the spec that this version cannot run.
        """
        service_id = self._ids.new()
        made: list[Service] = []

        def plan(view: View) -> Sequence[Action]:
            named = spec if spec.name else replace(spec, name=self._free_name(view))
            service = new_service(view, service_id, named, registry_auth, self._clock.now_ns())
            made[:] = [service]
            return [Create(object=service)]

        await self._store.update(plan, actor)
        _log.info("service created", service_id=service_id, name=made[0].spec.name, actor=actor)
        return service_id

    def _free_name(self, view: View) -> str:
        for attempt in range(NAME_ATTEMPTS):
            name = make_service_name(self._ids.random_bytes(RANDOM_BYTES_NEEDED), attempt)
            if view.by_name(Service, name) is None:
                return name
        return f"service_{self._ids.new()}"

    async def update_service(self, reference: str, update: ServiceUpdate, actor: str = "") -> None:
        """Write a new spec of a service, or go back to its previous one.

        Raises:
            NotFound: no such service.
            OutOfSequence: its spec has changed since `update.version`.
            InvalidArgument, NotBuilt: the spec is bad; another name or mode.
        """

        def change(view: View, service: Service) -> Service:
            return updated_service(view, service, update, self._clock.now_ns())

        service_id = await self._write_spec(reference, update.version, change, actor)
        _log.info("service updated", service_id=service_id, rollback=update.rollback, actor=actor)

    async def _write_spec(
        self, reference: str, seen_version: int, change: Callable[[View, Service], Service], actor: str
    ) -> str:
        """Write what `change` makes of a service, if whoever asks has seen the spec that it has now; returns its id.

        What the loops note on a service meanwhile (an update's course, addresses) is no reason to refuse: it is kept.

        Raises:
            OutOfSequence: the spec is another one than at `seen_version`, or the loops write without end.
        """

        found: list[Service] = []

        def plan(view: View) -> Sequence[Action]:
            service = find_service(view, reference)
            found[:] = [service]
            changed = change(view, service)
            revision = view.revision(service.id, service.spec_version)
            written_at = revision.meta.version if revision else service.meta.version
            if not written_at <= seen_version <= service.meta.version:
                raise OutOfSequence
            return [Replace(object=changed, expected_version=service.meta.version)]

        await self._update_unless_outrun(plan, actor)
        return found[0].id

    async def roll_back_service(self, reference: str, version: int, spec_version: int, actor: str = "") -> None:
        """Lead a service back to the revision `spec_version`.

        Raises:
            NotFound: no such service, or a network of the revision is gone.
            OutOfSequence: its spec has changed since `version`.
            InvalidArgument: no such revision, or what it needs is gone or another's.
        """

        def change(view: View, service: Service) -> Service:
            return rolled_back_to(view, service, spec_version, self._clock.now_ns())

        await self._write_spec(reference, version, change, actor)
        _log.info("service rolled back", service=reference, to=spec_version, actor=actor)

    async def promote_service(self, reference: str, actor: str = "") -> None:
        """Let an update go on from its canaries to the rest. Raises NotFound, InvalidArgument (it awaits no such)."""

        def plan(view: View) -> Sequence[Action]:
            return [promotion_of(find_service(view, reference), self._clock.now_ns())]

        await self._store.update(plan, actor)
        _log.info("canary promoted", service=reference, actor=actor)

    async def rebalance_service(self, reference: str, actor: str = "") -> None:
        """Have a service's tasks spread evenly. Raises NotFound, InvalidArgument (it is not replicated)."""

        def plan(view: View) -> Sequence[Action]:
            return [order_rebalancing(find_service(view, reference))]

        await self._store.update(plan, actor)
        _log.info("service to be spread evenly", service=reference, actor=actor)

    async def remove_service(self, reference: str, actor: str = "") -> None:
        """Remove a service; its tasks are ended by the managers' loops. Raises NotFound, InvalidArgument."""
        found: list[Service] = []

        def plan(view: View) -> Sequence[Action]:
            found[:] = [find_service(view, reference)]
            return [Remove(kind="service", id=found[0].id, must_exist=True)]

        await self._store.update(plan, actor)
        _log.info("service removed", service_id=found[0].id, name=found[0].spec.name, actor=actor)

    # -- nodes

    async def update_node(self, reference: str, version: int, spec: NodeSpec, actor: str = "") -> None:
        """Write a node's spec.

        Raises:
            NotFound: no such node.
            InvalidArgument: bad spec, or the last manager would become a worker.
            OutOfSequence: it has changed since `version`.
        """
        prepared = prepare_node(spec)
        found: list[Node] = []

        def plan(view: View) -> Sequence[Action]:
            node = find_node(view, reference)
            found[:] = [node]
            if node.spec.role == Role.MANAGER and prepared.role == Role.WORKER:
                managers = [each for each in view.find(Node) if each.spec.role == Role.MANAGER]
                if len(managers) == 1:
                    raise InvalidArgument("attempting to demote the last manager of the swarm")
            if node.meta.version != version:
                raise OutOfSequence
            return [Replace(object=replace(node, spec=prepared), expected_version=version)]

        await self._store.update(plan, actor)
        role, availability = prepared.role, prepared.availability
        _log.info("node updated", node_id=found[0].id, role=role, availability=availability, actor=actor)

    async def remove_node(self, reference: str, force: bool = False, actor: str = "") -> None:
        """Remove a node from the swarm. Raises NotFound, InvalidArgument (a manager; not down and no `force`)."""
        found: list[Node] = []

        def plan(view: View) -> Sequence[Action]:
            node = find_node(view, reference)
            found[:] = [node]
            if node.spec.role == Role.MANAGER or node.manager_status is not None:
                raise InvalidArgument(
                    f"node {node.id} is a cluster manager and is a member of the raft cluster. "
                    "It must be demoted to worker before removal"
                )
            if not force and node.status.state == NodeState.READY:
                raise InvalidArgument(f"node {node.id} is not down and can't be removed")
            return [Remove(kind="node", id=node.id, expected_version=node.meta.version)]

        await self._store.update(plan, actor)
        _log.info("node removed", node_id=found[0].id, forced=force, actor=actor)

    async def forget_other_managers(self, node_id: str, status: ManagerStatus) -> None:
        """Note that only one manager is left: the nodes of the others are workers, should they come back."""

        def plan(view: View) -> Sequence[Action]:
            actions: list[Action] = [PatchNode(id=node_id, manager_status=status)]
            for node in view.find(Node):
                if node.id != node_id and (node.manager_status is not None or node.spec.role == Role.MANAGER):
                    worker = replace(node, manager_status=None, spec=replace(node.spec, role=Role.WORKER))
                    actions.append(Replace(object=worker, expected_version=node.meta.version))
            return actions

        await self._update_unless_outrun(plan)

    async def _update_unless_outrun(self, plan: Callable[[View], Sequence[Action]], actor: str = "") -> None:
        """Write a plan, anew when a loop of the leader has written about the same object meanwhile."""
        for attempt in range(OUTRUN_MOST):
            try:
                await self._store.update(plan, actor)
                return
            except OutOfSequence:
                if attempt + 1 == OUTRUN_MOST:
                    raise

    # -- the swarm

    async def update_cluster(
        self, version: int, spec: ClusterSpec, rotation: Rotation | None = None, actor: str = ""
    ) -> None:
        """Write the swarm's spec, whole, and make the secrets of `rotation` anew.

        Raises:
            InvalidArgument: bad spec.
            NotBuilt: what Shoal's certificates do not do yet.
            OutOfSequence: it has changed since `version`.
        """
        wanted = rotation or Rotation()
        before = require_cluster(self._store.view)
        prepare_cluster(spec, before.spec)
        root_rotation = await self._signer.prepare(before, spec)

        def plan(view: View) -> Sequence[Action]:
            cluster = require_cluster(view)
            prepared = prepare_cluster(spec, cluster.spec)
            if cluster.meta.version != version:
                raise OutOfSequence
            changed = replace(
                cluster,
                spec=prepared,
                root_rotation=root_rotation,
                join_tokens=self._rotated_tokens(cluster, wanted),
                unlock_key=self._next_unlock_key(cluster, prepared, wanted),
            )
            if wanted.network_keys:
                changed = order_rotation(changed, self._clock.now_ns())
            return [Replace(object=changed, expected_version=version)]

        await self._store.update(plan, actor)
        _log.info(
            "swarm updated",
            worker_token_rotated=wanted.worker_token,
            manager_token_rotated=wanted.manager_token,
            network_keys_rotated=wanted.network_keys,
            actor=actor,
        )

    def _rotated_tokens(self, cluster: Cluster, rotation: Rotation) -> JoinTokens | None:
        tokens = cluster.join_tokens
        if tokens is None or cluster.root_ca is None:
            return tokens
        if rotation.worker_token:
            tokens = replace(tokens, worker=self._make_join_token(cluster.root_ca))
        if rotation.manager_token:
            tokens = replace(tokens, manager=self._make_join_token(cluster.root_ca))
        return tokens

    def _next_unlock_key(self, cluster: Cluster, spec: ClusterSpec, rotation: Rotation) -> str:
        if not spec.encryption_config.auto_lock_managers:
            return ""
        if cluster.unlock_key and not rotation.unlock_key:
            return cluster.unlock_key
        return self._make_unlock_key()
