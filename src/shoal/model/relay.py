"""What a manager asks of a node about one of its containers, and what the node answers (architecture.md 4.4).

It goes over a stream of its own, which the node has opened: one call at a time, each answered by one value, or by
lines until `Done`. After a call that starts or attaches to a process, and `Opened`, output and input flow both ways
until `Done`. The manager sends at most `INPUT_FRAMES_MOST` pieces of input that were not yet reported as taken, so the
node can always read, and sees at once when the manager goes away. The manager ends the stream, when it has read all.
"""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.container import Container, ExitStatus, LogLine, LogOptions
from shoal.model.streams import AttachOptions, ContainerStats, ExecConfig, ExecRecord, ProcessTable

# pieces of input on the way or not yet taken by the process; then the client waits
INPUT_FRAMES_MOST = 8


# -- from the manager; a container is named by its task, a command by its id


class InspectContainer(Struct, tag="inspect-container"):
    """Answered by `ContainerFound`."""

    task_id: str


class ReadLogs(Struct, tag="read-logs"):
    """Answered by `LineSaid` until `Done`."""

    task_id: str
    options: LogOptions


class AttachContainer(Struct, tag="attach-container"):
    """Opens the stream of a container."""

    task_id: str
    options: AttachOptions


class ResizeContainer(Struct, tag="resize-container"):
    """Height and width in characters. Answered by `Done`."""

    task_id: str
    height: int
    width: int


class SampleUsage(Struct, tag="sample-usage"):
    """Answered by `UsageSampled`."""

    task_id: str


class ListProcesses(Struct, tag="list-processes"):
    """Answered by `ProcessesListed`."""

    task_id: str
    ps_arguments: str = "-ef"


class SendSignal(Struct, tag="send-signal"):
    """Answered by `Done`."""

    task_id: str
    signal: str


class AwaitExit(Struct, tag="await-exit"):
    """Answered by `Exited`, once the container has ended."""

    task_id: str


class CreateExec(Struct, tag="create-exec"):
    """Answered by `ExecFound`."""

    task_id: str
    config: ExecConfig


class InspectExec(Struct, tag="inspect-exec"):
    """Answered by `ExecFound`."""

    exec_id: str


class StartExec(Struct, tag="start-exec"):
    """Opens the stream of a command; with `detach` answered by `Done`."""

    exec_id: str
    detach: bool = False
    console_size: tuple[int, int] | None = None


class ResizeExec(Struct, tag="resize-exec"):
    """Height and width in characters. Answered by `Done`."""

    exec_id: str
    height: int
    width: int


class Input(Struct, tag="input"):
    """What the client typed."""

    data: bytes


class InputEnded(Struct, tag="input-ended"):
    """The client types no more."""


# -- from the node


class Failed(Struct, tag="failed"):
    """The call is refused: the error's status code and text."""

    status: int
    message: str


class Done(Struct, tag="done"):
    """The call is carried out, or what it streamed has come to its end."""


class StillThere(Struct, tag="still-there"):
    """Sent at intervals, so that a node that hangs is told from a container that is silent."""


class ContainerFound(Struct, tag="container-found"):
    """A container as it is now, without the contents of its files."""

    container: Container


class ExecFound(Struct, tag="exec-found"):
    """A command as it is now, and its container."""

    record: ExecRecord
    container: Container


class LineSaid(Struct, tag="line-said"):
    """A line of a log."""

    line: LogLine


class UsageSampled(Struct, tag="usage-sampled"):
    """What the container uses."""

    stats: ContainerStats


class ProcessesListed(Struct, tag="processes-listed"):
    """What runs in it."""

    table: ProcessTable


class Exited(Struct, tag="exited"):
    """How it ended."""

    status: ExitStatus


class Opened(Struct, tag="opened"):
    """Output and input flow from now on."""


class Said(Struct, tag="said"):
    """A piece of output; `stream` is stdout or stderr."""

    stream: str
    data: bytes


class InputTaken(Struct, tag="input-taken"):
    """One piece of input has been given to the process."""


ContainerCall = (
    InspectContainer
    | ReadLogs
    | AttachContainer
    | ResizeContainer
    | SampleUsage
    | ListProcesses
    | SendSignal
    | AwaitExit
    | CreateExec
)
ExecCall = InspectExec | StartExec | ResizeExec
Call = ContainerCall | ExecCall
ToNode = Call | Input | InputEnded
Answer = ContainerFound | ExecFound | LineSaid | UsageSampled | ProcessesListed | Exited | Opened | Done
ToManager = Answer | Said | InputTaken | Failed | StillThere
