"""The engine's end of the line to the keeper: starts it when none answers, connects again when it dies.

A request that was under way when the keeper died is sent again to the next one; the keeper answers a repeated `run`
for the first. Knows frames, not containers.
"""

from __future__ import annotations

import asyncio
import contextlib
import fcntl
import os
import socket
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import structlog

import shoal
from shoal.engine.keeper import wire
from shoal.engine.keeper_listener import KeeperListener
from shoal.errors import ShoalError, Unavailable
from shoal.lib.backoff import Backoff

_log = structlog.get_logger(__name__)

CONNECT_SECONDS = 15.0
REQUEST_SECONDS = 120.0
_RETRY_SECONDS = 0.01
_MOST_SOCKET_PATH_BYTES = 107

OnEvent = Callable[[dict[str, Any]], None]
OnHello = Callable[[dict[str, Any]], None]


class KeeperClient:
    """See the module.

    Args:
        exec_root: where the keeper's socket lies.
        data_root: whose `containers` the keeper serves.
        name: the keeper's cgroup.
        on_event: called with each event (exit, started, start-failed), after what it says is on disk.
        on_hello: called after each connection with `running` (ids that run or start, and their pids) and `execs` (ids).
    """

    def __init__(self, exec_root: Path, data_root: Path, name: str, on_event: OnEvent, on_hello: OnHello) -> None:
        self._exec_root = exec_root
        self._data_root = data_root
        self._name = name
        self._socket = exec_root / "keeper.sock"
        if len(os.fsencode(self._socket)) > _MOST_SOCKET_PATH_BYTES:
            raise ShoalError(f"exec root {exec_root}: too long a path for a socket in it; choose a shorter one")
        self._on_event = on_event
        self._on_hello = on_hello
        self._next_seq = 1
        self._pending: dict[int, tuple[dict[str, Any], asyncio.Future[dict[str, Any]]]] = {}
        self._once: set[int] = set()  # requests that are not sent twice
        self._writer: asyncio.StreamWriter | None = None
        self._connected = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._child_pid = 0
        self.pid = 0

    async def start_up(self) -> None:
        """Connect, starting the keeper if need be. Raises Unavailable if it does not come."""
        self._task = asyncio.create_task(self._serve_forever(), name="keeper-client")
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await self._connected.wait()
        except TimeoutError:
            await self.close()
            raise Unavailable(f"the keeper does not start; see {self._exec_root / 'keeper.log'}") from None

    async def close(self) -> None:
        """Disconnect; the keeper and the containers go on."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        for _, future in self._pending.values():
            future.cancel()
        self._pending.clear()

    async def request(self, operation: str, *, repeat: bool = True, **fields: Any) -> dict[str, Any]:
        """Ask the keeper and return its answer.

        Args:
            operation: what to do.
            repeat: whether the next keeper is asked again if this one dies; else that raises Unavailable.
            fields: the rest of the request.

        Raises:
            Unavailable: no answer within `REQUEST_SECONDS`.
        """
        seq = self._next_seq
        self._next_seq += 1
        message = {"seq": seq, "op": operation, **fields}
        future: asyncio.Future[dict[str, Any]] = asyncio.get_running_loop().create_future()
        self._pending[seq] = (message, future)
        if not repeat:
            self._once.add(seq)
        try:
            if self._writer is not None:
                self._writer.write(wire.encode(message))
            async with asyncio.timeout(REQUEST_SECONDS):
                return await future
        except TimeoutError:
            raise Unavailable(f"the keeper did not answer {operation} within {REQUEST_SECONDS:g} seconds") from None
        finally:
            self._pending.pop(seq, None)
            self._once.discard(seq)

    async def listen(self, container_id: str, pending: bool, wait: bool = False) -> KeeperListener:
        """Hear what a container says from now on.

        Args:
            container_id: full id of a container that runs.
            pending: first what it has said and no log holds: the beginning of a line.
            wait: if it does not run, from its next start on.

        Raises:
            Unavailable: the keeper does not answer, or knows of no such run.
        """
        connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        listener = KeeperListener(connection)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                await asyncio.get_running_loop().sock_connect(connection, str(self._socket))
                await listener.begin({"seq": 1, "op": "attach", "id": container_id, "pending": pending, "wait": wait})
        except (OSError, EOFError, ValueError, TimeoutError) as error:
            listener.close()
            raise Unavailable(f"cannot attach to container {container_id}: {error or type(error).__name__}") from None
        except BaseException:
            listener.close()
            raise
        return listener

    async def stop_keeper(self) -> bool:
        """End the keeper if it has no containers; return whether it ended."""
        answer = await self.request("shutdown")
        if answer.get("running"):
            return False
        await self.close()
        await asyncio.to_thread(self._wait_for_end)
        return True

    async def _serve_forever(self) -> None:
        backoff = Backoff(first_seconds=0.05, most_seconds=2.0)
        while True:
            try:
                reader, writer = await self._connect()
                backoff.reset()
                await self._serve(reader, writer)
            except (OSError, asyncio.IncompleteReadError, Unavailable, ValueError) as error:
                _log.warning("lost the keeper, connecting again", reason=str(error) or type(error).__name__)
            await asyncio.sleep(backoff.next_delay_seconds())

    async def _connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + CONNECT_SECONDS
        started = False
        while True:
            try:
                return await asyncio.open_unix_connection(self._socket)
            except OSError as error:
                if loop.time() > deadline:
                    raise Unavailable(f"the keeper does not listen on {self._socket}: {error}") from None
            if not started or self._reap():
                await asyncio.to_thread(self._spawn)
                started = True
            await asyncio.sleep(_RETRY_SECONDS)

    def _spawn(self) -> None:
        arguments = [sys.executable, "-m", "shoal.engine.keeper", "--exec-root", str(self._exec_root)]
        arguments += ["--data-root", str(self._data_root), "--name", self._name]
        source = str(Path(shoal.__file__).parent.parent)
        environment = {**os.environ, "PYTHONPATH": source, "PYTHONUNBUFFERED": "1"}
        flags = os.O_WRONLY | os.O_CREAT | os.O_APPEND
        # a session of its own: a signal to the daemon's terminal or group does not reach it
        self._child_pid = os.posix_spawn(
            sys.executable,
            arguments,
            environment,
            file_actions=[
                (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                (os.POSIX_SPAWN_OPEN, 1, str(self._exec_root / "keeper.log"), flags, 0o600),
                (os.POSIX_SPAWN_DUP2, 1, 2),
            ],
            setsid=True,
        )
        _log.info("keeper started, as none answered", pid=self._child_pid)

    def _reap(self, options: int = os.WNOHANG) -> bool:
        """Whether no keeper of our making lives; one that has ended must not stay a zombie."""
        if self._child_pid:
            try:
                ended, _ = os.waitpid(self._child_pid, options)
            except ChildProcessError:
                ended = self._child_pid
            self._child_pid = 0 if ended else self._child_pid
        return self._child_pid == 0

    def _wait_for_end(self) -> None:
        """Wait until the keeper has ended: it holds a lock for life."""
        deadline = time.monotonic() + CONNECT_SECONDS
        with (self._exec_root / "keeper.lock").open("rb") as lock:
            while time.monotonic() < deadline:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                except BlockingIOError:
                    time.sleep(_RETRY_SECONDS)
                else:
                    break
        self._reap(0)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._writer = writer
        try:
            for message, _ in list(self._pending.values()):
                writer.write(wire.encode(message))
            decoder = wire.Decoder()
            while data := await reader.read(1 << 16):
                for message in decoder.feed(data):
                    self._on_message(message)
            raise ConnectionResetError("the keeper has gone")
        finally:
            self._writer = None
            self.pid = 0
            for seq in self._once:
                future = self._pending[seq][1]
                if not future.done():
                    future.set_exception(Unavailable("the keeper died while it was at this; try again"))
            writer.close()
            with contextlib.suppress(OSError):
                await writer.wait_closed()

    def _on_message(self, message: dict[str, Any]) -> None:
        event = message.get("event")
        if event == "hello":
            self.pid = int(message["pid"])
            if not _shares_mounts(self.pid):
                _log.error(
                    "the keeper lives in another mount namespace and will not see this daemon's mounts",
                    keeper_pid=self.pid,
                    remedy="run the daemon in the mount namespace of its first start: nsenter --net, not ip netns exec",
                )
            self._on_hello(message)
            self._connected.set()
        elif event is not None:
            self._on_event(message)
        else:
            entry = self._pending.get(int(message.get("seq", 0)))
            if entry is not None and not entry[1].done():
                entry[1].set_result(message)


def _shares_mounts(pid: int) -> bool:
    try:
        return os.stat(f"/proc/{pid}/ns/mnt").st_ino == os.stat("/proc/self/ns/mnt").st_ino  # noqa: PTH116
    except OSError:
        return True  # gone: the loss of the connection says so
