"""The engines that benchmarks compare: a shoald started here, and a real Docker Swarm when its socket is given.

Nothing here asserts; a benchmark prints.
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
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

READY_SECONDS = 20.0
STOP_SECONDS = 20.0


class Connection(http.client.HTTPConnection):
    """HTTP over a unix socket, kept open."""

    def __init__(self, path: str) -> None:
        super().__init__("localhost", timeout=120)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class Engine:
    """An engine behind a socket."""

    def __init__(self, name: str, path: str, pid: int | None = None) -> None:
        self.name = name
        self.path = path
        self.pid = pid
        self.connection = Connection(path)

    def call(self, method: str, path: str, body: Any = None, content_type: str = "application/json") -> Any:
        data = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        self.connection.request(method, path, data, {"Content-Type": content_type})
        response = self.connection.getresponse()
        content = response.read()
        if response.status >= 400:
            raise RuntimeError(f"{self.name}: {method} {path}: {response.status} {content.decode()}")
        try:
            return json.loads(content) if content else None
        except json.JSONDecodeError:
            return content

    def tasks(self, service_id: str) -> list[dict[str, Any]]:
        filters = quote(json.dumps({"service": {service_id: True}}))
        found: list[dict[str, Any]] = self.call("GET", f"/tasks?filters={filters}")
        return found

    def containers(self) -> int:
        return len(self.call("GET", "/containers/json?all=1"))

    def cpu_seconds(self) -> float:
        fields = Path(f"/proc/{self.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def memory_mb(self) -> float:
        for line in Path(f"/proc/{self.pid}/status").read_text().splitlines():
            if line.startswith("VmRSS:"):
                return int(line.split()[1]) / 1024
        return 0.0


def make_root_archive(folder: Path) -> Path:
    """Make a tar of a root filesystem from the host's static busybox."""
    root = folder / "root"
    for name in ("bin", "etc", "proc", "sys", "dev", "tmp", "www", "run", "var"):
        (root / name).mkdir(parents=True)
    busybox = root / "bin" / "busybox"
    busybox.write_bytes(Path("/bin/busybox").read_bytes())
    busybox.chmod(0o755)
    for applet in subprocess.run([busybox, "--list"], check=True, capture_output=True, text=True).stdout.split():
        if applet != "busybox":
            (root / "bin" / applet).symlink_to("busybox")
    (root / "www" / "index.html").write_text("hello\n")
    (root / "etc" / "passwd").write_text("root:x:0:0:root:/:/bin/sh\n")
    archive = folder / "root.tar"
    subprocess.run(["tar", "-C", root, "-cf", archive, "."], check=True)
    return archive


@contextlib.contextmanager
def shoal() -> Iterator[Engine]:
    """Run a shoald with a swarm of its own and busybox loaded; all of it is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as name:
        folder = Path(name)
        path = folder / "shoal.sock"
        # Sockets and bundles belong on a tmpfs, as /run is on most machines.
        exec_root = Path(tempfile.mkdtemp(prefix="shoal-bench-", dir="/dev/shm"))
        command = [sys.executable, "-m", "shoal.daemon.main", "--log-level", "warn"]
        roots = ["--data-root", str(folder / "data"), "--exec-root", str(exec_root), "-H", f"unix://{path}"]
        environment = os.environ | {"DOCKER_SERVICE_PREFER_OFFLINE_IMAGE": "1"}
        with (folder / "log").open("wb") as log:
            process = subprocess.Popen([*command, *roots], stderr=log, env=environment)
        engine = Engine("Shoal", str(path), process.pid)
        try:
            deadline = time.monotonic() + READY_SECONDS
            while not path.exists():
                if process.poll() is not None or time.monotonic() > deadline:
                    raise RuntimeError((folder / "log").read_text())
                time.sleep(0.02)
            engine.call("POST", "/swarm/init", {"ListenAddr": "127.0.0.1:2377", "AdvertiseAddr": "127.0.0.1"})
            archive = make_root_archive(folder).read_bytes()
            engine.call("POST", "/images/create?fromSrc=-&repo=busybox&tag=latest", archive, "application/x-tar")
            yield engine
        finally:
            with contextlib.suppress(Exception):
                engine.call("POST", "/swarm/leave?force=true")
            process.terminate()
            process.wait(STOP_SECONDS)
            stop_keepers(exec_root)
            shutil.rmtree(exec_root, ignore_errors=True)


def stop_keepers(folder: Path) -> None:
    """End the keeper that a daemon of this folder left for its containers, and unmount what it used."""
    for entry in Path("/proc").iterdir():
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                command = (entry / "cmdline").read_bytes()
                if b"shoal.engine.keeper" in command and str(folder).encode() in command:
                    os.kill(int(entry.name), signal.SIGTERM)
    for line in reversed(Path("/proc/self/mounts").read_text().splitlines()):
        mount = line.split()[1]
        if mount.startswith(str(folder)):
            subprocess.run(["umount", "-l", mount], check=False)


@contextlib.contextmanager
def several_managers(count: int) -> Iterator[list[Engine]]:
    """Run a lab of so many managers; yield the leader and a follower."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "src"))
    from shoal.lab.lab import Lab, take_down

    name = f"b{os.getpid()}"
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as scratch:
        try:
            lab = Lab.up(managers=count, workers=0, name=name, scratch=Path(scratch))
            found = [Engine(node.name, str(node.host).removeprefix("unix://"), node.pid) for node in lab.nodes]
            own = {engine.call("GET", "/info")["Swarm"]["NodeID"]: engine for engine in found}
            nodes = found[0].call("GET", "/nodes")
            leader = next(own[node["ID"]] for node in nodes if node["ManagerStatus"].get("Leader"))
            follower = next(engine for engine in found if engine is not leader)
            leader.name, follower.name = "leader", "follower"
            yield [leader, follower]
        finally:
            take_down(name)


@contextlib.contextmanager
def engines() -> Iterator[list[Engine]]:
    """Yield Shoal and, where DOCKER_PEER_SOCKET names one's socket, a real Docker Swarm."""
    with shoal() as ours:
        found = [ours]
        peer = os.environ.get("DOCKER_PEER_SOCKET")
        if peer:
            found.append(Engine("Docker", peer))
        yield found
