"""What a node's kernel should hold: a pure function of the store, sent over the session (architecture.md 4.5).

Addresses are plain IPv4 text without a mask unless a name says CIDR.
"""

from __future__ import annotations

from shoal.model.base import Struct


class Backend(Struct):
    """A running task that takes traffic; `node_number` says through which node it is reached."""

    task_id: str
    address: str
    node_number: int


class IngressPort(Struct):
    """A port every node answers on (`protocol` tcp or udp), and the tasks behind it."""

    protocol: str
    published_port: int
    target_port: int
    service_id: str
    backends: tuple[Backend, ...] = ()


class IngressState(Struct):
    """The whole routing mesh at `version` (a raft index)."""

    version: int = 0
    ports: tuple[IngressPort, ...] = ()


class HostPort(Struct):
    """A port published on the task's own node only (`mode=host`); `published_port` is settled before this is made."""

    protocol: str
    published_port: int
    target_port: int


class SandboxRequest(Struct):
    """A network namespace to make for a task.

    `ingress_address` is the task's address in the mesh, None if it publishes nothing there: such a task gets an
    address of docker_gwbridge for egress and host ports. `host_network`: no namespace, the host's own.
    """

    task_id: str
    ingress_address: str | None = None
    host_ports: tuple[HostPort, ...] = ()
    host_network: bool = False


class Sandbox(Struct):
    """A namespace that exists: its path and the container's addresses (CIDR)."""

    task_id: str
    path: str
    addresses: tuple[str, ...] = ()
