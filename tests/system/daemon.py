"""A real shoald in a network namespace of its own, for tests that drive it from outside.

    with running_daemon() as daemon:
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        daemon.import_busybox()

Everything is taken away at the end, also after a failure: see `scripts/sweep`.
"""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, TypeVar

from shoal.lab.image import busybox_archive

REPOSITORY = Path(__file__).resolve().parents[2]
START_SECONDS = 30.0
STOP_SECONDS = 30.0
COMMAND_SECONDS = 90.0
POLL_SECONDS = 0.05

Result = TypeVar("Result")


def wait_for(look: Callable[[], Result | None], what: str, seconds: float = 20.0) -> Result:
    """Return the first true answer of `look`; fails with `what` and the last answer after `seconds`."""
    deadline = time.monotonic() + seconds
    while True:
        found = look()
        if found:
            return found
        if time.monotonic() > deadline:
            raise AssertionError(f"not in {seconds:.0f} s: {what}; last seen: {found!r}")
        time.sleep(POLL_SECONDS)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float) -> None:
        super().__init__("localhost", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


def write_shoal_program(directory: Path) -> Path:
    """Write a program `shoal` that runs this checkout's command; for the PATH of what a user would type."""
    program = directory / "shoal"
    program.write_text(f'#!/bin/sh\nexec {sys.executable} -m shoal.cli.main "$@"\n')
    program.chmod(0o755)
    return program


class RunningDaemon:
    """One shoald. `netns` names its network namespace, `pid` its process, `socket_path` where its API is."""

    def __init__(self, root: Path, netns: str, flags: tuple[str, ...], environment: Mapping[str, str]) -> None:
        self.root = root
        self.netns = netns
        self.data_root = root / "data"
        self.exec_root = root / "run"
        self.socket_path = self.exec_root / "shoal.sock"
        self.log_path = root / "shoald.log"
        self._flags = tuple(flag.replace("{root}", str(root)) for flag in flags)
        self._environment = environment
        self._log: IO[bytes] = self.log_path.open("ab")
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def host(self) -> str:
        """What DOCKER_HOST is set to."""
        return f"unix://{self.socket_path}"

    @property
    def pid(self) -> int:
        """The daemon's process."""
        assert self._process is not None, "the daemon does not run"
        return self._process.pid

    def start(self) -> None:
        """Start it and wait until its API answers."""
        self.spawn()
        wait_for(self._answers, f"an answer of shoald, see\n{self.log()}", START_SECONDS)

    def spawn(self) -> None:
        """Start it and wait for nothing."""
        roots = ["--data-root", str(self.data_root), "--exec-root", str(self.exec_root)]
        self._process = subprocess.Popen(
            [*self._enter(), sys.executable, "-m", "shoal.daemon.main", *roots, *self._flags],
            stdin=subprocess.DEVNULL, stdout=self._log, stderr=self._log, cwd=REPOSITORY,
            # the images of tests are made here: no registry is asked
            env={**os.environ, "PYTHONPATH": "src", "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1", **self._environment},
        )  # fmt: skip

    def _answers(self) -> bool:
        assert self._process is not None, "it was started"
        assert self._process.poll() is None, f"shoald ended with {self._process.returncode}:\n{self.log()}"
        with contextlib.suppress(OSError):
            return self.request("GET", "/_ping")[0] == 200
        return False

    def kill(self) -> None:
        """SIGKILL the daemon; containers, keeper and the kernel's balancing go on."""
        assert self._process is not None, "the daemon does not run"
        self._process.kill()
        self._process.wait(STOP_SECONDS)

    def stop(self) -> int:
        """SIGTERM the daemon and return its exit code."""
        assert self._process is not None, "the daemon does not run"
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOP_SECONDS)

    def wait_for_end(self) -> int:
        """Wait until it ends of itself, and return its exit code."""
        assert self._process is not None, "the daemon does not run"
        return self._process.wait(STOP_SECONDS)

    def restart(self) -> None:
        """Start it again on the same roots; stops it first if it runs."""
        if self._process is not None and self._process.poll() is None:
            self.stop()
        self.start()

    def log(self) -> str:
        """Return what it has logged."""
        return self.log_path.read_text(errors="replace")

    def _enter(self) -> list[str]:
        # not `ip netns exec`: its mount namespace would keep the daemon's mounts from everybody else
        return ["nsenter", f"--net=/run/netns/{self.netns}"]

    def execute(self, *command: str, check: bool = True, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run a command in the daemon's network namespace, with DOCKER_HOST set."""
        environment = {**os.environ, "DOCKER_HOST": self.host, "DOCKER_CONFIG": str(self.root / "docker")}
        done = subprocess.run(
            [*self._enter(), *command], capture_output=True, text=True, check=False, timeout=COMMAND_SECONDS,
            env={**environment, "PYTHONPATH": str(REPOSITORY / "src")}, **keywords,
        )  # fmt: skip
        if check and done.returncode:
            raise AssertionError(f"{command} ended with {done.returncode}:\n{done.stdout}{done.stderr}\n{self.log()}")
        return done

    def docker(self, *arguments: str, check: bool = True, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run the stock docker command."""
        return self.execute("docker", *arguments, check=check, **keywords)

    def shoal(self, *arguments: str, check: bool = True, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run the shoal command."""
        return self.execute(sys.executable, "-m", "shoal.cli.main", *arguments, check=check, **keywords)

    def request(self, method: str, path: str, body: Any = None, timeout: float = 30.0) -> tuple[int, Any]:
        """Ask the API; bytes are sent as a tar, all else as JSON. Returns status and decoded answer."""
        connection = _UnixConnection(str(self.socket_path), timeout)
        content = body if isinstance(body, bytes) else json.dumps(body).encode() if body is not None else None
        kind = "application/x-tar" if isinstance(body, bytes) else "application/json"
        try:
            connection.request(method, path, content, {"Content-Type": kind})
            response = connection.getresponse()
            raw = response.read()
            is_json = (response.getheader("Content-Type") or "").startswith("application/json")
            try:
                return response.status, json.loads(raw) if is_json and raw else raw.decode(errors="replace")
            except ValueError:
                # a stream of JSON objects, as of pulls and imports
                return response.status, raw.decode(errors="replace")
        finally:
            connection.close()

    def import_busybox(self, name: str = "busybox", files: Mapping[str, str] | None = None) -> None:
        """Make an image out of `busybox_archive`."""
        status, answer = self.request(
            "POST", f"/images/create?fromSrc=-&repo={name}&tag=latest", busybox_archive(files)
        )
        assert status == 200, answer

    def close(self) -> None:
        """Leave the swarm, stop the daemon, and sweep what a killed one left."""
        try:
            if self._process is not None and self._process.poll() is None:
                with contextlib.suppress(OSError, http.client.HTTPException):
                    self.request("POST", "/swarm/leave?force=1", timeout=STOP_SECONDS)
                try:
                    self.stop()
                except subprocess.TimeoutExpired:
                    self.kill()
        finally:
            self._log.close()
            self.sweep()

    def sweep(self) -> None:
        """Take away all but the directories of a daemon that was killed: its processes, mounts, namespaces, cgroups."""
        script = str(REPOSITORY / "scripts" / "sweep")
        self.execute(sys.executable, script, str(self.data_root), str(self.exec_root), check=False)


@contextlib.contextmanager
def running_daemon(*flags: str, environment: Mapping[str, str] | None = None) -> Iterator[RunningDaemon]:
    """Run a shoald in a scratch directory and a network namespace of its own, where only loopback is.

    Args:
        flags: more flags of shoald; `{root}` in them stands for its directory.
        environment: more variables of its environment.
    """
    root = Path(tempfile.mkdtemp(prefix="shoal-test-"))
    netns = f"shoal-{root.name.removeprefix('shoal-test-')}"
    subprocess.run(["ip", "netns", "add", netns], check=True)
    try:
        subprocess.run(["ip", "-n", netns, "link", "set", "lo", "up"], check=True)
        daemon = RunningDaemon(root, netns, flags, environment or {})
        try:
            daemon.start()
            yield daemon
        finally:
            daemon.close()
    finally:
        subprocess.run(["ip", "netns", "del", netns], check=True)
        shutil.rmtree(root)
