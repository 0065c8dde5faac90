"""A swarm as pure functions: the real plans over tables, nodes that are a few lines, a clock that is a number.

Nothing waits and nothing is concurrent, so a test says exactly what happened before what.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import count

from shoal.core.defaults import is_job
from shoal.core.taskfsm import Detail, Event, Instruction, advance, decide
from shoal.lib.clock import ManualClock
from shoal.manager import loops
from shoal.manager.loop import LeaderLoop
from shoal.manager.rebalancing import rebalancer
from shoal.manager.service_plans import ROLLBACK_PREVIOUS, ServiceUpdate, next_run, next_spec_version, updated_service
from shoal.model.actions import Action, Create, LogEntry, PatchNode, PatchService, PatchTask, Remove, Replace
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.objects import (
    Cluster,
    JobStatus,
    Network,
    Node,
    NodeDescription,
    NodeStatus,
    Service,
    Task,
    TaskStatus,
    UpdateStatus,
)
from shoal.model.specs import (
    GlobalJob,
    GlobalService,
    NetworkSpec,
    NodeSpec,
    ReplicatedJob,
    ReplicatedService,
    Resources,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from shoal.model.states import Availability, NodeState, TaskState
from shoal.store.apply import apply_entry
from shoal.store.events import EventRing
from shoal.store.tables import Tables
from shoal.store.view import View
from tests.doubles.consensus import make_store

SECOND = 1_000_000_000
BAD_IMAGE = "nosuch"
LOOPS = ("orchestrator", "allocator", "scheduler", "reaper", "rebalancer")
ROUNDS_MOST = 500


def job_spec(at_once: int | None, total: int = 1, image: str = "busybox", **template: object) -> ServiceSpec:
    """A job: so many completions, or with `at_once` None one on every node."""
    mode = ServiceMode(global_job=GlobalJob())
    if at_once is not None:
        mode = ServiceMode(replicated_job=ReplicatedJob(max_concurrent=at_once, total_completions=total))
    return replace(service_spec("job", 1, image, **template), mode=mode)


def service_spec(
    name: str = "web", replicas: int | None = 1, image: str = "busybox", **template: object
) -> ServiceSpec:
    """A spec: replicated, or global with `replicas` None."""
    mode = ServiceMode(global_=GlobalService())
    if replicas is not None:
        mode = ServiceMode(replicated=ReplicatedService(replicas=replicas))
    container = ContainerSpec(image=image)
    return ServiceSpec(name=name, mode=mode, task_template=TaskSpec(container_spec=container, **template))  # type: ignore[arg-type]


class PureSwarm:
    def __init__(self, node_count: int = 1, subnet: str = "10.0.0.0/24") -> None:
        self.tables = Tables()
        self.view = View(self.tables, EventRing())
        self.index = 0
        self.now_ns = 1_000 * SECOND
        self._numbers: Iterator[int] = count(1)
        store, clock = make_store(), ManualClock()
        self._loops: dict[str, LeaderLoop] = {
            "orchestrator": loops.orchestrator(store, clock, self.new_id),
            "allocator": loops.allocator(store, clock),
            "scheduler": loops.scheduler(store, clock),
            "reaper": loops.reaper(store, clock),
            "rebalancer": rebalancer(store, clock, self.new_id),
        }
        self.silent: set[str] = set()
        self.bad_images = {BAD_IMAGE}
        network = Network(
            id="ingress-id",
            spec=NetworkSpec(name="ingress", ingress=True, driver="overlay"),
            subnets=(subnet,),
            gateways=(subnet.replace("0/", "1/").partition("/")[0],),
        )
        self.apply(Create(object=Cluster(id="c")), Create(object=network))
        for number in range(1, node_count + 1):
            self.add_node(f"n{number}", number)

    def new_id(self) -> str:
        return f"t{next(self._numbers):05d}"

    def apply(self, *actions: Action) -> None:
        self.index += 1
        applied = apply_entry(self.tables, LogEntry(actions=actions, at_ns=self.now_ns), self.index)
        if applied.error is not None:
            raise applied.error

    # -- nodes

    def add_node(self, id_: str, number: int = 1, **spec: object) -> None:
        node = Node(
            id=id_,
            number=number,
            spec=replace(NodeSpec(role="worker", availability=Availability.ACTIVE), **spec),
            status=NodeStatus(state=NodeState.READY),
            description=NodeDescription(resources=Resources(nano_cpus=4_000_000_000, memory_bytes=1 << 33)),
        )
        self.apply(Create(object=node))

    def node(self, id_: str) -> Node:
        return self.tables.nodes.rows[id_]

    def set_availability(self, id_: str, availability: Availability) -> None:
        node = self.node(id_)
        self.apply(Replace(object=replace(node, spec=replace(node.spec, availability=availability))))

    def set_labels(self, id_: str, **labels: str) -> None:
        node = self.node(id_)
        self.apply(Replace(object=replace(node, spec=replace(node.spec, labels=labels))))

    def set_state(self, id_: str, state: NodeState) -> None:
        """Down: its agent is silent, and its containers are gone when it comes back (a reboot)."""
        self.apply(PatchNode(id=id_, status=NodeStatus(state=state)))
        (self.silent.discard if state == NodeState.READY else self.silent.add)(id_)

    def remove_node(self, id_: str) -> None:
        self.apply(Remove(kind="node", id=id_))

    # -- services

    def create(self, spec: ServiceSpec) -> str:
        id_ = f"s-{spec.name}"
        status = JobStatus(last_execution_ns=self.now_ns) if is_job(spec) else None
        self.apply(Create(object=Service(id=id_, spec=spec, spec_version=1, job_status=status)))
        return id_

    def service(self, id_: str) -> Service:
        return self.tables.services.rows[id_]

    def update(
        self, id_: str, change: Callable[[ServiceSpec], ServiceSpec], status: UpdateStatus | None = None
    ) -> None:
        service = self.service(id_)
        changed = replace(
            service,
            spec=change(service.spec),
            spec_version=next_spec_version(self.view, service),
            previous_spec_version=service.spec_version,
            update_status=status,
            job_status=next_run(service, self.now_ns),
        )
        self.apply(Replace(object=changed))

    def patch_service(self, id_: str, **changes: object) -> None:
        self.apply(PatchService(id=id_, spec_version=self.service(id_).spec_version, **changes))  # type: ignore[arg-type]

    def roll_back(self, id_: str) -> None:
        """By hand, if there is a spec before."""
        service = self.service(id_)
        if self.view.revision(id_, service.previous_spec_version) is not None:
            asked = ServiceUpdate(version=service.meta.version, spec=service.spec, rollback=ROLLBACK_PREVIOUS)
            self.apply(Replace(object=updated_service(self.view, service, asked, self.now_ns)))

    def scale(self, id_: str, replicas: int) -> None:
        mode = ServiceMode(replicated=ReplicatedService(replicas=replicas))
        self.update(id_, lambda spec: replace(spec, mode=mode))

    def set_image(self, id_: str, image: str) -> None:
        def change(spec: ServiceSpec) -> ServiceSpec:
            container = replace(spec.task_template.container_spec, image=image)  # type: ignore[type-var]
            return replace(spec, task_template=replace(spec.task_template, container_spec=container))

        self.update(id_, change)

    def tasks(self, id_: str, *states: TaskState) -> list[Task]:
        found = sorted(self.view.tasks_of_service(id_), key=lambda task: task.id)
        return [task for task in found if not states or task.status.state in states]

    def wanted(self, id_: str) -> list[Task]:
        return [task for task in self.tasks(id_) if task.is_wanted]

    def running(self, id_: str) -> list[Task]:
        return [task for task in self.wanted(id_) if task.status.state == TaskState.RUNNING]

    def update_state(self, id_: str) -> str:
        status = self.service(id_).update_status
        return str(status.state) if status else ""

    # -- what happens

    def finish(self, task: Task, code: int = 1) -> None:
        """A task's process exits by itself."""
        event = Event.EXITED_WITH_ERROR if code else Event.EXITED_CLEANLY
        status, _ = advance(
            task.status, event, self.now_ns, Detail(err=f"task: non-zero exit ({code})" if code else "")
        )
        self.apply(PatchTask(id=task.id, status=status))

    def plan(self, name: str) -> tuple[list[Action], list[int]]:
        """One round of a loop over every key; returns its actions and when it wants to look again."""
        loop = self._loops[name]
        keys = list(loop._all_keys(self.view))
        if name == "allocator":
            keys.append("all")
        rounds = loop._plan(self.view, keys, self.now_ns).values()
        actions = [action for one in rounds for action in one.actions]
        return actions, [one.wake_at_ns for one in rounds if one.wake_at_ns is not None]

    def decide(self, names: Sequence[str] = LOOPS) -> bool:
        """A round of the loops; whether any of them had something to do."""
        busy = False
        for name in names:
            actions, _ = self.plan(name)
            if actions:
                self.apply(*actions)
                busy = True
        return busy

    def work(self) -> bool:
        """Let every agent take one step with each of its tasks; whether any did something."""
        patches = [
            PatchTask(id=task.id, status=status)
            for node in self.tables.nodes.rows.values()
            if node.id not in self.silent
            for task in self.view.tasks_of_node(node.id)
            if (status := self._step(task)) is not None
        ]
        patches += list(self._pulls())
        if patches:
            self.apply(*patches)
        return bool(patches)

    def _pulls(self) -> Iterator[PatchTask]:
        """What comes of images that nodes are to have before a task comes to them."""
        for state in (TaskState.NEW, TaskState.PENDING):
            for task in self.view.unassigned_tasks(state):
                node_id = task.pull_node_id
                if not node_id or task.pulled or not task.is_wanted or node_id in self.silent:
                    continue
                if self._is_refused(task):
                    refused = TaskStatus(state=TaskState.REJECTED, timestamp_ns=self.now_ns, err="No such image")
                    yield PatchTask(id=task.id, node_id=node_id, status=refused)
                else:
                    yield PatchTask(id=task.id, pulled=True)

    def _is_refused(self, task: Task) -> bool:
        container = self.view.revision_of(task).spec.task_template.container_spec
        return container is not None and container.image in self.bad_images

    def _step(self, task: Task):  # type: ignore[no-untyped-def]
        if task.status.state < TaskState.ASSIGNED:
            return None
        instruction = decide(task.status.state, task.desired_state)
        if instruction is Instruction.NOTHING:
            return None
        if instruction is Instruction.STOP:
            return advance(task.status, Event.STOPPED, self.now_ns)[0]
        event = {
            TaskState.PREPARING: Event.REFUSED if self._is_refused(task) else Event.PREPARED,
            TaskState.STARTING: Event.STARTED,
        }.get(task.status.state, Event.PROCEED)
        status = advance(task.status, event, self.now_ns)[0]
        return status if status != task.status else None

    def round(self, until_ns: int | None = None) -> bool:
        """One turn of every loop and agent, or if they rest, time until a loop wants to look again; False at rest."""
        if self.decide() | self.work():
            return True
        wakes = [wake for name in ("orchestrator", "rebalancer") for wake in self.plan(name)[1]]
        if not wakes or (until_ns is not None and min(wakes) > until_ns):
            return False
        self.now_ns = max(self.now_ns + 1, min(wakes))
        return True

    def rounds(self, until_ns: int | None = None) -> Iterator[int]:
        """Let loops and agents go on, and time pass, until nothing is left to do; yields after each round.

        With `until_ns` time does not pass that point: what is due later stays undone.
        """
        for round_ in range(ROUNDS_MOST):
            if not self.round(until_ns):
                self.now_ns = max(self.now_ns, until_ns or 0)
                return
            yield round_
        raise AssertionError(f"no rest after {ROUNDS_MOST} rounds: {[self.plan(name)[0][:3] for name in LOOPS]}")

    def settle(self, until_ns: int | None = None) -> None:
        """Go on until nothing is left to do."""
        for _ in self.rounds(until_ns):
            pass

    def pass_seconds(self, seconds: float) -> None:
        """Let time pass, with all that is due in it."""
        self.settle(self.now_ns + round(seconds * SECOND))
