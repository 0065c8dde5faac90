"""A lab as a whole: made, grown, looked at, parted, taken away. The nodes' own verbs are in `node.py`.

lab = Lab.up(managers=3, workers=2)
lab.node("m1").docker("node", "ls")
lab.node("m1").kill()
lab.down()
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from shoal.client.connection import NoDaemon
from shoal.errors import Conflict, NotFound, ShoalError, Unavailable
from shoal.lab import image, kernel, swarm
from shoal.lab.node import LabNode, with_daemons
from shoal.lab.plan import (
    DEFAULT_NAME,
    LabState,
    NodeRecord,
    Process,
    Role,
    Way,
    add_cuts,
    check_name,
    check_scratch,
    choose_network,
    cuts_without,
    describe_cuts,
    grow,
    next_node,
)
from shoal.lab.state import StateFile, list_labs
from shoal.model.base import Struct, replace

DEFAULT_SCRATCH = Path("/var/tmp")  # noqa: S108 (the directory below it is made by us, for root only)
IMAGES = "images"
Item = TypeVar("Item")
Result = TypeVar("Result")


class NodeStatus(Struct):
    """What one sees of a node.

    `daemon`: off, stopped, crashed, frozen, running. `swarm`: what it says of itself. `status` and `manager`: what a
    manager says of it. `network`: what it is parted from.
    """

    name: str
    role: str
    address: str
    daemon: str
    swarm: str = ""
    status: str = ""
    manager: str = ""
    network: str = ""


class Lab:
    """A lab that is there.

    Args:
        name: of the lab.

    Raises:
        NotFound: there is none of this name.
    """

    def __init__(self, name: str = DEFAULT_NAME) -> None:
        self.name = check_name(name)
        self._file = StateFile(name)
        self._file.read()

    @classmethod
    def up(
        cls,
        *,
        managers: int | None = None,
        workers: int | None = None,
        name: str = DEFAULT_NAME,
        scratch: Path | None = None,
        flags: Sequence[str] = (),
        environment: Mapping[str, str] | None = None,
    ) -> Lab:
        """Make a lab, or complete and grow the one that is there: then every node runs and is in the swarm.

        Args:
            managers: how many; None leaves those that are there (in a new lab: 3).
            workers: the same (in a new lab: 2).
            name: of the lab.
            scratch: directory of its data; it is made if need be, and only what the lab puts there is removed.
            flags: more flags of each shoald of a new lab.
            environment: more variables of each shoald of a new lab.

        Raises:
            ShoalError: with what cannot be done and what can.
        """
        file = StateFile(check_name(name))
        with file.lock():
            try:
                state = file.find()
                if state is None:
                    state = _new_state(name, scratch, flags, environment)
                elif scratch is not None and scratch.absolute() != Path(state.scratch):
                    raise Conflict(f'lab "{name}" lives in {state.scratch}: leave --scratch out, or take it down first')
                # written before anything is made, so that `down` knows all of it
                file.write(replace(state, nodes=grow(state, managers, workers)))
            except ShoalError:
                if file.find() is None:
                    file.erase()
                raise
            lab = cls(name)
            lab._complete()
        return lab

    # what is there

    @property
    def scratch(self) -> Path:
        """Directory of its data."""
        return Path(self._file.read().scratch)

    @property
    def nodes(self) -> list[LabNode]:
        """Its nodes."""
        return [LabNode(self._file, record.name) for record in self._file.read().nodes]

    def node(self, name: str) -> LabNode:
        """Return a node.

        Raises:
            NotFound: there is no such node; names those there are.
        """
        return LabNode(self._file, name)

    def status(self) -> list[NodeStatus]:
        """Look at all nodes at once; a node that gives no answer is said so."""
        cuts = self._file.read().cuts
        nodes = self.nodes
        told = _side_by_side(lambda node: (_look(node), swarm.list_members(node.client)), nodes)
        members = _by_id_and_name([listed for _, listed in told if listed is not None])
        rows = []
        for node, (own, _) in zip(nodes, told, strict=True):
            known = members.get(own.node_id if own is not None else "") or members.get(node.name)
            is_manager = own.is_manager if own is not None else bool(known.manager) if known else node.role == "manager"
            daemon = node.state
            rows.append(
                NodeStatus(
                    name=node.name,
                    role="manager" if is_manager else "worker",
                    address=node.address,
                    daemon=daemon,
                    swarm=own.state if own is not None else "no answer" if daemon == "running" else "",
                    status=f"{known.state}, {known.availability}" if known else "",
                    manager=known.manager if known else "",
                    network=describe_cuts(cuts, node.name),
                )
            )
        return rows

    # what changes it

    def add_worker(self) -> LabNode:
        """Add a worker and return it. Raises as `up` does."""
        return self._add("worker")

    def add_manager(self) -> LabNode:
        """Add a manager and return it. Raises as `up` does."""
        return self._add("manager")

    def _add(self, role: Role) -> LabNode:
        with self._file.lock():
            state = self._file.read()
            record = next_node(state.nodes, role)
            self._file.write(replace(state, nodes=(*state.nodes, record)))
            self._start([record])
            self._join([record])
        return self.node(record.name)

    def remove(self, name: str) -> None:
        """Have a node demoted, leave, and be forgotten; then take its host and its data away.

        Raises:
            NotFound: there is no such node.
            Conflict: it is the last one, or the last manager.
            ShoalError: the swarm refuses; nothing is taken away.
        """
        node = self.node(name)
        with self._file.lock():
            if len(self._file.read().nodes) == 1:
                raise Conflict(f"{name} is the last node: use `shoal lab down --name {self.name}`")
            self._take_out(node)
            node.cut_power()
            node.erase()
            state = self._file.read()
            kept = tuple(record for record in state.nodes if record.name != name)
            self._file.write(replace(state, nodes=kept, cuts=cuts_without(state.cuts, name)))
            self._apply_cuts()

    def _take_out(self, node: LabNode) -> None:
        others = [other for other in self.nodes if other.name != node.name]
        own = _look(node)
        if own is not None and own.state == swarm.OUTSIDE:
            return
        managers = [other for other in others if (told := _look(other)) is not None and told.is_manager]
        if not managers:
            raise Conflict(f"{node.name} is the last manager that answers: start or add another one first")
        manager = managers[0].client
        listed = _side_by_side(lambda node: swarm.list_members(node.client), managers)
        members = _by_id_and_name([found for found in listed if found is not None])
        known = members.get(own.node_id) if own is not None else members.get(node.name)
        if known is None:
            if not members:
                raise Unavailable("no manager can say who is in the swarm: start more managers first")
            return
        swarm.make_worker(manager, known.node_id)
        if own is not None:
            swarm.leave(node.client)
        swarm.remove_member(manager, known.node_id)

    def partition(self, name: str, *, one_way: Way | None = None, others: Sequence[str] = ()) -> None:
        """Have the bridge drop what a node and others send each other.

        Args:
            name: of the node.
            one_way: only what comes "in" to the node, or only what goes "out" of it.
            others: the nodes it is parted from; all, if none is named.

        Raises:
            NotFound: there is no such node.
        """
        with self._file.lock():
            state = self._file.read()
            for node in (name, *others):
                state.find(node)
            self._file.write(replace(state, cuts=add_cuts(state.cuts, name, one_way, others)))
            self._apply_cuts()

    def heal(self, name: str | None = None) -> None:
        """Take back the cuts that concern a node, or all.

        Raises:
            NotFound: there is no such node.
        """
        with self._file.lock():
            state = self._file.read()
            if name is not None:
                state.find(name)
            self._file.write(replace(state, cuts=cuts_without(state.cuts, name)))
            self._apply_cuts()

    def down(self) -> None:
        """End and remove everything of this lab, also of one whose making was interrupted."""
        take_down(self.name)

    def _apply_cuts(self) -> None:
        kernel.apply_cuts(self.name, self._file.read().cuts)

    # making; the caller holds the lock

    def _complete(self) -> None:
        """Make what is missing."""
        state = self._file.read()
        self.scratch.mkdir(parents=True, exist_ok=True, mode=0o711)
        kernel.make_bridge(self.name)
        self._apply_cuts()
        self._start(state.nodes)
        first = LabNode(self._file, state.nodes[0].name)
        if not swarm.has_image(first.client, image.NAME):
            swarm.import_image(first.client, image.NAME, image.busybox_archive())
        self._join(state.nodes)

    def _start(self, records: Sequence[NodeRecord]) -> None:
        """Start hosts and daemons side by side, and wait until all answer."""
        nodes = [LabNode(self._file, record.name) for record in records]
        started: dict[str, Process | None] = {}

        def launch(node: LabNode) -> Process:
            return node.launch(lambda process: started.__setitem__(node.name, process))

        try:
            processes = _side_by_side(launch, nodes)
        finally:
            self._file.change(lambda state: with_daemons(state, started))
        _side_by_side(lambda pair: pair[0].wait_until_up(pair[1]), list(zip(nodes, processes, strict=True)))

    def _join(self, records: Sequence[NodeRecord]) -> None:
        """Bring nodes into the swarm: if there is none, the first manager founds it; the others join side by side."""
        nodes = self.nodes
        said = dict(zip((n.name for n in nodes), _side_by_side(_look, nodes), strict=True))
        outside = [
            node
            for node in nodes
            if node.name in {record.name for record in records}
            and (told := said[node.name]) is not None
            and told.state == swarm.OUTSIDE
        ]
        managers = [node for node in nodes if (told := said[node.name]) is not None and told.is_manager]
        if not outside:
            return
        if not managers:
            if len(outside) < len(nodes):
                raise Unavailable("the swarm of this lab has no manager that answers: start one, then `shoal lab up`")
            founder = next(node for node in outside if node.role == "manager")
            swarm.found(founder.client, founder.address)
            outside.remove(founder)
            managers = [founder]
        tokens = _first_answer(managers)
        remote = managers[0].address
        _side_by_side(lambda node: swarm.join(node.client, node.address, tokens[node.role], remote), outside)


def _new_state(
    name: str, scratch: Path | None, flags: Sequence[str], environment: Mapping[str, str] | None
) -> LabState:
    directory = check_scratch((scratch or DEFAULT_SCRATCH / f"shoal-lab-{name}").absolute())
    others = [state for other in list_labs() if (state := StateFile(other).find()) is not None]
    for other in others:
        if Path(other.scratch) == directory:
            raise Conflict(f'--scratch {directory}: lab "{other.name}" lives there')
    if directory.exists() and any(directory.iterdir()):
        raise Conflict(f"--scratch {directory}: there is something in it: name an empty or a new directory")
    return LabState(
        name=name,
        scratch=str(directory),
        network=choose_network([*kernel.networks_in_use(), *(f"{other.network}.0/24" for other in others)]),
        flags=tuple(flags),
        environment=dict(environment or {}),
        owns_scratch=not directory.exists(),
    )


def take_down(name: str) -> bool:
    """End and remove everything that carries a lab's name; returns whether there was anything remembered.

    Raises:
        ShoalError: something does not end.
    """
    file = StateFile(check_name(name))
    with file.lock():
        try:
            state = file.find()
        finally:
            # nothing on the bridge, so that no node sees another's end
            kernel.disconnect(name)
        if state is not None:
            nodes = [LabNode(file, record.name) for record in state.nodes]
            _side_by_side(lambda node: node.cut_power(), nodes)
            for node in nodes:
                node.erase()
            scratch = Path(state.scratch)
            shutil.rmtree(scratch / IMAGES, ignore_errors=True)
            if state.owns_scratch and scratch.exists():
                scratch.rmdir()
        kernel.remove_namespaces(name)
        file.erase()
    return state is not None


def _by_id_and_name(answers: Sequence[tuple[list[swarm.Member], bool]]) -> dict[str, swarm.Member]:
    """Return the swarm's nodes by id and by host name, as a manager says whose word is not old, if there is one."""
    listed = min(answers, key=lambda answer: answer[1])[0] if answers else []
    # of several nodes of one name, all but one have left
    by_name = {member.host_name: member for member in sorted(listed, key=lambda member: member.state == "ready")}
    return by_name | {member.node_id: member for member in listed}


def _look(node: LabNode) -> swarm.Membership | None:
    return swarm.look(node.client)


def _first_answer(managers: Iterable[LabNode]) -> dict[Role, str]:
    error: ShoalError = NotFound("there is no manager")
    for manager in managers:
        try:
            return swarm.read_tokens(manager.client)
        except (NoDaemon, ShoalError) as found:
            error = found
    raise error


def _side_by_side(function: Callable[[Item], Result], items: Sequence[Item]) -> list[Result]:
    """Call a function for all items at once and return its results; an error is raised when all have ended."""
    if not items:
        return []
    with ThreadPoolExecutor(len(items)) as pool:
        calls = [pool.submit(function, item) for item in items]
    return [call.result() for call in calls]
