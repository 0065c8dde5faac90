"""A host and two containers, each a network namespace, with a starter of the resolver on the host."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.system.network.place import ANSWER_SECONDS, SOURCE, run

HERE = Path(__file__).parent
ROOT = HERE.parents[2]
HOST_SERVER, HOST_RESULT = "127.0.0.53", "192.0.2.53"
POLL_SECONDS = 0.02


class Child:
    """A script in a namespace that answers every JSON line with one."""

    def __init__(self, namespace, *arguments, log=None):
        self.process = subprocess.Popen(
            ["nsenter", f"--net=/run/netns/{namespace}", sys.executable, *map(str, arguments)],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, text=True,
            env={**os.environ, "PYTHONPATH": f"{SOURCE}:{ROOT}"},
        )  # fmt: skip

    def line(self):
        line = self.process.stdout.readline()
        assert line, "the script ended: see its log"
        return line

    def exchange(self, value):
        self.process.stdin.write(json.dumps(value) + "\n")
        self.process.stdin.flush()
        return json.loads(self.line())

    def kill(self):
        self.process.kill()
        self.process.wait(ANSWER_SECONDS)
        for stream in (self.process.stdin, self.process.stdout):
            stream.close()


class Starter(Child):
    """Tells the resolver."""

    def __init__(self, place, resolver_file):
        arguments = (HERE / "names_starter.py", place.exec_root, place.cgroup, resolver_file)
        super().__init__(place.host, *arguments, log=place.log)
        assert json.loads(self.line()) == {"ok": None}

    def call(self, name, argument=None):
        answer = self.exchange([name, argument])
        assert "error" not in answer, answer
        return answer["ok"]

    def add(self, place, container, *network_ids, **keywords):
        links = [{"network_id": network_id, "addresses": ["10.0.0.1/24"]} for network_id in network_ids]
        request = {"task_id": container, "overlays": links, **keywords}
        self.call("add_container", [request, f"/run/netns/{place.names[container]}"])

    def look(self):
        """Who answers, and the ids of the containers it serves."""
        found = self.exchange(["look", None])["ok"]
        return found["pid"], {each["task_id"] for each in found.get("containers", ())}


class NamesPlace:
    """Namespaces `host`, and those of the containers `a` and `b`."""

    def __init__(self):
        mark = f"{os.getpid()}{os.urandom(2).hex()}"
        self.names = {name: f"shoal-n{name}-{mark}" for name in ("host", "a", "b")}
        self.host = self.names["host"]
        self.cgroup = f"shoal-resolver-test-{mark}"
        self.root = Path(tempfile.mkdtemp(prefix="shoal-names-"))
        self.exec_root = self.root / "exec"
        self.log = (self.root / "starter.log").open("w+")
        self.children = []
        self.askers = {}
        for name in self.names.values():
            run("ip", "netns", "add", name)
            run("ip", "-n", name, "link", "set", "lo", "up")
        self.resolver_file = self.root / "resolv.conf"
        self.resolver_file.write_text(f"nameserver {HOST_SERVER}\n")

    def start(self, resolver_file=None):
        starter = Starter(self, resolver_file or self.resolver_file)
        self.children.append(starter)
        return starter

    def peer(self, name, *arguments, waits=True):
        child = Child(self.names[name], HERE / "names_peer.py", *arguments, log=self.log)
        self.children.append(child)
        if waits:
            assert child.line() == "ready\n"
        return child

    def ask(self, container, name, kind="A", **keywords):
        """Return the sorted records, the code if it is not 0, or the error's name."""
        if container not in self.askers:
            self.askers[container] = self.peer(container, "ask", waits=False)
        answer = self.askers[container].exchange({"name": name, "kind": kind, **keywords})
        if "error" in answer:
            return answer["error"]
        return sorted(answer["records"]) if not answer["code"] else answer["code"]

    def ruleset(self, name):
        return run("nsenter", f"--net=/run/netns/{self.names[name]}", "nft", "list", "ruleset").stdout

    def resolvers(self):
        """Return the pids of resolvers of this place, those that have ended but for their parent's look left out."""
        found = []
        for entry in Path("/proc").glob("[0-9]*"):
            try:
                words = (entry / "cmdline").read_bytes().split(b"\0")
            except OSError:
                continue
            if b"shoal.network.names" in words and str(self.exec_root).encode() in words:
                found.append(int(entry.name))
        return found

    def kill_resolver(self):
        for pid in self.resolvers():
            os.kill(pid, signal.SIGKILL)

    def until(self, condition):
        deadline = time.monotonic() + ANSWER_SECONDS
        while not condition():
            assert time.monotonic() < deadline, "it does not come"
            time.sleep(POLL_SECONDS)

    def _cgroups_are_gone(self):
        """Remove what is empty: a killed process leaves its group a moment after its command line is gone."""
        left = list(Path("/sys/fs/cgroup").glob(f"**/{self.cgroup}"))
        for group in left:
            with contextlib.suppress(OSError):
                group.rmdir()
        return not left

    def close(self):
        for child in self.children:
            child.kill()
        self.kill_resolver()
        self.until(lambda: not self.resolvers())
        for name in self.names.values():
            run("ip", "netns", "del", name, check=False)
        self.until(self._cgroups_are_gone)
        self.log.close()
        shutil.rmtree(self.root)
