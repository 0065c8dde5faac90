"""Applying a log entry: judges preconditions, writes tables, keeps revisions, tells what changed.

An entry applies whole or not at all. Reads no clock and draws no chance: the same entry on the same tables gives the
same tables on every member.
"""

from __future__ import annotations

from shoal.core.allocate.subnets import overlapping
from shoal.core.networks import PREDEFINED
from shoal.errors import Conflict, InvalidArgument, NameConflict, NotFound, OutOfSequence, ShoalError
from shoal.model.actions import (
    SWITCHING_LEVEL,
    Action,
    Create,
    LogEntry,
    PatchNode,
    PatchService,
    PatchTask,
    Remove,
    Replace,
    SwitchTraffic,
)
from shoal.model.base import Struct, replace
from shoal.model.objects import Config, Meta, Network, Revision, Secret, Service, StoreObject, Task, revision_id
from shoal.model.states import TaskState
from shoal.store.tables import Tables, address_key, kind_of, name_of, port_key, ports_of, task_addresses

KEPT_REVISIONS = 10
HIGHEST_FEATURE_LEVEL = SWITCHING_LEVEL


class Taken(Conflict):
    """What was free when the change was planned is another's by now: it can be planned anew."""


class Change(Struct):
    """One object before and after: `old` None means created, `new` None means removed."""

    kind: str
    id: str
    old: StoreObject | None
    new: StoreObject | None


class Applied(Struct):
    """What an entry did: its changes in order, or why it did nothing."""

    changes: tuple[Change, ...] = ()
    error: ShoalError | None = None


def apply_entry(tables: Tables, entry: LogEntry, index: int) -> Applied:
    """Apply `entry` at raft index `index` to `tables`; on a failed precondition the tables are left as they were."""
    if entry.feature_level > HIGHEST_FEATURE_LEVEL:
        raise RuntimeError(
            f"log entry {index} needs feature level {entry.feature_level}, this version knows {HIGHEST_FEATURE_LEVEL}: "
            "upgrade this manager"
        )
    transaction = _Transaction(tables, entry, index)
    try:
        for action in entry.actions:
            transaction.run(action)
        transaction.prune_revisions()
    except ShoalError as error:
        transaction.revert()
        return Applied(error=error)
    return Applied(changes=tuple(transaction.changes))


