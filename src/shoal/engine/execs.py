"""Commands in running containers (`docker exec`): from the request to the exit code.

The keeper is their parent. Their streams end here, not in the keeper: FIFOs that both sides open, or the terminal's
master, which runc hands to a socket of ours. A stream belongs to one client and breaks with this daemon; a command
without one (detached) outlives it. Records are in memory, as Docker's.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import socket
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import structlog

from shoal.engine import syscalls
from shoal.engine.exec_stream import ExecStream
from shoal.engine.keeper.processes import open_pidfd, start_time
from shoal.engine.keeper_client import KeeperClient
from shoal.engine.rootfs import Layout
from shoal.engine.start_errors import exec_error_text, start_error_code
from shoal.engine.users import resolve
from shoal.errors import Conflict, Forbidden, InvalidArgument, NotFound, ShoalError
from shoal.lib.clock import Clock
from shoal.lib.files import remove_tree
from shoal.lib.ids import Ids
from shoal.model.base import replace
from shoal.model.container import Container
from shoal.model.streams import ExecConfig, ExecRecord

_log = structlog.get_logger(__name__)

# as Docker: a command that has ended can be inspected for five minutes
KEPT_SECONDS = 300.0
TERMINAL_WAIT_SECONDS = 10.0
UNKNOWN_EXIT_CODE = 255
_CONSOLE_NAME_LENGTH = 16


class RunningExec:
    """A command in memory. `started` is set once its start has come to an end, `ended` when it has."""

    def __init__(self, record: ExecRecord) -> None:
        self.record = record
        self.is_asked_for = False
        self.started = asyncio.Event()
        self.ended = asyncio.Event()
        self.ended_at = 0.0
        self.stream: ExecStream | None = None


class Execs:
    """The commands of all containers of a node.

    Args:
        layout: where things lie.
        keeper: who runs them.
        clock: source of time.
        ids: source of ids.
        in_thread: runs blocking work on files.
    """

    def __init__(
        self,
        layout: Layout,
        keeper: KeeperClient,
        clock: Clock,
        ids: Ids,
        in_thread: Callable[[Callable[[], Any]], Awaitable[Any]],
    ) -> None:
        self._layout = layout
        self._keeper = keeper
        self._clock = clock
        self._ids = ids
        self._in_thread = in_thread
        self._execs: dict[str, RunningExec] = {}
        self._watchers: set[asyncio.Task[None]] = set()

    @property
    def _directory(self) -> Path:
        return self._layout.exec_root / "execs"

    def start_up(self) -> None:
        """Take away what an earlier daemon left. Blocking."""
        remove_tree(self._directory)
        self._directory.mkdir(mode=0o700)

    async def close(self) -> None:
        """Let go of all streams."""
        for watcher in list(self._watchers):
            watcher.cancel()
            await asyncio.gather(watcher, return_exceptions=True)
        for command in self._execs.values():
            if command.stream is not None:
                await command.stream.abort()

    def create(self, container: Container, config: ExecConfig) -> ExecRecord:
        """Prepare a command. Raises Conflict, InvalidArgument, Forbidden."""
        if not config.arguments or not config.arguments[0]:
            raise InvalidArgument("No exec command specified")
        check_runs(container)
        if config.privileged:
            raise Forbidden(
                "privileged exec is refused: a container's process gets no more rights than the container; "
                "give the service the capabilities it needs (--cap-add)"
            )
        self._forget_old()
        record = ExecRecord(id=self._ids.new_hex(), container_id=container.id, config=config)
        self._execs[record.id] = RunningExec(record)
        return record

    def get(self, exec_id: str) -> ExecRecord:
        """Return a command. Raises NotFound."""
        return self._find(exec_id).record

    def forget_container(self, container_id: str) -> None:
        """Forget the commands of a container that is removed."""
        for exec_id in [key for key, found in self._execs.items() if found.record.container_id == container_id]:
            command = self._execs.pop(exec_id)
            if not command.ended.is_set():
                self._end(command, UNKNOWN_EXIT_CODE)

    async def start(
        self, container: Container, exec_id: str, detach: bool, console_size: tuple[int, int] | None
    ) -> ExecStream | None:
        """Start a command. Raises Conflict, NotFound, InvalidArgument."""
        command = self._find(exec_id)
        if command.record.running:
            raise Conflict(f"Error: Exec command {exec_id} is already running")
        if command.is_asked_for:
            raise Conflict(f"Error: Exec command {exec_id} has already run")
        check_runs(container)
        command.is_asked_for = True
        config = command.record.config
        if console_size is not None:
            config = replace(config, console_size=console_size)
        if detach:
            config = replace(config, attach_stdin=False, attach_stdout=False, attach_stderr=False)
        stream = ExecStream(command.ended)
        directory = self._directory / exec_id
        console = self._layout.consoles / exec_id[:_CONSOLE_NAME_LENGTH]
        try:
            await self._in_thread(lambda: self._prepare(directory, container, config))
            pid = await self._run(command, config, container, stream, console)
        except BaseException as error:
            await stream.abort()
            self._fail(command, error)
            raise
        finally:
            command.started.set()
            await asyncio.shield(asyncio.to_thread(_clean, directory, console))
        command.record = replace(
            command.record, pid=pid, running=not command.ended.is_set(), exit_code=command.record.exit_code
        )
        command.stream = stream
        _log.info("command started in container", container_id=container.id, exec_id=exec_id, pid=pid)
        stream.begin()
        if detach:
            await stream.close()
            return None
        return stream

    async def _run(
        self, command: RunningExec, config: ExecConfig, container: Container, stream: ExecStream, console: Path
    ) -> int:
        directory = self._directory / command.record.id
        listener = _listen(console) if config.tty else None
        with contextlib.ExitStack() as stack:
            if listener is not None:
                stack.enter_context(listener)
            else:
                stream.open_fifos(directory, _attached(config))
            answer = await self._keeper.request(
                "exec",
                repeat=False,
                id=command.record.id,
                container=container.id,
                directory=str(directory),
                runc_root=str(self._layout.runc_root),
                terminal=config.tty,
                console_socket=str(console),
                **dict.fromkeys(_attached(config), True),
            )
            if "error" in answer:
                raise InvalidArgument(exec_error_text(str(answer["error"])))
            if listener is not None:
                stream.use_terminal(_take_terminal(listener), config.attach_stdin)
                if config.console_size is not None:
                    stream.resize(*config.console_size)
        return int(answer["pid"])

    def _prepare(self, directory: Path, container: Container, config: ExecConfig) -> None:
        """Write what runc is told, make the FIFOs. Blocking."""
        bundle = self._layout.bundle(container.id)
        spec = json.loads((bundle / "config.json").read_bytes())
        identity = None
        if config.user:
            texts = (syscalls.read_in_root(bundle / "rootfs", f"/etc/{name}") for name in ("passwd", "group"))
            found = resolve(config.user, (), *texts)
            identity = {"uid": found.uid, "gid": found.gid, "additionalGids": list(found.groups or (found.gid,))}
        directory.mkdir(mode=0o700)
        (directory / "process.json").write_text(json.dumps(make_process(spec["process"], config, identity)))
        if not config.tty:
            for name in _attached(config):
                os.mkfifo(directory / name, 0o600)

    def _fail(self, command: RunningExec, error: BaseException) -> None:
        reason = error.message if isinstance(error, ShoalError) else str(error)
        self._end(command, 127 if start_error_code(reason) == 127 else 126)
        _log.info("command did not start in container", exec_id=command.record.id, reason=reason)

    async def resize(self, exec_id: str, height: int, width: int) -> None:
        """Give a command's terminal a size; waits for its start for a while. Raises NotFound."""
        command = self._find(exec_id)
        if command.is_asked_for:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TERMINAL_WAIT_SECONDS):
                    await command.started.wait()
        if command.stream is None or not command.record.running or not command.stream.resize(height, width):
            raise NotFound(f"process does not exist {exec_id}: not found")

    def on_exit(self, exec_id: str, code: int) -> None:
        """Take the end of a command from the keeper."""
        command = self._execs.get(exec_id)
        if command is not None and not command.ended.is_set():
            self._end(command, code)
            _log.info("command in container ended", exec_id=exec_id, code=code)

    def on_hello(self, known: list[str]) -> None:
        """Compare with what a new keeper has: commands of the last one go on, but their codes will be unknown."""
        for exec_id, command in self._execs.items():
            if command.record.running and exec_id not in known:
                watcher = asyncio.create_task(self._watch(command))
                self._watchers.add(watcher)
                watcher.add_done_callback(self._watchers.discard)

    async def _watch(self, command: RunningExec) -> None:
        """Wait for the end of a command whose keeper died."""
        pid = command.record.pid
        descriptor = open_pidfd(pid, start_time(pid))
        if descriptor >= 0:
            loop = asyncio.get_running_loop()
            gone = asyncio.Event()
            loop.add_reader(descriptor, gone.set)
            try:
                await gone.wait()
            finally:
                loop.remove_reader(descriptor)
                os.close(descriptor)
        self.on_exit(command.record.id, UNKNOWN_EXIT_CODE)

    def _end(self, command: RunningExec, code: int) -> None:
        command.record = replace(command.record, running=False, exit_code=code)
        command.ended_at = self._clock.monotonic()
        command.ended.set()

    def _find(self, exec_id: str) -> RunningExec:
        command = self._execs.get(exec_id)
        if command is None:
            raise NotFound(f"No such exec instance: {exec_id}")
        return command

    def _forget_old(self) -> None:
        limit = self._clock.monotonic() - KEPT_SECONDS
        for exec_id in [key for key, found in self._execs.items() if found.ended.is_set() and found.ended_at < limit]:
            del self._execs[exec_id]


