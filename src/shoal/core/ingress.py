"""The routing mesh as the store wants it: every published port with the tasks behind it."""

from __future__ import annotations

from collections.abc import Callable, Iterable

from shoal.core.allocate.plan import ingress_ports
from shoal.core.extensions import parse_extensions
from shoal.model.base import Struct
from shoal.model.netstate import Backend, IngressPort
from shoal.model.objects import Node, Service, Task
from shoal.model.states import TaskState


class Published(Struct):
    """What one service has in the mesh: its ports, and all its tasks that have an address and a node."""

    ports: tuple[IngressPort, ...] = ()
    endpoints: tuple[Backend, ...] = ()


def is_placed(task: Task) -> bool:
    """Whether a task is with a node: from its assignment to its end."""
    return bool(task.node_id) and task.status.state <= TaskState.RUNNING


def is_serving(task: Task) -> bool:
    """Whether a task takes traffic: it runs, is wanted to, and its update does not withhold it from traffic."""
    return task.status.state == TaskState.RUNNING and task.is_wanted and not task.withheld


def publish(
    service: Service | None,
    tasks: Iterable[Task],
    node_of: Callable[[str], Node | None],
    ingress_network_id: str,
) -> Published:
    """Return a service's part of the mesh, in order of protocol and number, backends in order of task id.

    Args:
        service: None if it is gone: its last tasks may still be reached.
        tasks: of the service.
        node_of: a node by its id.
        ingress_network_id: the network of the mesh.
    """
    placed = sorted((task for task in tasks if is_placed(task)), key=lambda task: task.id)
    backends = {task.id: _backend(task, node_of, ingress_network_id) for task in placed}
    endpoints = tuple(backend for backend in backends.values() if backend is not None)
    published = ingress_ports(service.endpoint.ports) if service is not None else ()
    if service is None or not published:
        return Published(endpoints=endpoints)
    serving = {task.id for task in placed if is_serving(task)}
    extensions = parse_extensions(service.spec.labels)
    ports = tuple(
        IngressPort(
            protocol=port.protocol,
            published_port=port.published_port,
            target_port=port.target_port,
            service_id=service.id,
            backends=tuple(endpoint for endpoint in endpoints if endpoint.task_id in serving),
            affinity=extensions.balancing,
            policy=extensions.ingress_policy,
        )
        for port in published
        if port.published_port
    )
    return Published(
        ports=tuple(sorted(ports, key=lambda port: (port.protocol, port.published_port))), endpoints=endpoints
    )


def _backend(task: Task, node_of: Callable[[str], Node | None], ingress_network_id: str) -> Backend | None:
    node = node_of(task.node_id)
    for attachment in task.attachments:
        if attachment.network_id == ingress_network_id and attachment.addresses and node is not None:
            address = attachment.addresses[0].partition("/")[0]
            return Backend(task_id=task.id, address=address, node_number=node.number)
    return None
