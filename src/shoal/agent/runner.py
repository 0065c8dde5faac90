"""One task on this node: carries out what `core.taskfsm` decides, with the engine and the network.

It survives restarts of the daemon: what it finds already done (a namespace, a container, a running process) it takes
up, it never does it twice.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Protocol, TypeVar

import structlog

from shoal.agent.images import ImageSource
from shoal.agent.payloads import NodePayloads
from shoal.agent.policy import NodePolicy
from shoal.agent.ports import find_free_port
from shoal.core.container import container_config, task_name
from shoal.core.draining import any_active, drain_seconds
from shoal.core.endpoint_options import parse_link_options
from shoal.core.local_networks import service_names
from shoal.core.networks import BRIDGE_DRIVER, MACVLAN_DRIVER, OVERLAY_DRIVER, choose_exit, exit_of, needs_way_out
from shoal.core.plain_network import port_conflict
from shoal.core.privileges import parse_privileges
from shoal.core.taskfsm import Detail, Event, Instruction, advance, decide
from shoal.engine.protocol import Engine
from shoal.errors import Conflict, NotFound, ShoalError
from shoal.lib.backoff import Backoff
from shoal.lib.clock import Clock
from shoal.model.base import replace
from shoal.model.container import RESOLVER_ADDRESS, Container, ExitStatus, HealthStatus
from shoal.model.netstate import Connection, HostPort, JoinedNetwork, LinkOptions, OverlayLink, Sandbox, SandboxRequest
from shoal.model.node_port import AttachAnswer
from shoal.model.objects import ContainerStatus, NodeDescription, Revision, Task, TaskStatus
from shoal.model.specs import NetworkAttachmentConfig, PortConfig
from shoal.model.states import TaskState

_log = structlog.get_logger(__name__)
T = TypeVar("T")

RETRY_FIRST_SECONDS = 0.5
RETRY_MOST_SECONDS = 8.0
LOOK_PERIOD_SECONDS = 0.05
QUIET_LOOKS = 2
UNHEALTHY_TEXT = "dockerexec: unhealthy container"
_JUDGED = frozenset({HealthStatus.HEALTHY, HealthStatus.UNHEALTHY})


class TaskNetwork(Protocol):
    """What a task needs of the node's network."""

    async def connections(self, task_id: str) -> tuple[Connection, ...]:
        """Return the connections that others have to a task's container."""

    async def attach(self, request: SandboxRequest) -> Sandbox:
        """Make the namespace of a task; one that exists is taken up."""

    async def detach(self, task_id: str) -> None:
        """Remove the namespace of a task; none is no failure."""


class OwnNetworks(Protocol):
    """The networks that the node makes for itself."""

    async def join(self, task: Task, revision: Revision) -> tuple[AttachAnswer, ...]:
        """Give a task its places on them; those it has are the same again."""

    async def leave(self, task_id: str) -> None:
        """Take a task's places back; none is no failure."""


class NodeParts:
    """What all tasks of a node share."""

    def __init__(
        self,
        node_id: str,
        describe: Callable[[], NodeDescription],
        engine: Engine,
        network: TaskNetwork,
        images: ImageSource,
        clock: Clock,
        own_networks: OwnNetworks,
    ) -> None:
        self.own_networks = own_networks
        self.node_id = node_id
        self.describe = describe
        self.engine = engine
        self.network = network
        self.images = images
        self.clock = clock
        self.payloads = NodePayloads()
        self.policy = NodePolicy()


class _Unwanted(Exception):
    """The task is to stop while something was under way for it."""