class _Transaction:
    """The writes of one entry, with what is needed to take them back."""

    def __init__(self, tables: Tables, entry: LogEntry, index: int) -> None:
        self.tables = tables
        self.at_ns = entry.at_ns
        self.index = index
        self.changes: list[Change] = []
        self._services_to_prune: dict[str, None] = {}

    def run(self, action: Action) -> None:
        match action:
            case Create():
                self._create(action)
            case Replace():
                self._replace(action)
            case Remove():
                self._remove(action)
            case PatchTask():
                self._patch_task(action)
            case PatchService():
                self._patch_service(action)
            case SwitchTraffic():
                self._switch_traffic(action)
            case PatchNode():
                self._patch_node(action)

    def revert(self) -> None:
        for change in reversed(self.changes):
            table = self.tables.table(change.kind)
            if change.old is None:
                table.delete(change.id)
            else:
                table.put(change.old)

    def _put(self, value: StoreObject, before: Meta | None = None) -> None:
        created = before or Meta(created_version=self.index, created_at_ns=self.at_ns)
        value = replace(value, meta=replace(created, version=self.index, updated_at_ns=self.at_ns))
        self._check_claims(value)
        kind = kind_of(value)
        old = self.tables.table(kind).put(value)
        self.changes.append(Change(kind=kind, id=value.id, old=old, new=value))
        if isinstance(value, Service):
            self._keep_revision(value)

    def _delete(self, kind: str, id_: str) -> None:
        old = self.tables.table(kind).delete(id_)
        if old is not None:
            self.changes.append(Change(kind=kind, id=id_, old=old, new=None))
            if isinstance(old, Task | Service):
                self._services_to_prune[old.service_id if isinstance(old, Task) else old.id] = None

    def _create(self, action: Create) -> None:
        value = action.object
        if value.id in self.tables.table(kind_of(value)).rows:
            raise Conflict(f"{kind_of(value)} {value.id} already exists")
        self._put(value)

    def _replace(self, action: Replace) -> None:
        value = action.object
        kind = kind_of(value)
        current = self.tables.table(kind).rows.get(value.id)
        if current is None:
            raise NotFound(f"{kind} {value.id} not found")
        if action.expected_version is not None and current.meta.version != action.expected_version:
            raise OutOfSequence
        self._put(value, current.meta)

    def _remove(self, action: Remove) -> None:
        current = self.tables.table(action.kind).rows.get(action.id)
        if current is None and (action.must_exist or action.expected_version is not None):
            raise NotFound(f"{action.kind} {action.id} not found")
        if current is not None and action.expected_version not in (None, current.meta.version):
            raise OutOfSequence
        if isinstance(current, Network):
            self._refuse_if_used(current)
        self._delete(action.kind, action.id)

    def _patch_task(self, action: PatchTask) -> None:
        task = self.tables.tasks.rows.get(action.id)
        if task is None:
            return
        changes: dict[str, object] = {}
        if action.desired_state is not None and action.desired_state > task.desired_state:
            changes["desired_state"] = action.desired_state
        if action.status is not None and action.status.state >= task.status.state:
            status = replace(action.status, applied_at_ns=self.at_ns)
            if replace(status, applied_at_ns=task.status.applied_at_ns) != task.status:
                changes["status"] = status
                if status.state == TaskState.RUNNING and not task.running_since_ns:
                    changes["running_since_ns"] = self.at_ns
        if action.node_id and not task.node_id:
            changes["node_id"] = action.node_id
        if action.attachments is not None and action.attachments != task.attachments:
            changes["attachments"] = action.attachments
        if action.generic_resources is not None:
            changes["generic_resources"] = action.generic_resources
        if action.pull_node_id is not None and action.pull_node_id != task.pull_node_id:
            changes |= {"pull_node_id": action.pull_node_id, "pulled": False}
        if action.pulled and not task.pulled:
            changes["pulled"] = True
        if changes:
            self._put(replace(task, **changes), task.meta)

    def _patch_service(self, action: PatchService) -> None:
        service = self.tables.services.rows.get(action.id)
        if service is None or service.spec_version != action.spec_version:
            return
        changed = service
        if action.endpoint is not None:
            changed = replace(changed, endpoint=action.endpoint)
        if action.update_status is not None or action.clear_update_status:
            changed = replace(changed, update_status=action.update_status)
        if action.job_status is not None:
            changed = replace(changed, job_status=action.job_status)
        if action.rebalancing is not None:
            changed = replace(changed, rebalancing=action.rebalancing)
        if changed != service:
            self._put(changed, service.meta)

    def _switch_traffic(self, action: SwitchTraffic) -> None:
        service = self.tables.services.rows.get(action.service_id)
        if service is None or service.spec_version != action.spec_version:
            return
        for id_ in action.released_task_ids:
            task = self.tables.tasks.rows.get(id_)
            if task is not None and task.withheld:
                self._put(replace(task, withheld=False), task.meta)
        for id_ in action.stopped_task_ids:
            self._patch_task(PatchTask(id=id_, desired_state=TaskState.SHUTDOWN))
        if action.update_status is not None:
            self._put(replace(service, update_status=action.update_status), service.meta)

    def _patch_node(self, action: PatchNode) -> None:
        node = self.tables.nodes.rows.get(action.id)
        if node is None:
            return
        changed = node
        if action.status is not None:
            changed = replace(changed, status=action.status)
        if action.description is not None:
            changed = replace(changed, description=action.description)
        if action.manager_status is not None or action.clear_manager_status:
            changed = replace(changed, manager_status=action.manager_status)
        if changed != node:
            self._put(changed, node.meta)

    def _check_claims(self, value: StoreObject) -> None:
        """Refuse a name, a port or an address that another object has (docker-swarm.md 3.1, 4.11)."""
        if isinstance(value, Service | Network | Secret | Config):
            for other in self.tables.of_type(type(value)).lookup("name", name_of(value).lower()):
                if other.id != value.id:
                    raise NameConflict(_name_taken(value))
        if isinstance(value, Network):
            self._check_network(value)
        if isinstance(value, Service):
            self._check_ports(value)
            self._check_networks_exist(value)
            for virtual_ip in value.endpoint.virtual_ips:
                self._check_address(address_key(virtual_ip.network_id, virtual_ip.address), value.id)
        if isinstance(value, Task):
            for key in task_addresses(value):
                self._check_address(key, value.id)

    def _check_ports(self, service: Service) -> None:
        for port in ports_of(service):
            mode = port.publish_mode or "ingress"
            # Services may share a host port (on different nodes); an ingress port is one service's alone.
            for other_mode in ("ingress", "host") if mode == "ingress" else ("ingress",):
                key = port_key(port.protocol, port.published_port, other_mode)
                for other in self.tables.services.lookup("port", key):
                    if other.id != service.id:
                        article = "an ingress" if other_mode == "ingress" else "a host-published"
                        raise InvalidArgument(
                            f"port '{port.published_port}' is already in use by service '{other.spec.name}' "
                            f"({other.id}) as {article} port"
                        )

    def _check_network(self, network: Network) -> None:
        """Refuse a subnet or a VXLAN id that another network has (docker-swarm.md 4.11)."""
        for other in self.tables.networks.rows.values():
            if other.id == network.id:
                continue
            if network.spec.ingress and other.spec.ingress:
                raise Conflict(f"ingress network ({other.id}) is already present")
            if network.vni and network.vni == other.vni:
                raise Taken(f"VXLAN id {network.vni} is in use by network {other.spec.name}")
            if any(overlapping(subnet, (other,)) for subnet in network.subnets):
                raise Taken(f"a subnet of network {network.spec.name} overlaps one of network {other.spec.name}")

    def _check_networks_exist(self, service: Service) -> None:
        """Refuse a service on a network that went away while the service was written."""
        for attachment in service.spec.task_template.networks:
            if attachment.target not in self.tables.networks.rows and attachment.target not in PREDEFINED:
                raise NotFound(f"network {attachment.target} not found")

    def _refuse_if_used(self, network: Network) -> None:
        service = next(iter(self.tables.services.lookup("network", network.id)), None)
        if service is not None:
            raise InvalidArgument(f"network {network.id} is in use by service {service.id}")
        task = next(iter(self.tables.tasks.lookup("network", network.id)), None)
        if task is not None:
            raise InvalidArgument(f"network {network.id} is in use by task {task.id}")

    def _check_address(self, key: str, owner_id: str) -> None:
        for table in (self.tables.tasks, self.tables.services):
            for other in table.lookup("address", key):
                if other.id != owner_id:
                    network_id, _, address = key.partition("/")
                    raise Conflict(f"address {address} of network {network_id} is in use by {other.id}")

    def _keep_revision(self, service: Service) -> None:
        id_ = revision_id(service.id, service.spec_version)
        known = self.tables.revisions.rows.get(id_)
        if known is not None and known.spec != service.spec:
            # Tasks hold the key for the spec: it stands for one spec for ever.
            raise Conflict(f"service {service.id}: another spec needs another spec version than {service.spec_version}")
        if known is None:
            self._services_to_prune[service.id] = None
            self._put(
                Revision(id=id_, service_id=service.id, spec_version=service.spec_version, spec=service.spec),
            )

    def prune_revisions(self) -> None:
        """Drop revisions that no task holds and that are not among the service's last ten."""
        for service_id in self._services_to_prune:
            revisions = self.tables.revisions.lookup("service", service_id)
            kept = KEPT_REVISIONS if service_id in self.tables.services.rows else 0
            newest = sorted(revisions, key=lambda revision: -revision.spec_version)
            for revision in newest[kept:]:
                if not self.tables.tasks.count("revision", revision.id):
                    self._delete("revision", revision.id)


def _name_taken(value: Service | Network | Secret | Config) -> str:
    name = name_of(value)
    match value:
        case Service():
            return f"name conflicts with an existing object: service {name} already exists"
        case Network():
            return f"network with name {name} already exists"
        case _:
            return f"{kind_of(value)} {name} already exists"
