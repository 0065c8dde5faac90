"""What managers and nodes say to each other over a session (architecture.md 4.4, 4.5).

A session is opened by the agent. The dispatcher sends the whole set of assignments first, then differences; the
agent sends statuses and beats. The same frames serve the local node through memory and remote nodes through a
WebSocket.
"""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.netstate import IngressState, NetworkChange
from shoal.model.node_port import ManagerAddress
from shoal.model.objects import Config, Node, NodeDescription, Revision, Secret, Task, TaskStatus

PROTOCOL_MIN = 1
PROTOCOL_MAX = 1


class Hello(Struct, tag="hello"):
    """Opens every link: the versions a side can speak."""

    protocol_min: int = PROTOCOL_MIN
    protocol_max: int = PROTOCOL_MAX


class OpenSession(Struct, tag="open-session"):
    """From the agent: who it is and what its node is like. `ingress_version` is what it holds already (0: nothing).

    `serves_streams`: it knows `OpenStream`. `takes_overlays`: it knows `NetworkUpdate.change`.
    `pulls_ahead`: it knows `PullImage`.
    """

    node_id: str
    description: NodeDescription
    ingress_version: int = 0
    serves_streams: bool = False
    takes_overlays: bool = False
    pulls_ahead: bool = False


class SessionOpened(Struct, tag="session-opened"):
    """From the dispatcher: the session and the heartbeat period in seconds; `NodeChanged` follows."""

    session_id: str
    heartbeat_period_seconds: float


class NodeChanged(Struct, tag="node-changed"):
    """From the dispatcher, first and on every change: the agent's own node, the managers, the roots to trust (PEM).

    `certificate_wanted`: the node's certificate is to be made anew now (another role, another root).
    """

    node: Node
    managers: tuple[ManagerAddress, ...] = ()
    roots: str = ""
    certificate_wanted: bool = False
    heartbeat_period_seconds: float = 0.0
    # what the swarm allows its services (core/privileges.py); None: a manager of a version that does not say it
    allowed: tuple[str, ...] | None = None


class Heartbeat(Struct, tag="heartbeat"):
    """From the agent: alive."""

    session_id: str


class DescribeNode(Struct, tag="describe-node"):
    """From the agent: its node has changed."""

    description: NodeDescription


class Assignments(Struct, tag="assignments"):
    """From the dispatcher. `complete`: this is all; else a difference to sequence `applies_to`.

    Revisions, secrets and configs come before the tasks that need them, once a session, and are named as removed when
    no task there needs them; a task not named in a `complete` set, or named in `removed_task_ids`, is to be stopped
    and forgotten.
    """

    sequence: int
    applies_to: int = 0
    complete: bool = False
    tasks: tuple[Task, ...] = ()
    removed_task_ids: tuple[str, ...] = ()
    revisions: tuple[Revision, ...] = ()
    removed_revision_ids: tuple[str, ...] = ()
    secrets: tuple[Secret, ...] = ()
    configs: tuple[Config, ...] = ()
    removed_secret_ids: tuple[str, ...] = ()
    removed_config_ids: tuple[str, ...] = ()


class NetworkUpdate(Struct, tag="network-update"):
    """From the dispatcher: what this node's network should become.

    `ingress` is for agents that know nothing of `change`; it is empty for those that do.
    """

    ingress: IngressState = IngressState()
    change: NetworkChange | None = None


class NetworkAcknowledged(Struct, tag="network-acknowledged"):
    """From the agent: kernel and names hold everything up to this version."""

    ingress_version: int = 0
    version: int = 0


class TaskReport(Struct):
    """A task's status as its node sees it."""

    task_id: str
    status: TaskStatus


class ReportStatus(Struct, tag="report-status"):
    """From the agent: what became of tasks. Reported again until `acknowledged`."""

    sequence: int
    reports: tuple[TaskReport, ...]


class StatusAcknowledged(Struct, tag="status-acknowledged"):
    """From the dispatcher: the statuses up to this sequence are in the store."""

    sequence: int


class OpenStream(Struct, tag="open-stream"):
    """From the dispatcher: open a stream to this manager and present this id (see model/relay.py)."""

    stream_id: str


class StreamRefused(Struct, tag="stream-refused"):
    """From the agent: the stream will not be opened, and why."""

    stream_id: str
    message: str


class PullImage(Struct, tag="pull-image"):
    """From the dispatcher: a task is to come when another has left; its image is to be here before that one leaves."""

    task_id: str
    revision: Revision


class ImagePulled(Struct, tag="image-pulled"):
    """From the agent: the image that was asked for is here, or the status of a task that cannot have it."""

    task_id: str
    refused: TaskStatus | None = None


class EndSession(Struct, tag="end-session"):
    """Either side: this session is over, and why. `leader_address`: who serves sessions now, if that is known.

    `removed`: the node is no longer part of the swarm; it need not come back. `returns`: from a node whose daemon
    stops and whose containers run on: it will be back.
    """

    reason: str
    leader_address: str = ""
    removed: bool = False
    returns: bool = False


Message = (
    Hello
    | OpenSession
    | SessionOpened
    | NodeChanged
    | Heartbeat
    | DescribeNode
    | Assignments
    | NetworkUpdate
    | NetworkAcknowledged
    | ReportStatus
    | StatusAcknowledged
    | OpenStream
    | StreamRefused
    | PullImage
    | ImagePulled
    | EndSession
)