class TaskRunner:
    """Runs one task from acceptance to its end.

    Args:
        parts: what the tasks of the node share.
        task: as assigned; its status is where to go on from.
        revision: what it is made from.
        on_status: told of every new status.
        remembered: returns when the node remembers all it was told, also if it is killed.
    """

    def __init__(
        self,
        parts: NodeParts,
        task: Task,
        revision: Revision,
        on_status: Callable[[Task], None],
        remembered: Callable[[], Awaitable[None]],
    ) -> None:
        self._parts = parts
        self.task = task
        self.revision = revision
        self._on_status = on_status
        self._remembered = remembered
        self._is_attached = False
        self._desired_changed = asyncio.Event()
        self._unwanted = asyncio.Event()
        if task.desired_state >= TaskState.SHUTDOWN:
            self._unwanted.set()

    @property
    def status(self) -> TaskStatus:
        """What is observed of the task now."""
        return self.task.status

    def desire(self, state: TaskState) -> None:
        """Take a new desired state; it is never lowered."""
        if state > self.task.desired_state:
            self.task = replace(self.task, desired_state=state)
            if state >= TaskState.SHUTDOWN:
                self._unwanted.set()
            self._desired_changed.set()

    async def run(self) -> None:
        """Carry the task to its end; returns when it has ended and its network is gone."""
        backoff = Backoff(RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS)
        while True:
            try:
                if not await self._step():
                    return
                backoff.reset()
            except _Unwanted:
                continue
            except asyncio.CancelledError:
                raise
            except Exception as error:
                # Not refused, only failed: the disk, a subprocess, the kernel. It is tried again while it is wanted.
                delay = backoff.next_delay_seconds()
                _log.exception("a step of a task failed", task=self.task.id, retry_seconds=delay)
                self._set(replace(self.status, err=str(error)))
                await self._wait_for(self._desired_changed, delay)

    async def _step(self) -> bool:
        """Do one step; False when the task has ended."""
        instruction = decide(self.status.state, self.task.desired_state)
        if instruction is Instruction.STOP:
            await self._stop()
            return True
        if instruction is Instruction.NOTHING:
            if self.status.state.is_terminal:
                await self._clean()
                return False
            self._desired_changed.clear()
            if decide(self.status.state, self.task.desired_state) is Instruction.NOTHING:
                await self._desired_changed.wait()
            return True
        next_instruction = self._advance(Event.PROCEED)
        if next_instruction is Instruction.PREPARE:
            await self._refusable(self._prepare)
        elif next_instruction is Instruction.START:
            await self._refusable(self._start)
        elif next_instruction is Instruction.WAIT:
            await self._wait()
        return True

    async def _refusable(self, step: Callable[[], Awaitable[None]]) -> None:
        """Do a step; what the engine refuses for good ends the task."""
        try:
            await step()
        except ShoalError as error:
            _log.info("task refused", task=self.task.id, reason=error.message)
            self._advance(Event.REFUSED, Detail(err=error.message))

    # -- steps

    async def _prepare(self) -> None:
        parts = self._parts
        container = self._find_container()
        if container is None:
            spec = self.revision.spec.task_template.container_spec
            await self._while_wanted(parts.policy.check(parse_privileges(self.revision.spec.labels)))
            payloads = await self._while_wanted(parts.payloads.for_container(spec))
            image_id = await self._while_wanted(parts.images.find(self.revision))
            host_ports = self._settle_host_ports()
            if conflict := port_conflict(_published(host_ports), parts.engine.list()):
                raise Conflict(conflict)
            request, sandbox = await self._attach(host_ports)
            description = parts.describe()
            config = container_config(self.task, self.revision, parts.node_id, description, image_id, payloads)
            config = replace(
                config,
                network_namespace=sandbox.path,
                # on the mesh alone there are no names: such a container asks the host's name servers
                networks=(*mesh_of(self.task), *sandbox.networks),
                resolver_address=RESOLVER_ADDRESS if request.overlays else "",
                addresses=sandbox.addresses,
                host_ports=request.host_ports,
            )
            container = await parts.engine.create(config)
        else:
            # made before the daemon was killed, which may have been before the status was written
            host_ports = self._settled_host_ports(container)
        detail = Detail(container=ContainerStatus(container_id=container.id), host_ports=host_ports)
        self._advance(Event.PREPARED, detail)

    async def _start(self) -> None:
        container = self._find_container()
        if container is None:
            raise NotFound("the task's container is gone")
        if container.state.status == "created":
            if not self._is_attached:
                # the host may have lost its power since the container was made, and with it the namespace
                await self._attach(self.status.host_ports)
            container = await self._parts.engine.start(container.id)
        status = ContainerStatus(container_id=container.id, pid=container.state.pid)
        if container.state.health is not None and container.state.status == "running":
            # it is STARTING until it is well, as under Docker; where it runs is told already
            self._set(replace(self.status, container=status))
            health = await self._while_wanted(self._parts.engine.wait_for_health(container.id, _JUDGED))
            exit_status = None
            if health is not None and health.status == HealthStatus.UNHEALTHY:
                exit_status = await self._end_unhealthy(container.id)
            elif health is None:
                exit_status = await self._parts.engine.wait(container.id)
            if exit_status is not None and (health is not None or exit_status.code != 0):
                self._fail(container.id, exit_status, is_unhealthy=health is not None)
                return
        self._advance(Event.STARTED, Detail(container=status))

    async def _wait(self) -> None:
        container = self._find_container()
        if container is None:
            self._advance(Event.EXITED_WITH_ERROR, Detail(err="the task's container is gone"))
            return
        is_unhealthy = False
        if container.state.health is not None:
            unhealthy = self._parts.engine.wait_for_health(container.id, frozenset({HealthStatus.UNHEALTHY}))
            is_unhealthy = await self._while_wanted(unhealthy) is not None
        if is_unhealthy:
            exit_status = await self._end_unhealthy(container.id)
        else:
            exit_status = await self._while_wanted(self._parts.engine.wait(container.id))
        if exit_status.code == 0 and not is_unhealthy:
            known = ContainerStatus(container_id=container.id, exit_code=0)
            self._advance(Event.EXITED_CLEANLY, Detail(container=known))
        else:
            self._fail(container.id, exit_status, is_unhealthy)

    async def _end_unhealthy(self, container_id: str) -> ExitStatus:
        """Stop a container that is not well; it has its grace period for that."""
        _log.info("a task's container is unhealthy and is stopped", task=self.task.id, container=container_id)
        await self._parts.engine.stop(container_id)
        return await self._parts.engine.wait(container_id)

    def _fail(self, container_id: str, exit_status: ExitStatus, is_unhealthy: bool) -> None:
        code = exit_status.code
        known = ContainerStatus(container_id=container_id, exit_code=code if code is not None else -1)
        self._advance(Event.EXITED_WITH_ERROR, Detail(err=exit_text(exit_status, is_unhealthy), container=known))

    async def _stop(self) -> None:
        container = self._find_container()
        detail = Detail()
        if container is not None:
            detail = Detail(container=ContainerStatus(container_id=container.id))
            if container.state.status == "running":
                await self._drain()
                # somebody may have taken it away meanwhile (`docker rm --force`): it has stopped
                with contextlib.suppress(NotFound):
                    await self._parts.engine.stop(container.id)
                    exit_status = await self._parts.engine.wait(container.id)
                    code = exit_status.code if exit_status.code is not None else -1
                    detail = Detail(container=ContainerStatus(container_id=container.id, exit_code=code))
        self._advance(Event.STOPPED, detail)

    async def _drain(self) -> None:
        """Let a task finish what it has begun: nothing new comes, every node has let go of it."""
        seconds = drain_seconds(self.revision.spec, self.task)
        if not seconds:
            return
        quiet = 0
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                # twice: what was sent to it just before the last node let go may still be on its way
                while quiet < QUIET_LOOKS:
                    try:
                        active = any_active(await self._parts.network.connections(self.task.id))
                    except ShoalError as error:
                        _log.warning("a task stops undrained", task=self.task.id, reason=error.message)
                        return
                    quiet = 0 if active else quiet + 1
                    if quiet < QUIET_LOOKS:
                        await asyncio.sleep(LOOK_PERIOD_SECONDS)

    async def _clean(self) -> None:
        """Give the network back; the container stays for its log until the task is forgotten."""
        # else a daemon killed now would start the task again, in a namespace that is gone
        await self._remembered()
        await self._detach()

    async def remove(self) -> None:
        """Take away all that is left of the task: it is forgotten."""
        container = self._find_container()
        if container is not None:
            await self._parts.engine.remove(container.id, force=True)
        await self._detach()

    # -- parts of steps

    async def _attach(self, host_ports: tuple[PortConfig, ...]) -> tuple[SandboxRequest, Sandbox]:
        """Make the task's namespace; return what was asked for and what there is."""
        places = await self._parts.own_networks.join(self.task, self.revision)
        request = self._sandbox_request(host_ports, places)
        sandbox = await self._parts.network.attach(request)
        self._is_attached = True
        return request, replace(sandbox, networks=_named(sandbox.networks, places, self.revision))

    async def _detach(self) -> None:
        await self._parts.network.detach(self.task.id)
        await self._parts.own_networks.leave(self.task.id)

    def _find_container(self) -> Container | None:
        """Find the task's container, also one that was renamed, or that was made in a moment nobody wrote down."""
        known = self.status.container.container_id if self.status.container is not None else ""
        for reference in (known, task_name(self.revision.spec.name, self.task)):
            if reference:
                try:
                    return self._parts.engine.get(reference)
                except NotFound:
                    continue
        return None

    def _settle_host_ports(self) -> tuple[PortConfig, ...]:
        spec = self.revision.spec.endpoint_spec
        if self.status.host_ports:
            return self.status.host_ports
        settled = []
        for port in spec.ports if spec else ():
            if port.publish_mode == "host":
                protocol = port.protocol or "tcp"
                number = port.published_port or find_free_port(protocol)
                settled.append(replace(port, protocol=protocol, published_port=number))
        return tuple(settled)

    def _settled_host_ports(self, container: Container) -> tuple[PortConfig, ...]:
        spec = self.revision.spec.endpoint_spec
        wanted = [port for port in (spec.ports if spec else ()) if port.publish_mode == "host"]
        return tuple(
            replace(port, protocol=settled.protocol, published_port=settled.published_port)
            for port, settled in zip(wanted, container.config.host_ports, strict=False)
        )

    def _sandbox_request(self, host_ports: tuple[PortConfig, ...], places: tuple[AttachAnswer, ...]) -> SandboxRequest:
        container = self.revision.spec.task_template.container_spec
        dns = container.dns_config if container is not None else None
        asked = self.revision.spec.task_template.networks
        return sandbox_request(
            self.task, _published(host_ports), dns.nameservers if dns is not None else (), places, asked
        )

    # -- state

    def _advance(self, event: Event, detail: Detail | None = None) -> Instruction:
        status, instruction = advance(self.status, event, self._parts.clock.now_ns(), detail)
        self._set(status)
        return instruction

    def _set(self, status: TaskStatus) -> None:
        assert status.state >= self.status.state, "the state of a task only moves forward"
        if status != self.status:
            self.task = replace(self.task, status=status)
            self._on_status(self.task)

    async def _while_wanted(self, work: Awaitable[T]) -> T:
        """Await `work`; if the task becomes unwanted meanwhile, cancel it and raise `_Unwanted`."""
        working = asyncio.ensure_future(work)
        unwanted = asyncio.ensure_future(self._unwanted.wait())
        try:
            await asyncio.wait({working, unwanted}, return_when=asyncio.FIRST_COMPLETED)
            if working.done():
                return working.result()
            raise _Unwanted
        finally:
            unwanted.cancel()
            if not working.done():
                working.cancel()
                await asyncio.wait({working})

    async def _wait_for(self, event: asyncio.Event, timeout_seconds: float) -> None:
        event.clear()
        try:
            async with asyncio.timeout(timeout_seconds):
                await event.wait()
        except TimeoutError:
            return


