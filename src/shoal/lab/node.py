"""One node of a lab as a host: its power, its daemon, its cable, and commands that run on it. Blocking.

What is remembered of it (role, address, process) stands in the lab's state file and is read anew each time, so that
several programs may work on one lab. Must not know of the other nodes.
"""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import shoal
from shoal.client.connection import Answer, Client, NoDaemon
from shoal.errors import Conflict, ShoalError
from shoal.lab import kernel, processes
from shoal.lab.plan import LabState, NodeRecord, Process
from shoal.lab.state import StateFile
from shoal.model.base import replace
from shoal.network.settings import names_of
from shoal.network.wireguard import control_socket

START_SECONDS = 60.0
STOP_SECONDS = 60.0
COMMAND_SECONDS = 120.0
PING_SECONDS = 5.0
REQUEST_SECONDS = 60.0
LAST_WORDS_LINES = 12
SOURCE = Path(shoal.__file__).resolve().parents[1]
# what would lead the docker command elsewhere than DOCKER_HOST says, or with another protocol
FOREIGN_VARIABLES = ("DOCKER_CONTEXT", "DOCKER_TLS_VERIFY", "DOCKER_CERT_PATH", "DOCKER_API_VERSION")


class LabNode:
    """A node.

    Args:
        file: the lab's state.
        name: of the node.
    """

    def __init__(self, file: StateFile, name: str) -> None:
        self.name = name
        self._file = file
        self._state = file.read()
        record = self._state.find(name)
        self.role = record.role
        self.address = self._state.address(record)
        self.root = Path(self._state.scratch) / name
        self.data_root = self.root / "data"
        self.exec_root = self.root / "run"
        self.log_path = self.root / "shoald.log"
        self.socket_path = self.exec_root / "shoal.sock"
        self.namespace = kernel.namespace_path(file.name, name)
        self.uts = file.directory / f"{name}.uts"
        self._host = processes.Host(file.name, name, self.root, self.uts)

    # what it is

    @property
    def host(self) -> str:
        """What DOCKER_HOST is set to."""
        return f"unix://{self.socket_path}"

    @property
    def client(self) -> Client:
        """A client of its API."""
        return Client(self.host)

    @property
    def daemon(self) -> Process | None:
        """Its shoald, None if that does not run."""
        recorded = self._file.read().find(self.name).daemon
        if processes.is_running(recorded):
            return recorded
        # one that was started by a program which ended before it could say so
        return self._host.find_daemon()

    @property
    def pid(self) -> int:
        """The number of its shoald.

        Raises:
            Conflict: that does not run.
        """
        return self._demand_daemon().pid

    @property
    def state(self) -> str:
        """What one sees of it: off, stopped, crashed, frozen or running."""
        daemon = self.daemon
        if daemon is not None:
            return "frozen" if processes.is_frozen(daemon) else "running"
        if not self.namespace.exists():
            return "off"
        return "crashed" if self._file.read().find(self.name).daemon is not None else "stopped"

    def log(self) -> str:
        """Return what its daemon has logged."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    # what can be done to it

    def start(self) -> None:
        """Give the host power if it has none, start its daemon, and wait until that answers; if it does, that is all.

        Raises:
            ShoalError: the daemon ends or does not answer; with its last words.
        """
        with self._file.lock():
            process = self.launch()
        self.wait_until_up(process)

    def restart(self) -> None:
        """Stop its shoald if it runs, and start it. Raises as `stop` and `start` do."""
        if self.daemon is not None:
            self.stop()
        self.start()

    def launch(self, note: Callable[[Process], None] | None = None) -> Process:
        """Start the host and its daemon and wait for nothing; the caller holds the lock.

        Args:
            note: called with the process instead of writing it to the state.
        """
        daemon = self.daemon
        if daemon is not None:
            return daemon
        for directory in (self.data_root, self.exec_root):
            directory.mkdir(parents=True, exist_ok=True)
        kernel.make_host(self._file.name, self.name, self.address, self.uts)
        state = self._file.read()
        roots = ["--data-root", str(self.data_root), "--exec-root", str(self.exec_root)]
        images = ["--image-root", str(Path(state.scratch) / "images")]
        command = [*self._enter(), sys.executable, "-m", "shoal.daemon.main", *roots, *images, *state.flags]
        # no registry is asked for an image that is here: a lab has no way to one
        environment = {**python_environment(), "DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1", **state.environment}
        process = processes.spawn(command, self.log_path, environment)
        (note or self._note)(process)
        return process

    def wait_until_up(self, process: Process) -> None:
        """Wait until the daemon answers.

        Raises:
            ShoalError: it ends, or not in time; with its last words.
        """

        def has_settled() -> bool:
            return self.answers() or not processes.is_running(process)

        settled = processes.wait_until(has_settled, START_SECONDS)
        if not settled or not processes.is_running(process):
            words = "\n".join(self.log().splitlines()[-LAST_WORDS_LINES:])
            what = "has ended" if settled else f"does not answer in {START_SECONDS:.0f} s"
            raise ShoalError(f"shoald of {self.name} {what}; its log ({self.log_path}) ends with\n{words}")

    def answers(self) -> bool:
        """Whether its API answers."""
        try:
            return self.client.request("GET", "/_ping", timeout_seconds=PING_SECONDS).status == 200
        except NoDaemon:
            return False

    def kill(self) -> None:
        """Cut the power of the whole host: its cable first, so that nobody hears a farewell, then all else.

        What is on its disk stays; what belongs to memory (sockets, namespaces, mounts, cgroups) is gone.
        """
        with self._file.lock():
            self.cut_power()
            self._note(None)

    def cut_power(self) -> None:
        """Do what `kill` does and write nothing to the state; the caller holds the lock."""
        kernel.unplug(self._file.name, self.name)
        identity = self.data_root / "daemon-id"
        daemon_id = identity.read_text().strip() if identity.exists() else ""
        self._host.kill(daemon_id)
        kernel.unmount_under(self.root)
        kernel.remove_host(self._file.name, self.name, self.uts)
        if daemon_id:
            kernel.remove_cgroups(daemon_id)
            # its program was killed and could not
            control_socket(names_of(daemon_id).secret_link).unlink(missing_ok=True)
        shutil.rmtree(self.exec_root, ignore_errors=True)

    def kill_daemon(self) -> None:
        """SIGKILL its shoald only: containers, keeper and the kernel's balancing go on.

        Raises:
            Conflict: it does not run.
        """
        self._end_daemon(signal.SIGKILL)

    def stop(self) -> None:
        """SIGTERM its shoald and wait for its end; containers go on.

        Raises:
            Conflict: it does not run, or is frozen.
            ShoalError: it does not end.
        """
        daemon = self._demand_daemon()
        if processes.is_frozen(daemon):
            raise Conflict(f"shoald of {self.name} is frozen and cannot stop: `shoal lab thaw {self.name}` first")
        self._end_daemon(signal.SIGTERM)

    def _end_daemon(self, number: signal.Signals) -> None:
        with self._file.lock():
            daemon = self._demand_daemon()
            processes.send(daemon, number)
            if not processes.wait_for_end(daemon, STOP_SECONDS):
                raise ShoalError(f"shoald of {self.name} has not ended in {STOP_SECONDS:.0f} s; see {self.log_path}")
            self._note(None)

    def freeze(self) -> None:
        """SIGSTOP its shoald: it keeps its connections and says nothing.

        Raises:
            Conflict: it does not run.
        """
        processes.send(self._demand_daemon(), signal.SIGSTOP)

    def thaw(self) -> None:
        """SIGCONT its shoald.

        Raises:
            Conflict: it does not run.
        """
        processes.send(self._demand_daemon(), signal.SIGCONT)

    def erase(self) -> None:
        """Remove its data; its power is off."""
        shutil.rmtree(self.root, ignore_errors=True)

    # commands on it

    def command_line(self, *command: str) -> list[str]:
        """Return the command line that runs a command on this node.

        Raises:
            Conflict: the host is off.
        """
        if not self.namespace.exists():
            raise Conflict(f"{self.name} is off: `shoal lab start {self.name}` first")
        return [*self._enter(), *command]

    def command_environment(self) -> dict[str, str]:
        """Return the environment of commands on this node: DOCKER_HOST is its daemon."""
        inherited = {name: value for name, value in python_environment().items() if name not in FOREIGN_VARIABLES}
        return {**inherited, "DOCKER_HOST": self.host}

    def execute(self, *command: str, check: bool = True, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run a command on this node and capture its output.

        Args:
            command: program and arguments.
            check: whether a failure is an error.
            keywords: more of `subprocess.run`.

        Raises:
            ShoalError: it failed.
        """
        given = {"env": self.command_environment(), "timeout": COMMAND_SECONDS, **keywords}
        done = subprocess.run(self.command_line(*command), capture_output=True, text=True, check=False, **given)
        if check and done.returncode:
            raise ShoalError(f"{' '.join(command)} on {self.name} gave {done.returncode}:\n{done.stdout}{done.stderr}")
        return done

    def docker(self, *arguments: str, check: bool = True, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run the stock docker command on this node. Raises as `execute` does."""
        return self.execute("docker", *arguments, check=check, **keywords)

    def shoal(self, *arguments: str, check: bool = True, **keywords: Any) -> subprocess.CompletedProcess[str]:
        """Run the shoal command on this node. Raises as `execute` does."""
        return self.execute(sys.executable, "-m", "shoal.cli.main", *arguments, check=check, **keywords)

    def ask(self, method: str, target: str, body: object = None, timeout_seconds: float = REQUEST_SECONDS) -> Answer:
        """Ask its API; a refusal is an answer, too.

        Raises:
            NoDaemon: it does not answer.
        """
        return self.client.request(method, target, body, timeout_seconds)

    def request(self, method: str, target: str, body: object = None) -> tuple[int, Any]:
        """Ask its API and return status and decoded body. Raises as `ask` does."""
        answer = self.ask(method, target, body)
        return answer.status, answer.body

    def _enter(self) -> list[str]:
        return kernel.enter(self._file.name, self.name, self.uts)

    def _demand_daemon(self) -> Process:
        daemon = self.daemon
        if daemon is None:
            raise Conflict(f"shoald of {self.name} does not run: `shoal lab start {self.name}` first")
        return daemon

    def _note(self, daemon: Process | None) -> None:
        self._file.change(lambda state: with_daemons(state, {self.name: daemon}))


def with_daemons(state: LabState, daemons: Mapping[str, Process | None]) -> LabState:
    """Return a lab's state with other processes of nodes, by name."""

    def changed(node: NodeRecord) -> NodeRecord:
        return replace(node, daemon=daemons[node.name]) if node.name in daemons else node

    return replace(state, nodes=tuple(map(changed, state.nodes)))


def python_environment() -> dict[str, str]:
    """Return our environment, in which a Python of any directory finds the same Shoal."""
    paths = [str(SOURCE), *(str(Path(path).absolute()) for path in os.environ.get("PYTHONPATH", "").split(":") if path)]
    return {**os.environ, "PYTHONPATH": ":".join(dict.fromkeys(paths))}
