"""The namespaces of tasks: made, linked, addressed, taken away. Raw rtnetlink, about 1 ms a task (dataplane.md 6).

Blocking: runs in the network's worker thread only.
"""

from __future__ import annotations

import os
from pathlib import Path

import structlog

from shoal.errors import Unavailable
from shoal.model.netstate import Sandbox, SandboxRequest
from shoal.network import namespace, rtnetlink
from shoal.network.addresses import next_address
from shoal.network.netlink import ROUTE, Socket
from shoal.network.plumbing import Plumbing
from shoal.network.records import Records, TaskRecord
from shoal.network.settings import link_name_of

_log = structlog.get_logger(__name__)

SHORT_ID_LENGTH = 12
TASK_LINK = "eth0"
TASK_LINK_INDEX = 2


class Wiring:
    """The tasks of this node that have a namespace, by task id."""

    def __init__(self, directory: Path, plumbing: Plumbing, records: Records) -> None:
        self._directory = directory
        self._plumbing = plumbing
        self._records = records
        self._last_address: str | None = None
        self.tasks: dict[str, TaskRecord] = {}

    def path_of(self, task_id: str) -> Path:
        """Return where a task's namespace is bound."""
        return self._directory / task_id[:SHORT_ID_LENGTH]

    def adopt(self) -> None:
        """Take up what an earlier daemon left; what is half made, or lost its namespace, goes."""
        for record in self._records.read_tasks():
            request = record.request
            is_whole = record.complete and (request.host_network or namespace.exists(self.path_of(request.task_id)))
            if is_whole and (request.host_network or not self._plumbing.is_sandbox_fresh):
                self.tasks[request.task_id] = record
                _log.info("took up a task's namespace", task=request.task_id, address=record.address)
            else:
                _log.info("removing a task's namespace that is not whole", task=request.task_id)
                self._take_away(record)

    def attach(self, request: SandboxRequest) -> Sandbox:
        """Make a task's namespace, or return the one it has."""
        record = self.tasks.get(request.task_id)
        if record is not None:
            if record.request != request:
                record = TaskRecord(request=request, address=record.address, complete=True)
                self._records.write_task(record)
                self.tasks[request.task_id] = record
            return self._sandbox_of(record)
        address = "" if request.host_network else request.ingress_address or self._free_address()
        record = TaskRecord(request=request, address=address)
        self._records.write_task(record)
        try:
            if not request.host_network:
                self._make(record)
        except BaseException:
            self._take_away(record)
            raise
        record = TaskRecord(request=request, address=address, complete=True)
        self._records.write_task(record)
        self.tasks[request.task_id] = record
        return self._sandbox_of(record)

    def detach(self, task_id: str) -> None:
        """Take a task's namespace away; that there is none is fine."""
        record = self.tasks.pop(task_id, None)
        if record is not None:
            self._take_away(record)

    def _sandbox_of(self, record: TaskRecord) -> Sandbox:
        request = record.request
        if request.host_network:
            return Sandbox(task_id=request.task_id, path="")
        path = str(self.path_of(request.task_id))
        return Sandbox(task_id=request.task_id, path=path, addresses=(f"{record.address}/32",))

    def _free_address(self) -> str:
        network = self._plumbing.gateway_network
        in_use = {record.address for record in self.tasks.values()}
        address = next_address(network, in_use, self._last_address)
        if address is None:
            raise Unavailable(f"no address is free for the task in {network}")
        self._last_address = address
        return address

    def _make(self, record: TaskRecord) -> None:
        plumbing, request, address = self._plumbing, record.request, record.address
        path = self.path_of(request.task_id)
        namespace.remove(path)
        descriptor = namespace.make(path, plumbing.home)
        try:
            with namespace.inside(descriptor, plumbing.home):
                namespace.write_setting("net/ipv6/conf/default/disable_ipv6", "1")
                inner = Socket(ROUTE)
            try:
                self._link(request.task_id, address, descriptor, inner)
            finally:
                inner.close()
        finally:
            os.close(descriptor)

    def _link(self, task_id: str, address: str, descriptor: int, inner: Socket) -> None:
        plumbing = self._plumbing
        name, gateway = link_name_of(task_id), plumbing.settings.sandbox_gateway
        plumbing.sandbox_links.talk(
            [
                rtnetlink.delete_link(name),
                rtnetlink.add_veth(
                    name,
                    TASK_LINK,
                    descriptor,
                    plumbing.settings.task_mtu_bytes,
                    rtnetlink.mac_of(address),
                    TASK_LINK_INDEX,
                    plumbing.sandbox_bridge_index,
                ),
                rtnetlink.isolate_port(name),
                rtnetlink.set_route(address, 32, plumbing.sandbox_bridge_index),
            ]
        )
        inner.talk(
            [
                rtnetlink.set_up(rtnetlink.LOOPBACK_INDEX),
                rtnetlink.add_address(TASK_LINK_INDEX, address, 32),
                rtnetlink.set_up(TASK_LINK_INDEX),
                rtnetlink.set_route(gateway, 32, TASK_LINK_INDEX),
                rtnetlink.set_default_route(TASK_LINK_INDEX, gateway),
            ]
        )
        plumbing.host_links.talk(
            [rtnetlink.set_route(address, 32, plumbing.host_link_index, plumbing.ranges.sandbox_end)]
        )

    def _take_away(self, record: TaskRecord) -> None:
        plumbing, request = self._plumbing, record.request
        if not request.host_network:
            # an address is given on once its task has stopped: the routes may be another's by now
            if all(other.address != record.address for other in self.tasks.values()):
                plumbing.host_links.talk(
                    [rtnetlink.delete_route(record.address, 32, plumbing.host_link_index, plumbing.ranges.sandbox_end)]
                )
                plumbing.sandbox_links.talk([rtnetlink.delete_route(record.address, 32, plumbing.sandbox_bridge_index)])
            # the links go with the namespace, many at once in the kernel's own time; one by one it takes 30 ms each
            namespace.remove(self.path_of(request.task_id))
        self._records.forget_task(request.task_id)