def exit_text(exit_status: ExitStatus, is_unhealthy: bool = False) -> str:
    """Return the error of a task whose container has ended, in Docker's words where it has some."""
    if exit_status.code is None:
        text = "task: exit code unknown, the container ended while nothing watched it"
    else:
        text = f"task: non-zero exit ({exit_status.code})"
    if is_unhealthy:
        # one that ends well when it is stopped for being unwell has failed all the same
        text = f"{text}: {UNHEALTHY_TEXT}" if exit_status.code else f"task: {UNHEALTHY_TEXT}"
    return f"{text}: OOM killed" if exit_status.oom_killed else text


def mesh_of(task: Task) -> tuple[JoinedNetwork, ...]:
    """Return the network of the routing mesh, if a task has an address there."""
    held = (each for each in task.attachments if not each.driver and each.addresses)
    return tuple(JoinedNetwork(name="ingress", network_id=each.network_id, addresses=each.addresses) for each in held)


def _published(ports: tuple[PortConfig, ...]) -> tuple[HostPort, ...]:
    return tuple(
        HostPort(protocol=port.protocol, published_port=port.published_port, target_port=port.target_port)
        for port in ports
    )


def _named(
    networks: tuple[JoinedNetwork, ...], places: tuple[AttachAnswer, ...], revision: Revision
) -> tuple[JoinedNetwork, ...]:
    """Return the networks of a task with its service's names on those of the node: a daemon reads them here again."""
    own = {place.network_id for place in places}
    asked = revision.spec.task_template.networks
    names = {each.target: service_names(revision.spec.name, each.aliases) for each in asked}
    return tuple(
        replace(each, aliases=names.get(each.network_id, ())) if each.network_id in own else each for each in networks
    )


