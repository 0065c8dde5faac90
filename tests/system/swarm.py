"""Short words for tests that drive a swarm of one node through the API."""


def init_swarm(daemon, **spec):
    request = {"ListenAddr": "127.0.0.1", "AdvertiseAddr": "127.0.0.1", "Spec": spec}
    status, answer = daemon.request("POST", "/swarm/init", request)
    assert status == 200, answer


def create(daemon, name, arguments, replicas=1, more=None, **template):
    container = {"Image": "busybox", "Args": arguments, "StopGracePeriod": 0}
    spec = {"Name": name, "TaskTemplate": {"ContainerSpec": container, **template},
            "Mode": {"Replicated": {"Replicas": replicas}}} | (more or {})  # fmt: skip
    status, answer = daemon.request("POST", "/services/create", spec)
    assert status == 201, answer
    return answer["ID"]


def get(daemon, path):
    status, answer = daemon.request("GET", path)
    assert status == 200, (path, answer)
    return answer


def tasks_of(daemon, service):
    return [task for task in get(daemon, "/tasks") if task["ServiceID"] == service]


def running(daemon, service):
    return [task for task in tasks_of(daemon, service)
            if task["DesiredState"] == "running" and task["Status"]["State"] == "running"]  # fmt: skip


def count_lines(daemon, container):
    return [int(line) for line in daemon.docker("logs", container).stdout.splitlines()]


def exit_of(task):
    """Return a task's state, the code of its container, and its error."""
    status = task["Status"]
    return status["State"], status.get("ContainerStatus", {}).get("ExitCode"), status.get("Err", "")
