"""A load of writes on a daemon that dies: clients know what was acknowledged, and find out what became of the rest.

A client owns its services, so it knows of each what it may look like: the spec last acknowledged and, when the daemon
died under a write, what that write would have made of it. Anything else it sees is a failure.
"""

import http.client
import threading
import time
import traceback

NO_SERVICE = None
SERVICES_EACH = 3
REPLICAS_MOST = 5
DEADLINE_SECONDS = 60.0


class Lost(Exception):
    """The daemon died before it answered."""


class Look:
    """What can be seen of a spec: compared with what was acknowledged."""

    def __init__(self, revision, replicas, mark, port):
        self.revision, self.replicas, self.mark, self.port = revision, replicas, mark, port

    def seen(self):
        return (self.revision, self.replicas, self.mark, self.port)

    def spec(self, name):
        ports = [{"TargetPort": 80, "PublishedPort": self.port}] if self.port else []
        return {
            "Name": name,
            "Labels": {"revision": str(self.revision)},
            "TaskTemplate": {
                "ContainerSpec": {
                    "Image": "busybox", "Args": ["sleep", "100000"], "Env": [f"MARK={self.mark}"], "StopGracePeriod": 0,
                },
            },
            "Mode": {"Replicated": {"Replicas": self.replicas}},
            "UpdateConfig": {"Parallelism": 2, "Monitor": 100_000_000},
            "EndpointSpec": {"Ports": ports},
        }  # fmt: skip


def look_of(service):
    spec = service["Spec"]
    ports = spec["EndpointSpec"].get("Ports") or [{}]
    mark = spec["TaskTemplate"]["ContainerSpec"]["Env"][0].removeprefix("MARK=")
    replicas = spec["Mode"]["Replicated"]["Replicas"]
    return Look(int(spec["Labels"]["revision"]), replicas, int(mark), ports[0].get("PublishedPort", 0))


class Client(threading.Thread):
    """Writes until told to stop. `possible` holds, by name, what each of its services may look like."""

    def __init__(self, daemon, number, random):
        super().__init__(name=f"client {number}", daemon=True)
        self._daemon, self._number, self._random = daemon, number, random
        self._ending = threading.Event()
        self._revision = 0
        self.possible = {f"load-{number}-{service}": [NO_SERVICE] for service in range(SERVICES_EACH)}
        self.acknowledged = 0
        self.lost = 0
        self.failures = []

    def run(self):
        while not self._ending.is_set() and not self.failures:
            try:
                self._write_one()
            except Lost:
                self.lost += 1
            except Exception:
                self.failures.append(traceback.format_exc())

    def end(self):
        """Stop writing and find out what became of writes whose answer was lost."""
        self._ending.set()
        self.join(DEADLINE_SECONDS)
        assert not self.is_alive(), f"{self.name} hangs"
        for name in self.possible:
            self.read(name)

    def read(self, name):
        """Return the service as it is, after checking that it may be so."""
        service = self._ask_until_answered("GET", f"/services/{name}")
        seen = None if service is None else look_of(service).seen()
        allowed = [look.seen() if look else None for look in self.possible[name]]
        assert seen in allowed, f"{name} is {seen}, of all that was acknowledged or under way it may be {allowed}"
        self.possible[name] = [look_of(service) if service else NO_SERVICE]
        return service

    def _write_one(self):
        name = self._random.choice(list(self.possible))
        service = self.read(name)
        before = self.possible[name][0]
        self._revision += 1
        if before is NO_SERVICE:
            number = int(name.rpartition("-")[2])
            port = 20_000 + 10 * self._number + number if number != 2 else 0
            wanted = Look(self._revision, self._random.randint(0, REPLICAS_MOST), 0, port)
            request = ("POST", "/services/create", wanted.spec(name))
        elif self._random.random() < 0.25:
            wanted = NO_SERVICE
            request = ("DELETE", f"/services/{name}", None)
        else:
            replicas, mark = before.replicas, before.mark
            if self._random.random() < 0.5:
                replicas = self._random.randint(0, REPLICAS_MOST)
            else:
                mark += 1
            wanted = Look(self._revision, replicas, mark, before.port)
            version = service["Version"]["Index"]
            request = ("POST", f"/services/{service['ID']}/update?version={version}", wanted.spec(name))
        self.possible[name] = [before, wanted]
        status, answer = self._ask(*request)
        if status in (200, 201):
            self.possible[name] = [wanted]
            self.acknowledged += 1
        else:
            self.possible[name] = [before]
            # the orchestrator writes how an update goes: a version read before is then too old
            assert "out of sequence" in answer["message"], (request, status, answer)

    def _ask(self, method, path, body=None):
        try:
            return self._daemon.request(method, path, body)
        except (OSError, http.client.HTTPException) as error:
            raise Lost from error

    def _ask_until_answered(self, method, path):
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            try:
                status, answer = self._ask(method, path)
            except Lost:
                assert time.monotonic() < deadline, "the daemon does not come back"
                time.sleep(0.02)
                continue
            assert status in (200, 404), (path, status, answer)
            return answer if status == 200 else None