def sandbox_request(
    task: Task,
    host_ports: tuple[HostPort, ...],
    name_servers: tuple[str, ...],
    places: tuple[AttachAnswer, ...] = (),
    asked: tuple[NetworkAttachmentConfig, ...] = (),
) -> SandboxRequest:
    """Return the namespace a task needs, from the networks it was attached to and its places on those of the node."""
    attachments = task.attachments
    own = {place.network_id: place for place in places}
    options = {each.target: parse_link_options(each.driver_opts, "DriverOpts") for each in asked}
    outside_options = LinkOptions()
    mesh = next((each.addresses[0] for each in attachments if not each.driver and each.addresses), None)
    overlays = []
    exits = []
    for each in attachments:
        place = own.get(each.network_id)
        link = options.get(each.network_id, LinkOptions())
        if place is not None or each.driver == OVERLAY_DRIVER:
            addresses = place.addresses if place is not None else each.addresses
            overlays.append(OverlayLink(network_id=each.network_id, addresses=addresses, options=link))
        elif each.driver == BRIDGE_DRIVER:
            outside_options = link
        is_internal = place.internal if place is not None else each.internal
        if each.driver in (OVERLAY_DRIVER, BRIDGE_DRIVER, MACVLAN_DRIVER) and not is_internal:
            name = place.network_name if place is not None else each.network_id
            exits.append(exit_of(each.network_id, name, each.driver))
    return SandboxRequest(
        task_id=task.id,
        ingress_address=mesh.partition("/")[0] if mesh is not None else None,
        host_ports=host_ports,
        host_network=any(each.driver == "host" for each in attachments),
        overlays=tuple(overlays),
        outside=bool(mesh or host_ports or not attachments or needs_way_out(exits)),
        default_network_id=choose_exit(exits),
        outside_options=outside_options,
        name_servers=name_servers,
    )
