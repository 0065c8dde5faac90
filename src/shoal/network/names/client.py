"""The daemon's end of the line to the resolver: blocking calls for the network's worker thread.

Starts the resolver when none answers, and puts one of another version away. It remembers what it told, so that a
resolver that died is started again at once (a thread watches the line) and told everything anew.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import struct
import threading
import time
from pathlib import Path

import msgspec
import structlog

from shoal.errors import ShoalError, Unavailable
from shoal.lib.backoff import Backoff
from shoal.model.netstate import OverlayService, OverlayUpdate, SandboxRequest
from shoal.network.names import messages
from shoal.network.names.messages import Answer, Request, ServedContainer
from shoal.network.names.process import ResolverProcess

_log = structlog.get_logger(__name__)

START_SECONDS = 15.0
# the largest network is taken in a fraction of this
ANSWER_SECONDS = 10.0
TRIES = 2
HOST_RESOLVER_FILE = Path("/etc/resolv.conf")
_RETRY_SECONDS = 0.01
_MOST_SOCKET_PATH_BYTES = 107
_CREDENTIALS = struct.Struct("=iII")
_POLL_HANGUP = select.POLLRDHUP | select.POLLHUP | select.POLLERR


class _Told:
    """What the resolver was told of one network."""

    def __init__(self) -> None:
        self._services: dict[str, OverlayService] = {}

    def update(self, update: OverlayUpdate) -> None:
        self._overlay = update.overlay
        if update.complete:
            self._services.clear()
        for service_id in update.removed_service_ids:
            self._services.pop(service_id, None)
        self._services.update((service.service_id, service) for service in update.services)

    def whole(self) -> OverlayUpdate:
        return OverlayUpdate(overlay=self._overlay, complete=True, services=tuple(self._services.values()))


class ResolverClient:
    """See the module; safe to call from several threads, one call after another.

    Args:
        exec_root: where the resolver's socket and records lie.
        name: the resolver's cgroup.
        host_resolver_file: the host's resolv.conf.
    """

    def __init__(self, exec_root: Path, name: str, host_resolver_file: Path = HOST_RESOLVER_FILE) -> None:
        self._exec_root = exec_root.absolute()
        self._host_resolver_file = host_resolver_file
        self._socket_path = self._exec_root / messages.SOCKET_FILE
        if len(os.fsencode(self._socket_path)) > _MOST_SOCKET_PATH_BYTES:
            raise ShoalError(f"exec root {exec_root}: too long a path for a socket in it; choose a shorter one")
        self._lock = threading.RLock()
        self._channel: socket.socket | None = None
        self._process = ResolverProcess(self._exec_root, name, host_resolver_file)
        self._networks: dict[str, _Told] = {}
        self._containers: dict[str, ServedContainer] = {}
        self._watcher: threading.Thread | None = None
        self._closing = threading.Event()
        # written to when the line is another one, or none is wanted any more
        self._wake_reader = self._wake_writer = -1

    # -- life

    def start(self) -> None:
        """Take up a resolver that runs. Where none does, the first container starts one. Raises Unavailable."""
        if self._socket_path.exists():
            self.look()

    def _begin(self) -> None:
        if self._watcher is None:
            self._closing.clear()
            self._wake_reader, self._wake_writer = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
            self._watcher = threading.Thread(target=self._watch, name="resolver-watch", daemon=True)
            self._watcher.start()

    def close(self, remove: bool) -> None:
        """Let go of the resolver, which goes on; `remove`: end it, and take away what it kept."""
        with self._lock:
            self._closing.set()
            watcher, self._watcher = self._watcher, None
            self._wake()
        if watcher is not None:
            watcher.join()
        with self._lock:
            if remove:
                self._stop_resolver()
            self._disconnect()
            for descriptor in (self._wake_reader, self._wake_writer):
                if descriptor >= 0:
                    os.close(descriptor)
            self._wake_reader = self._wake_writer = -1

    # -- what there is

    def set_network(self, update: OverlayUpdate) -> None:
        """Take a change of an overlay network, the first one complete; a resolver that is away hears of it later."""
        with self._lock:
            self._networks.setdefault(update.overlay.network_id, _Told()).update(update)
            self._tell(messages.UpdateNetwork(update=update))

    def remove_network(self, network_id: str) -> None:
        """Forget a network."""
        with self._lock:
            self._networks.pop(network_id, None)
            self._tell(messages.RemoveNetwork(network_id=network_id))

    def add_container(self, request: SandboxRequest, namespace: Path) -> None:
        """Serve a container, or serve it otherwise: when this returns its questions are answered.

        Raises:
            Unavailable: they are not.
        """
        container = ServedContainer(
            task_id=request.task_id,
            namespace=str(namespace),
            network_ids=tuple(link.network_id for link in request.overlays),
            name_servers=request.name_servers,
            asks_host=request.outside,
        )
        with self._lock:
            self._begin()
            self._containers[container.task_id] = container
            try:
                self._ask(messages.AddContainer(container=container))
            except Unavailable:
                del self._containers[container.task_id]
                raise

    def remove_container(self, task_id: str) -> None:
        """Serve a container no more: before its namespace is taken away, which an open socket would keep alive."""
        with self._lock:
            self._containers.pop(task_id, None)
            self._tell(messages.RemoveContainer(task_id=task_id))

    def look(self) -> Answer:
        """Return who answers and what it serves, starting it if need be. Raises Unavailable."""
        with self._lock:
            self._begin()
            return self._ask(messages.Look())

    # -- the line

    def _tell(self, request: Request) -> None:
        """Say what is remembered here as well: what does not arrive is said to the next resolver."""
        if self._watcher is None:
            return
        try:
            self._ask(request)
        except Unavailable as error:
            _log.warning("the resolver could not be told", request=type(request).__name__, reason=error.message)

    def _ask(self, request: Request) -> Answer:
        """Ask and return the answer; a resolver that dies meanwhile is followed by another. Raises Unavailable."""
        reason = ""
        for _ in range(TRIES):
            try:
                if self._channel is None:
                    self._connect(time.monotonic() + START_SECONDS)
                answer = self._exchange(request)
            except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
                if isinstance(error, TimeoutError):
                    self._kill_silent()
                self._disconnect()
                reason = str(error) or type(error).__name__
                continue
            if answer.error:
                raise Unavailable(f"the resolver refuses: {answer.error}")
            return answer
        raise Unavailable(f"the resolver does not answer ({reason}); see {self._exec_root / messages.LOG_FILE}")

    def _exchange(self, request: Request) -> Answer:
        channel = self._channel
        assert channel is not None, "connected by the caller"
        channel.sendall(messages.encode(request))
        length = messages.body_length(self._receive(channel, messages.HEADER_BYTES))
        return messages.decode_answer(self._receive(channel, length))

    def _receive(self, channel: socket.socket, count: int) -> bytes:
        found = b""
        while len(found) < count:
            data = channel.recv(count - len(found))
            if not data:
                raise EOFError("the resolver hung up")
            found += data
        return found

    def _kill_silent(self) -> None:
        """End a resolver that listens but does not answer: it hangs, and the containers get no answers either."""
        if self._channel is not None:
            credentials = self._channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, _CREDENTIALS.size)
            pid, _, _ = _CREDENTIALS.unpack(credentials)
            _log.warning("the resolver is silent: it is killed", pid=pid)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)

    def _disconnect(self) -> None:
        if self._channel is not None:
            self._channel.close()
            self._channel = None

    def _connect(self, deadline: float) -> None:
        """Reach a resolver of this version and say all to it. Raises OSError and EOFError when the deadline passes."""
        spawned = False
        wanted = messages.identity(str(self._host_resolver_file))
        while True:
            try:
                self._channel = self._dial()
                found = self._exchange(messages.Look())
                # one of our making is taken as it is: the program on the disk may have changed since we started
                if found.identity == wanted or found.pid == self._process.pid:
                    break
                if not spawned:
                    _log.info("the resolver is of another version: it is replaced", pid=found.pid)
            except (OSError, EOFError, ValueError, msgspec.MsgspecError) as error:
                if isinstance(error, TimeoutError):
                    self._kill_silent()
                if time.monotonic() > deadline:
                    raise
            self._disconnect()
            if time.monotonic() > deadline:
                raise OSError("the resolver is of another version, and cannot be replaced")
            if not spawned or self._process.has_ended():
                self._process.spawn()
                spawned = True
            # nothing tells when it listens
            time.sleep(_RETRY_SECONDS)
        self._tell_everything()
        self._wake()

    def _tell_everything(self) -> None:
        for told in self._networks.values():
            self._exchange(messages.UpdateNetwork(update=told.whole()))
        for container in self._containers.values():
            answer = self._exchange(messages.AddContainer(container=container))
            if answer.error:
                _log.warning("a container is served no more", task=container.task_id, reason=answer.error)

    def _dial(self) -> socket.socket:
        channel = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        try:
            channel.settimeout(ANSWER_SECONDS)
            channel.connect(str(self._socket_path))
        except OSError:
            channel.close()
            raise
        return channel

    def _stop_resolver(self) -> None:
        """End whoever serves this exec root, and take its files away."""
        with contextlib.suppress(OSError, EOFError, ValueError, msgspec.MsgspecError):
            if self._channel is None:
                self._channel = self._dial()
            self._exchange(messages.Stop(forgets=True))
        self._networks.clear()
        self._containers.clear()
        self._process.wait_for_end(START_SECONDS)

    # -- the watcher's thread

    def _wake(self) -> None:
        if self._wake_writer >= 0:
            with contextlib.suppress(BlockingIOError):
                os.write(self._wake_writer, b"!")

    def _watch(self) -> None:
        """Start the resolver again when it dies, also while nothing is asked of it."""
        backoff = Backoff(first_seconds=0.05, most_seconds=5.0)
        while True:
            with self._lock:
                if self._closing.is_set():
                    return
                watched = os.dup(self._channel.fileno()) if self._channel is not None else -1
            try:
                hung_up = self._wait(watched, None if watched >= 0 else backoff.next_delay_seconds())
            finally:
                if watched >= 0:
                    os.close(watched)
            if not hung_up and watched >= 0:
                continue
            with self._lock:
                if self._closing.is_set():
                    return
                self._revive(backoff)

    def _revive(self, backoff: Backoff) -> None:
        self._process.has_ended()
        try:
            answer = self._ask(messages.Look())
        except Unavailable as error:
            _log.warning("the resolver does not come back", reason=error.message)
        else:
            backoff.reset()
            _log.info("the resolver is there", pid=answer.pid, containers=len(answer.containers))

    def _wait(self, watched: int, seconds: float | None) -> bool:
        """Wait until the line hangs up (True), this thread is woken, or the time is over."""
        poll = select.poll()
        poll.register(self._wake_reader, select.POLLIN)
        if watched >= 0:
            poll.register(watched, _POLL_HANGUP)
        ready = dict(poll.poll(None if seconds is None else seconds * 1000))
        if self._wake_reader in ready:
            with contextlib.suppress(BlockingIOError):
                while os.read(self._wake_reader, 1024):
                    pass
        return watched in ready
