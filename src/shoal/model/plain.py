"""Plain containers (`docker run`): what they have that a task's container has not."""

from __future__ import annotations

from enum import StrEnum

from shoal.model.base import Struct
from shoal.model.netstate import LinkOptions

BRIDGE, HOST, NONE = "bridge", "host", "none"
CONTAINER_PREFIX = "container:"
# begins the `task_id` of a place on a network of this node alone: no task of the swarm stands for it
LOCAL_PREFIX = "local-"


class RestartName(StrEnum):
    """When a container that has ended is started again."""

    NO = "no"
    ON_FAILURE = "on-failure"
    ALWAYS = "always"
    UNLESS_STOPPED = "unless-stopped"


class RestartRule(Struct):
    """When a container is started again; `most_retries` (of on-failure) 0 is without end."""

    name: RestartName = RestartName.NO
    most_retries: int = 0


class PortRequest(Struct):
    """A port of a container to publish on this node; `published_port` 0 is any that is free.

    `last_port`: the end of a range that it is any of. `host_address`: the one address of the node it is published on;
    empty: every one.
    """

    protocol: str
    target_port: int
    published_port: int = 0
    last_port: int = 0
    host_address: str = ""


class EndpointRequest(Struct):
    """A network a container is to be on, by name or id; `addresses` it asks for, without masks.

    `driver_options`: of this place, as they were written; `link`: what they mean. `priority`: the highest leads out.
    """

    network: str
    aliases: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    driver_options: dict[str, str] = {}
    link: LinkOptions = LinkOptions()
    priority: int = 0


class Attachment(Struct):
    """A place on a network of the swarm that this container was given; `task_id` stands for it in the swarm.

    `addresses` are CIDR. `internal`: the network leads nowhere else. `driver`: of a network that the node makes itself.
    """

    task_id: str
    network_id: str
    network_name: str
    addresses: tuple[str, ...] = ()
    aliases: tuple[str, ...] = ()
    internal: bool = False
    driver: str = ""
    link: LinkOptions = LinkOptions()
    priority: int = 0

    @property
    def is_local(self) -> bool:
        """Whether the network is this node's alone."""
        return self.task_id.startswith(LOCAL_PREFIX)


class PlainConfig(Struct):
    """What a container that belongs to no task was asked for, and what stands of it.

    `network_mode`: bridge, none, host, `container:ID`, or a network of the swarm. `binds`, `volumes_from` and
    `exposed_ports` are as they were written. `stdin_once`: its stdin ends with the first client that was attached
    to it. `attachments` are what it has on networks now. `stopped_by_hand`: somebody ended it.
    """

    restart: RestartRule = RestartRule()
    auto_remove: bool = False
    network_mode: str = BRIDGE
    endpoints: tuple[EndpointRequest, ...] = ()
    bridge: EndpointRequest = EndpointRequest(network=BRIDGE)
    ports: tuple[PortRequest, ...] = ()
    publish_all: bool = False
    exposed_ports: tuple[str, ...] = ()
    # empty, `host`, or `container:ID`
    pid_mode: str = ""
    binds: tuple[str, ...] = ()
    volumes_from: tuple[str, ...] = ()
    stdin_once: bool = False
    attach_stdin: bool = False
    attach_stdout: bool = False
    attach_stderr: bool = False
    attachments: tuple[Attachment, ...] = ()
    stopped_by_hand: bool = False
