"""The keeper's event loop: requests from engines, runc's ends, containers' output and ends.

One thread, one epoll. Everything it must remember is on disk or in FIFOs, so it may be killed at any time; only exit
codes of the containers it was parent of become unknown.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
import time
from collections import deque
from collections.abc import Callable
from typing import Any

from shoal.engine.keeper import processes, wire
from shoal.engine.keeper.containers import EXIT_FILE, RUNNING_FILE, KeptContainer
from shoal.engine.keeper.execs import KeptExec
from shoal.engine.keeper.listeners import Listener, frame
from shoal.engine.keeper.streams import FifoStream, ScratchPipe, TerminalStream

CONCURRENT_STARTS_PER_CPU = 2
MOST_CLIENT_BACKLOG_BYTES = 8 << 20
IDLE_END_SECONDS = 30.0
_IDLE_SECONDS = 5.0


class _Client:
    """One connected engine."""

    def __init__(self, connection: socket.socket) -> None:
        connection.setblocking(False)
        self.connection = connection
        self.decoder = wire.Decoder()
        self.backlog = bytearray()


class Keeper:
    """See the module. `socket_path` is where engines connect; `containers_directory` holds one directory each."""

    def __init__(self, socket_path: str, containers_directory: str) -> None:
        self._socket_path = socket_path
        self._containers_directory = containers_directory
        self._containers: dict[str, KeptContainer] = {}
        self._execs: dict[str, KeptExec] = {}
        self._queue: deque[KeptContainer | KeptExec] = deque()
        self._starting: dict[int, KeptContainer | KeptExec] = {}  # by runc's pid
        self._by_pid: dict[int, KeptContainer | KeptExec] = {}
        self._early_ends: dict[int, int] = {}  # ends of processes that runc has not told of yet: pid -> wait status
        self._clients: dict[int, _Client] = {}
        self._expecting: dict[str, dict[int, dict[str, Any]]] = {}  # who listens from a container's next start on
        self._handlers: dict[int, Callable[[int], None]] = {}
        self._eager: deque[FifoStream | TerminalStream] = deque()  # have had their turn and may have more
        self._scratch = ScratchPipe()
        self._epoll = select.epoll()
        self._most_starting = CONCURRENT_STARTS_PER_CPU * (os.cpu_count() or 1)
        self._stopping = False
        self._needed_at = time.monotonic()

    def run(self) -> None:
        """Serve until told to stop (SIGTERM, or a `shutdown` while nothing runs), or until nobody needs a keeper."""
        processes.become_subreaper()
        self._watch_signals()
        self._adopt_all()
        self._listen()
        while not self._stopping:
            self._turn()
        for container in self._containers.values():
            container.close()

    def _turn(self) -> None:
        timeout = 0.0 if self._eager else (_IDLE_SECONDS if not self._starting else 1.0)
        for descriptor, events in self._epoll.poll(timeout):
            handler = self._handlers.get(descriptor)
            if handler is not None:
                handler(events)
        for _ in range(len(self._eager)):
            self._serve_stream(self._eager.popleft())
        self._start_queued()
        self._end_slow_starts()
        for container in self._containers.values():
            if container.audience:
                container.audience.drop_stalled()
        self._end_if_idle()

    def _end_if_idle(self) -> None:
        """Without containers and engines there is nothing to keep; the next engine starts another keeper."""
        now = time.monotonic()
        if self._containers or self._clients:
            self._needed_at = now
        elif now - self._needed_at > IDLE_END_SECONDS:
            self._stopping = True

    def _watch(self, descriptor: int, events: int, handler: Callable[[int], None]) -> None:
        self._handlers[descriptor] = handler
        self._epoll.register(descriptor, events)

    def _unwatch(self, descriptor: int) -> None:
        if self._handlers.pop(descriptor, None) is not None:
            self._epoll.unregister(descriptor)

    # signals and ends of processes

    def _watch_signals(self) -> None:
        reading, writing = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.signal(signal.SIGTERM, self._on_stop_signal)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        self._watch(reading, select.EPOLLIN, lambda _: self._on_wakeup(reading))

    def _on_stop_signal(self, *_: object) -> None:
        self._stopping = True

    def _on_wakeup(self, reading: int) -> None:
        with contextlib.suppress(BlockingIOError):
            os.read(reading, 4096)
        self._reap()

    def _reap(self) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            if pid in self._starting:
                self._on_runc_end(self._starting.pop(pid), status)
            elif pid in self._by_pid:
                self._on_end(self._by_pid.pop(pid), processes.exit_code(status))
            elif self._starting:
                self._early_ends[pid] = status

    # starting

    def _start_queued(self) -> None:
        while self._queue and len(self._starting) < self._most_starting:
            kept = self._queue.popleft()
            try:
                self._starting[kept.start_runc()] = kept
            except OSError as error:
                self._fail(kept, f"cannot start runc: {error}")

    def _on_runc_end(self, kept: KeptContainer | KeptExec, status: int) -> None:
        directory = kept.directory if isinstance(kept, KeptExec) else kept.bundle
        pid = processes.read_pid(f"{directory}/pid")
        if os.waitstatus_to_exitcode(status) != 0 or pid == 0:
            reason = processes.runc_error(f"{directory}/runc.log")
            self._fail(kept, reason or f"runc ended with wait status {status} and said nothing")
            return
        if isinstance(kept, KeptExec):
            self._take_over_exec(kept, pid)
        else:
            self._take_over_started(kept, pid)
        if pid in self._early_ends:
            self._by_pid.pop(pid, None)
            self._on_end(kept, processes.exit_code(self._early_ends.pop(pid)))
        if not self._starting:
            self._early_ends.clear()

    def _take_over_started(self, container: KeptContainer, pid: int) -> None:
        try:
            container.take_terminal()
        except OSError as error:
            sys.stderr.write(f"keeper: no terminal came for {container.id}: {error}\n")
        container.pid, container.started = pid, processes.start_time(pid)
        container.started_at_ns = time.time_ns()
        container.save()
        self._take_over(container)

    def _take_over_exec(self, command: KeptExec, pid: int) -> None:
        command.pid = pid
        self._by_pid[pid] = command
        self._answer_all(command, {"pid": pid})

    def _take_over(self, container: KeptContainer) -> None:
        """Watch a container that runs, and tell who asked for its start."""
        container.pidfd = processes.open_pidfd(container.pid, container.started)
        self._by_pid[container.pid] = container
        # before a byte of its output is taken
        for descriptor, message in self._expecting.pop(container.id, {}).items():
            self._begin_listening(container, descriptor, message)
        for stream in container.streams:
            self._watch_stream(stream)
        self._answer(container, {"pid": container.pid, "started_at_ns": container.started_at_ns})

    def _fail(self, kept: KeptContainer | KeptExec, reason: str) -> None:
        if isinstance(kept, KeptExec):
            self._execs.pop(kept.id, None)
            self._answer_all(kept, {"error": reason})
        else:
            self._fail_start(kept, reason)

    def _fail_start(self, container: KeptContainer, reason: str) -> None:
        self._containers.pop(container.id, None)
        container.close()
        for descriptor in list(self._expecting.pop(container.id, {})):
            self._drop(descriptor)
        with contextlib.suppress(FileNotFoundError):
            os.unlink(f"{container.directory}/{RUNNING_FILE}")  # noqa: PTH108 - pathlib is a large import
        self._answer(container, {"error": reason})

    def _end_slow_starts(self) -> None:
        now = time.monotonic()
        for pid, kept in self._starting.items():
            if kept.deadline < now:
                sys.stderr.write(f"keeper: runc has not started {kept.id} in time, killing it\n")
                os.kill(pid, signal.SIGKILL)
                kept.deadline = now + _IDLE_SECONDS

    def _answer(self, container: KeptContainer, answer: dict[str, Any]) -> None:
        if not container.waiting:
            # who asked has gone; another engine may be there that found the start under way
            event = "start-failed" if "error" in answer else "started"
            self._tell({**answer, "event": event, "id": container.id})
        self._answer_all(container, answer)

    def _answer_all(self, kept: KeptContainer | KeptExec, answer: dict[str, Any]) -> None:
        for descriptor, seq in kept.waiting:
            self._send(descriptor, {**answer, "seq": seq})
        kept.waiting.clear()

    def _tell(self, event: dict[str, Any]) -> None:
        for descriptor in list(self._clients):
            self._send(descriptor, event)

    # output and ends

    def _watch_stream(self, stream: FifoStream | TerminalStream) -> None:
        # edge-triggered: what has no newline yet stays in the FIFO and must not wake us again
        self._watch(stream.descriptor, select.EPOLLIN | select.EPOLLET, lambda _: self._serve_stream(stream))
        self._eager.append(stream)

    def _serve_stream(self, stream: FifoStream | TerminalStream) -> None:
        if stream.descriptor not in self._handlers or stream.audience.is_full:
            return  # who listens says when there is room again
        if stream.turn() and stream not in self._eager:
            self._eager.append(stream)

    def _on_end(self, kept: KeptContainer | KeptExec, code: int) -> None:
        if isinstance(kept, KeptExec):
            self._execs.pop(kept.id, None)
            self._tell({"event": "exec-exit", "id": kept.id, "code": code})
        else:
            self._on_container_end(kept, code)

    def _on_container_end(self, container: KeptContainer, code: int | None) -> None:
        self._by_pid.pop(container.pid, None)
        self._containers.pop(container.id, None)
        for stream in container.streams:
            self._unwatch(stream.descriptor)
            with contextlib.suppress(ValueError):
                self._eager.remove(stream)
        if container.pidfd >= 0:
            self._unwatch(container.pidfd)
        content = container.finish(code)
        self._tell({"event": "exit", "id": container.id, **content})

    # taking over what an earlier keeper left

    def _adopt_all(self) -> None:
        boot = processes.boot_id()
        for name in sorted(os.listdir(self._containers_directory)):  # noqa: PTH208
            directory = f"{self._containers_directory}/{name}"
            saved = processes.read_json(f"{directory}/{RUNNING_FILE}")
            if saved.get("boot") != boot or os.path.exists(f"{directory}/{EXIT_FILE}"):  # noqa: PTH110
                continue
            container = KeptContainer(saved["request"], self._scratch)
            container.restore(saved)
            self._containers[container.id] = container
            try:
                container.open_streams()
            except OSError as error:
                sys.stderr.write(f"keeper: the output of {container.id} cannot be read: {error}\n")
            if container.is_running:
                self._adopt(container)
            else:
                self._adopt_starting(container)

    def _adopt(self, container: KeptContainer) -> None:
        self._take_over(container)
        if container.pidfd < 0:
            self._on_container_end(container, None)
        else:
            self._watch(container.pidfd, select.EPOLLIN, lambda _: self._on_container_end(container, None))

    def _adopt_starting(self, container: KeptContainer) -> None:
        """The last keeper died while runc was at work: wait for runc to end, then see what came of it."""
        runc = processes.open_pidfd(container.runc_pid, container.runc_started)
        if runc < 0:
            self._judge_start(container)
            return
        container.pidfd = runc
        self._watch(runc, select.EPOLLIN, lambda _: self._judge_start(container))

    def _judge_start(self, container: KeptContainer) -> None:
        if container.pidfd >= 0:
            self._unwatch(container.pidfd)
            os.close(container.pidfd)
            container.pidfd = -1
        pid = processes.read_pid(f"{container.bundle}/pid")
        started = processes.start_time(pid) if pid else 0
        if not started or processes.runc_error(f"{container.bundle}/runc.log"):
            self._fail_start(container, "the keeper was killed while the container was starting")
            return
        container.pid, container.started, container.started_at_ns = pid, started, time.time_ns()
        container.save()
        self._adopt(container)

    # engines

    def _listen(self) -> None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(self._socket_path)  # noqa: PTH108
        listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        listener.bind(self._socket_path)
        os.chmod(self._socket_path, 0o600)  # noqa: PTH101
        listener.listen(8)
        listener.setblocking(False)
        self._watch(listener.fileno(), select.EPOLLIN, lambda _: self._accept(listener))

    def _accept(self, listener: socket.socket) -> None:
        try:
            connection, _ = listener.accept()
        except BlockingIOError:
            return
        descriptor = connection.fileno()
        self._clients[descriptor] = _Client(connection)
        self._watch(descriptor, select.EPOLLIN, lambda events: self._on_client(descriptor, events))
        running = {container.id: container.pid for container in self._containers.values()}
        self._send(
            descriptor,
            {
                "event": "hello",
                "protocol": wire.PROTOCOL,
                "pid": os.getpid(),
                "running": running,
                "execs": sorted(self._execs),
            },
        )

    def _on_client(self, descriptor: int, events: int) -> None:
        client = self._clients[descriptor]
        if events & select.EPOLLOUT:
            self._flush(descriptor, client)
        if not events & (select.EPOLLIN | select.EPOLLHUP | select.EPOLLERR) or descriptor not in self._clients:
            return
        try:
            data = client.connection.recv(1 << 16)
            messages = client.decoder.feed(data)
        except BlockingIOError:
            return
        except (OSError, ValueError) as error:
            sys.stderr.write(f"keeper: dropping an engine: {error}\n")
            self._drop(descriptor)
            return
        if not data:
            self._drop(descriptor)
            return
        for message in messages:
            if message.get("op") == "attach":
                self._on_attach(descriptor, message)
                return
            self._on_request(descriptor, message)

    def _on_request(self, descriptor: int, message: dict[str, Any]) -> None:
        operation, seq = message.get("op"), int(message.get("seq", 0))
        if operation == "run":
            self._on_run(descriptor, seq, message)
        elif operation == "exec":
            command = self._execs[message["id"]] = KeptExec(message)
            command.waiting.append((descriptor, seq))
            self._queue.append(command)
        elif operation == "resize":
            self._send(descriptor, {"seq": seq, **self._resize(message)})
        elif operation == "expect-none":
            for waiting in list(self._expecting.pop(str(message.get("id")), {})):
                self._drop(waiting)
            self._send(descriptor, {"seq": seq})
        elif operation == "close-stdin":
            if (kept := self._containers.get(str(message.get("id")))) is not None:
                kept.close_stdin()
            self._send(descriptor, {"seq": seq})
        elif operation == "kill":
            container = self._containers.get(str(message.get("id")))
            sent = container is not None and container.is_running and container.send_signal(int(message["signal"]))
            self._send(descriptor, {"seq": seq, "sent": sent})
        elif operation == "shutdown":
            busy = len(self._containers)
            self._stopping = busy == 0
            self._send(descriptor, {"seq": seq, "running": busy})
        else:
            self._send(descriptor, {"seq": seq, "error": f"unknown operation {operation!r}"})

    def _resize(self, message: dict[str, Any]) -> dict[str, Any]:
        container = self._containers.get(str(message.get("id")))
        try:
            return {"resized": container is not None and container.resize(message["height"], message["width"])}
        except (OSError, OverflowError) as error:
            return {"error": str(error)}

    def _on_attach(self, descriptor: int, message: dict[str, Any]) -> None:
        """Make this connection a listener: an answer, with the terminal's master if there is one, then output.

        With `wait` one of a container that does not run is told to wait, and answered again when it is started.
        """
        container_id, seq = str(message.get("id")), int(message.get("seq", 0))
        container = self._containers.get(container_id)
        if container is not None and container.is_running:
            self._begin_listening(container, descriptor, message)
        elif message.get("wait"):
            self._expecting.setdefault(container_id, {})[descriptor] = message
            self._send(descriptor, {"seq": seq, "waits": True, "at_ns": time.time_ns()})
        else:
            self._send(descriptor, {"seq": seq, "error": "it does not run"})

    def _begin_listening(self, container: KeptContainer, descriptor: int, message: dict[str, Any]) -> None:
        client = self._clients[descriptor]
        seq = int(message.get("seq", 0))
        answer = wire.encode({"seq": seq, "at_ns": time.time_ns()})
        terminal = container.terminal
        try:
            # the connection is fresh, and a socket's buffer holds more than this
            socket.send_fds(
                client.connection, [bytes(client.backlog) + answer], [terminal.descriptor] if terminal else []
            )
        except OSError as error:
            sys.stderr.write(f"keeper: dropping a listener: {error}\n")
            self._drop(descriptor)
            return
        del self._clients[descriptor]
        self._unwatch(descriptor)
        listener = Listener(
            client.connection, self._watch, self._unwatch, lambda listener: self._on_listener(container, listener)
        )
        for stream in container.streams:
            if message.get("pending") and (pending := stream.pending()):
                listener.send(frame(stream.name, pending))
        container.audience.add(listener)

    def _on_listener(self, container: KeptContainer, listener: Listener) -> None:
        """A listener has room again or has gone: go on where its container's output was held up."""
        if listener.is_gone:
            container.audience.forget(listener)
        for stream in container.streams:
            if stream.descriptor in self._handlers and stream not in self._eager:
                self._eager.append(stream)

    def _on_run(self, descriptor: int, seq: int, message: dict[str, Any]) -> None:
        """Run a container; asked again (by an engine that lost its connection), answer for the first time."""
        container = self._containers.get(message["id"])
        if container is None:
            container = KeptContainer(message, self._scratch)
            self._containers[container.id] = container
            self._queue.append(container)
        container.waiting.append((descriptor, seq))
        if container.is_running:
            self._answer(container, {"pid": container.pid, "started_at_ns": container.started_at_ns})

    def _send(self, descriptor: int, message: dict[str, Any]) -> None:
        client = self._clients.get(descriptor)
        if client is None:
            return
        client.backlog += wire.encode(message)
        if len(client.backlog) > MOST_CLIENT_BACKLOG_BYTES:
            sys.stderr.write("keeper: an engine does not read, dropping it\n")
            self._drop(descriptor)
            return
        self._flush(descriptor, client)

    def _flush(self, descriptor: int, client: _Client) -> None:
        try:
            while client.backlog:
                del client.backlog[: client.connection.send(client.backlog)]
        except BlockingIOError:
            self._epoll.modify(descriptor, select.EPOLLIN | select.EPOLLOUT)
            return
        except OSError:
            self._drop(descriptor)
            return
        self._epoll.modify(descriptor, select.EPOLLIN)

    def _drop(self, descriptor: int) -> None:
        client = self._clients.pop(descriptor, None)
        if client is not None:
            self._unwatch(descriptor)
            client.connection.close()
            for container_id, waiting in list(self._expecting.items()):
                waiting.pop(descriptor, None)
                if not waiting:
                    del self._expecting[container_id]
            every: list[KeptContainer | KeptExec] = [*self._containers.values(), *self._execs.values()]
            for kept in every:
                kept.waiting = [(other, seq) for other, seq in kept.waiting if other != descriptor]
