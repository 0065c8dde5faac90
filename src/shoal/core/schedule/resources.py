"""What a task takes of its node: reservations and host ports."""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.objects import Service
from shoal.model.specs import ServiceSpec


class Needs(Struct):
    """Reservations (limits do not count, as in Docker) and ports of the host, as pairs of protocol and number."""

    nano_cpus: int = 0
    memory_bytes: int = 0
    generic: tuple[tuple[str, int], ...] = ()
    host_ports: tuple[tuple[str, int], ...] = ()


def needs_of(spec: ServiceSpec, service: Service | None) -> Needs:
    """Return what a task of `spec` takes; a service's allocated ports count with those its spec names."""
    requirements = spec.task_template.resources
    reserved = requirements.reservations if requirements else None
    generic = []
    for resource in reserved.generic_resources if reserved else ():
        if resource.discrete_resource_spec:
            discrete = resource.discrete_resource_spec
            generic.append((str(discrete.get("Kind", "")), int(discrete.get("Value", 0))))
    ports = spec.endpoint_spec.ports if spec.endpoint_spec else ()
    if service is not None and service.endpoint.ports:
        ports = service.endpoint.ports
    return Needs(
        nano_cpus=reserved.nano_cpus if reserved else 0,
        memory_bytes=reserved.memory_bytes if reserved else 0,
        generic=tuple(generic),
        host_ports=tuple(
            (port.protocol or "tcp", port.published_port)
            for port in ports
            if port.publish_mode == "host" and port.published_port
        ),
    )
