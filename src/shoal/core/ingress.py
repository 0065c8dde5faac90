"""The routing mesh as the store wants it: every published port with the running tasks behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.core.allocate.plan import ingress_ports
from shoal.model.netstate import Backend, IngressPort
from shoal.model.objects import Node, Service, Task
from shoal.model.states import TaskState


def published_ports(
    services: Iterable[Service],
    tasks_of_service: Callable[[str], Iterable[Task]],
    node_of: Callable[[str], Node | None],
    ingress_network_id: str,
) -> tuple[IngressPort, ...]:
    """Return the ports of the mesh, in order of protocol and number, each with its backends in order of task id.

    A task takes traffic while it runs and is wanted to.
    """
    ports: list[IngressPort] = []
    for service in services:
        published = ingress_ports(service.endpoint.ports)
        if not published:
            continue
        backends = tuple(
            sorted(
                (
                    backend
                    for task in tasks_of_service(service.id)
                    if (backend := _backend(task, node_of, ingress_network_id)) is not None
                ),
                key=lambda backend: backend.task_id,
            )
        )
        ports.extend(
            IngressPort(
                protocol=port.protocol,
                published_port=port.published_port,
                target_port=port.target_port,
                service_id=service.id,
                backends=backends,
            )
            for port in published
            if port.published_port
        )
    return tuple(sorted(ports, key=lambda port: (port.protocol, port.published_port)))


def _backend(task: Task, node_of: Callable[[str], Node | None], ingress_network_id: str) -> Backend | None:
    if task.status.state != TaskState.RUNNING or task.desired_state > TaskState.RUNNING:
        return None
    node = node_of(task.node_id)
    for attachment in task.attachments:
        if attachment.network_id == ingress_network_id and attachment.addresses and node is not None:
            address = attachment.addresses[0].partition("/")[0]
            return Backend(task_id=task.id, address=address, node_number=node.number)
    return None
