import pytest

from tests.system.network.hosts import Hosts, endpoint, overlay, service, update

pytestmark = pytest.mark.root

REFUSED, RESET, SILENT = "ConnectionRefusedError", "ConnectionResetError", "TimeoutError"
BLUE = overlay("blue-network-0000", 1)
TASKS = {"task-a": (1, "10.0.1.11"), "task-b": (1, "10.0.1.12"), "task-c": (2, "10.0.1.21")}
WEB = "10.0.1.2"


@pytest.fixture
def hosts():
    made = Hosts(2)
    try:
        for host in made.hosts:
            host.drive()
        yield made
    finally:
        made.close()


def names_in(answers):
    return {answer.split()[0] for answer in answers}


def web(*task_ids, affinity="random", quiet=()):
    """The service of some tasks; `quiet` ones are reached but do not serve."""
    endpoints = [endpoint(task_id, *TASKS[task_id], serving=task_id not in quiet) for task_id in task_ids]
    return service("web", [WEB], *endpoints, affinity=affinity)


def bring_up(hosts, of=BLUE):
    """Tell of three tasks, attach them and let each answer with its name; return their paths."""
    hosts.tell(1, update(of, web(*TASKS)))
    paths = {}
    for task_id, (number, address) in TASKS.items():
        paths[task_id] = hosts[number].attach(task_id, (of["network_id"], f"{address}/24"))
        hosts.serve(paths[task_id], task_id)
    return paths


def test_tasks_reach_each_other_and_the_virtual_address(hosts):
    paths = bring_up(hosts)
    for path in paths.values():
        for task_id, (_, address) in TASKS.items():
            assert names_in(hosts.ask(path, "tcp", address, 80)) == {task_id}
            assert names_in(hosts.ask(path, "udp", address, 53)) == {task_id}
        for kind, number in (("tcp", 80), ("udp", 53)):
            answers = hosts.ask(path, kind, WEB, number, 60)
            assert names_in(answers) == set(TASKS), "its own too"
    sources = {answer.split()[1] for answer in hosts.ask(paths["task-a"], "tcp", WEB, 80, 30)}
    assert sources == {TASKS["task-a"][1]}, "the client's address is kept"
    assert hosts[1].driver.call("look")["version"] == 1