def check_runs(container: Container) -> None:
    """Raise Conflict with Docker's texts unless a container runs and is not paused."""
    if container.state.status != "running":
        raise Conflict(f"container {container.id} is not running")
    if container.state.paused:
        raise Conflict(f"Container {container.config.name} is paused, unpause the container before exec")


def make_process(of_container: dict[str, Any], config: ExecConfig, identity: dict[str, Any] | None) -> dict[str, Any]:
    """Return the OCI process of a command, after that of its container: same rights, limits and environment.

    Args:
        of_container: `process` of the container's spec.
        config: the command.
        identity: who runs it; None is who runs the container.
    """
    environment = {entry.partition("=")[0]: entry for entry in of_container.get("env", ())}
    if config.tty:
        environment.setdefault("TERM", "TERM=xterm")
    for entry in config.env:
        name, equals, _ = entry.partition("=")
        if equals:
            environment[name] = entry
        else:
            environment.pop(name, None)
    process = {
        **of_container,
        "terminal": config.tty,
        "args": list(config.arguments),
        "env": list(environment.values()),
        "cwd": config.working_dir or of_container.get("cwd", "/"),
    }
    process.pop("consoleSize", None)
    if config.tty:
        height, width = config.console_size or (24, 80)
        process["consoleSize"] = {"height": height, "width": width}
    if identity is not None:
        process["user"] = identity
        # as at the start of a container: the kernel would take these away from another user than root, and give them
        held = process.get("capabilities", {}).get("bounding", []) if identity["uid"] == 0 else []
        process["capabilities"] = {**process.get("capabilities", {}), "effective": held, "permitted": held}
    return process


def _attached(config: ExecConfig) -> list[str]:
    wanted = {"stdin": config.attach_stdin, "stdout": config.attach_stdout, "stderr": config.attach_stderr}
    return [name for name, is_wanted in wanted.items() if is_wanted]


def _listen(path: Path) -> socket.socket:
    path.unlink(missing_ok=True)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    listener.bind(str(path))
    listener.listen(1)
    listener.setblocking(False)
    return listener


def _take_terminal(listener: socket.socket) -> int:
    """Return the master that runc has sent by now. Raises ShoalError if it has not."""
    try:
        connection, _ = listener.accept()
        with connection:
            _, descriptors, _, _ = socket.recv_fds(connection, 4096, 1)
        return descriptors[0]
    except (OSError, IndexError) as error:
        raise ShoalError(f"runc sent no terminal: {error}") from None


def _clean(directory: Path, console: Path) -> None:
    remove_tree(directory)
    console.unlink(missing_ok=True)
