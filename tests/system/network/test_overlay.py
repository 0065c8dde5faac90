import contextlib
import random
import threading

import pytest

from tests.system.network.hosts import Hosts, endpoint, overlay, service, update
from tests.system.network.place import run

pytestmark = pytest.mark.root

REFUSED, RESET = "ConnectionRefusedError", "ConnectionResetError"
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


def test_a_virtual_address_follows_its_endpoints(hosts):
    paths = bring_up(hosts)
    client = paths["task-a"]
    hosts.tell(2, update(BLUE, web(*TASKS, quiet=["task-a", "task-b"])))
    stream = hosts.hold(client, "tcp", WEB, 80)
    direct = hosts.hold(client, "tcp", TASKS["task-c"][1], 80)
    datagrams = hosts.hold(client, "udp", WEB, 53)
    assert direct().split()[0] == "task-c"
    assert {stream().split()[0], datagrams().split()[0]} == {"task-c"}

    hosts.tell(3, update(BLUE, web(*TASKS, quiet=["task-a", "task-c"]), complete=False))
    assert stream().split()[0] == "task-c", "a stream drains"
    assert datagrams().split()[0] == "task-b", "a UDP flow moves on"
    assert names_in(hosts.ask(client, "tcp", WEB, 80, 20)) == {"task-b"}

    hosts.tell(4, update(BLUE, web("task-a", "task-b", quiet=["task-a"])))
    assert stream() == RESET, "a stream to a task that is gone ends at once"
    assert direct() == RESET, "one that does not go by the virtual address too"
    assert set(hosts.ask(client, "tcp", TASKS["task-c"][1], 80)) == {REFUSED}
    hosts.tell(3, update(BLUE, web("task-a")))
    assert names_in(hosts.ask(client, "tcp", WEB, 80, 20)) == {"task-b"}, "an older change is ignored"

    hosts.tell(5, update(BLUE, web("task-a", "task-b", quiet=["task-a", "task-b"])))
    assert set(hosts.ask(client, "tcp", WEB, 80)) == {REFUSED}, "nothing serves"
    assert datagrams() in {"PermissionError", REFUSED}, "what the kernel says of a packet refused as it leaves"
    hosts.tell(6, update(BLUE, web("task-a", "task-b")))
    assert names_in(hosts.ask(client, "tcp", WEB, 80, 30)) == {"task-a", "task-b"}
    datagrams()
    assert datagrams().split()[0] in {"task-a", "task-b"}, "after the error that was under way"
    hosts.tell(7, update(BLUE, web(*TASKS)))
    assert names_in(hosts.ask(client, "tcp", TASKS["task-c"][1], 80)) == {"task-c"}, "the address is one's again"
    for host in hosts.hosts:
        assert "refused" not in host.logged(), "the hand-made batches were taken"


def test_affinities(hosts):
    paths = bring_up(hosts)
    hosts.tell(2, update(BLUE, web(*TASKS, affinity="prefer-local")))
    assert names_in(hosts.ask(paths["task-a"], "tcp", WEB, 80, 30)) == {"task-a", "task-b"}
    assert names_in(hosts.ask(paths["task-c"], "tcp", WEB, 80, 30)) == {"task-c"}
    hosts.tell(3, update(BLUE, web(*TASKS, affinity="prefer-local", quiet=["task-c"])))
    assert names_in(hosts.ask(paths["task-c"], "tcp", WEB, 80, 30)) == {"task-a", "task-b"}
    hosts.tell(4, update(BLUE, web(*TASKS, affinity="source")))
    for path in paths.values():
        assert len(hosts.ask(path, "tcp", WEB, 80, 20)) == 1, "a client stays with its task"


def test_networks_are_apart_and_a_task_may_be_on_two(hosts):
    paths = bring_up(hosts)
    green = overlay("green-network-000", 2)
    there = [endpoint("task-g", 2, "10.0.2.21"), endpoint("task-both", 1, "10.0.2.11")]
    other = service("other", [], endpoint("task-both", 1, "10.0.1.50"))
    hosts.tell(2, update(green, service("green", ["10.0.2.2"], *there)), update(BLUE, other, complete=False))
    alone = hosts[2].attach("task-g", (green["network_id"], "10.0.2.21/24"))
    both = hosts[1].attach("task-both", (BLUE["network_id"], "10.0.1.50/24"), (green["network_id"], "10.0.2.11/24"))
    hosts.serve(alone, "task-g")
    hosts.serve(both, "task-both")
    assert hosts.links(both) == {"lo", "eth0", "eth1", "eth2"}
    assert hosts.ask(both, "tcp", "10.0.2.2", 80, 20).keys() == {"task-g 10.0.2.11", "task-both 10.0.2.11"}
    assert names_in(hosts.ask(both, "tcp", WEB, 80, 20)) <= set(TASKS)
    for path, address in ((paths["task-c"], "10.0.2.21"), (paths["task-a"], "10.0.2.11"), (alone, WEB)):
        assert not names_in(hosts.ask(path, "udp", address, 53)) & {*TASKS, "task-g", "task-both"}
    default = run("nsenter", f"--net={both}", "ip", "route", "show", "default").stdout
    assert "dev eth2" in default


def test_a_task_on_internal_networks_has_no_way_out(hosts):
    inside = overlay("inside-network-00", 3, internal=True)
    hosts.tell(1, update(inside))
    path = hosts[1].attach("task-i", (inside["network_id"], "10.0.3.5/24"), outside=False)
    assert hosts.links(path) == {"lo", "eth0"}
    assert run("nsenter", f"--net={path}", "ip", "route", "show", "default").stdout == ""
    assert hosts.links(hosts[1].attach("task-none", outside=False)) == {"lo"}


def test_packets_are_as_long_as_the_path_allows(hosts):
    short = overlay("short-network-000", 4, mtu_bytes=1300)
    paths = bring_up(hosts)
    hosts.tell(2, update(short))
    limited = hosts[1].attach("task-s", (short["network_id"], "10.0.4.5/24"))
    assert "mtu 1300" in run("nsenter", f"--net={limited}", "ip", "link", "show", "eth0").stdout
    assert "mtu 1450" in run("nsenter", f"--net={paths['task-a']}", "ip", "link", "show", "eth0").stdout
    assert hosts.ask_whole(paths["task-a"], TASKS["task-c"][1], 1450) == "1422"
    assert hosts.ask_whole(paths["task-a"], TASKS["task-c"][1], 1451) == "OSError"


def test_both_families(hosts):
    dual = overlay("dual-network-0000", 5)
    dual = {**dual, "subnets": [*dual["subnets"], "fd00:5::/64"], "gateways": [*dual["gateways"], "fd00:5::1"]}
    one, two = ("10.0.5.11", "fd00:5::11"), ("10.0.5.21", "fd00:5::21")
    hosts.tell(1, update(dual, service("s", ["10.0.5.2", "fd00:5::2"], endpoint("one", 1, *one),
                                       endpoint("two", 2, *two))))  # fmt: skip
    first = hosts[1].attach("one", (dual["network_id"], f"{one[0]}/24", f"{one[1]}/64"))
    second = hosts[2].attach("two", (dual["network_id"], f"{two[0]}/24", f"{two[1]}/64"))
    for path, name in ((first, "one"), (second, "two")):
        hosts.serve(path, name)
    assert names_in(hosts.ask(first, "tcp", two[1], 80)) == {"two"}
    assert names_in(hosts.ask(second, "tcp", one[1], 80)) == {"one"}
    for vip in ("10.0.5.2", "fd00:5::2"):
        assert names_in(hosts.ask(first, "tcp", vip, 80, 40)) == {"one", "two"}
    hosts.tell(2, update(dual, service("s", ["10.0.5.2", "fd00:5::2"], endpoint("one", 1, *one, serving=False))))
    assert set(hosts.ask(first, "tcp", "fd00:5::2", 80)) == {REFUSED}


def test_a_living_task_is_connected_and_disconnected(hosts):
    paths = bring_up(hosts)
    green = overlay("green-network-000", 2)
    hosts.tell(2, update(green, service("green", ["10.0.2.2"], endpoint("task-g", 2, "10.0.2.21"))))
    hosts.serve(hosts[2].attach("task-g", (green["network_id"], "10.0.2.21/24")), "task-g")
    blue_link, green_link = (BLUE["network_id"], "10.0.1.11/24"), (green["network_id"], "10.0.2.11/24")
    assert hosts[1].attach("task-a", blue_link, green_link) == paths["task-a"]
    hosts.tell(3, update(green, service("green", ["10.0.2.2"], endpoint("task-g", 2, "10.0.2.21"),
                                        endpoint("task-a", 1, "10.0.2.11", serving=False))))  # fmt: skip
    assert hosts.links(paths["task-a"]) == {"lo", "eth0", "eth1", "eth2"}
    assert names_in(hosts.ask(paths["task-a"], "tcp", "10.0.2.2", 80, 5)) == {"task-g"}
    assert names_in(hosts.ask(paths["task-a"], "tcp", WEB, 80, 30)) == set(TASKS)
    hosts[1].attach("task-a", green_link)
    assert hosts.links(paths["task-a"]) == {"lo", "eth1", "eth2"}
    assert names_in(hosts.ask(paths["task-a"], "tcp", "10.0.2.2", 80, 5)) == {"task-g"}
    assert not names_in(hosts.ask(paths["task-a"], "udp", WEB, 53)) & set(TASKS)


def test_what_nobody_told_of_is_refused_with_the_reason(hosts):
    hosts.tell(1)
    with pytest.raises(AssertionError, match="nothing is known"):
        hosts[1].attach("task-x", ("no-such-network-0", "10.0.6.2/24"))
    assert hosts[1].driver.call("look")["sandboxes"] == []
    assert not list((hosts[1].exec_root / "netns").glob("network-*"))


def test_namespaces_of_networks_go_with_the_last_task_and_nothing_stays(hosts):
    bring_up(hosts)
    directory = hosts[1].exec_root / "netns"
    sandbox = next(directory.glob("network-*"))
    assert "02:42:0a:00:01:15" in run("nsenter", f"--net={sandbox}", "bridge", "fdb", "show").stdout
    hosts.tell(2, update(BLUE, removed=["web"], complete=False))
    assert "02:42:0a:00:01:15" not in run("nsenter", f"--net={sandbox}", "bridge", "fdb", "show").stdout
    hosts[1].driver.call("detach", "task-a")
    assert sandbox.exists()
    hosts[1].driver.call("detach", "task-b")
    assert not sandbox.exists()
    hosts[1].attach("task-again", (BLUE["network_id"], "10.0.1.11/24"))
    for host in hosts.hosts:
        host.driver.call("close", True)
        assert not host.exec_root.joinpath("netns").exists()
        assert not any(host.exec_root.joinpath("network").glob("**/*"))
        assert hosts.links(host.path) == {"lo", "eth0"}
        assert hosts.ruleset(host.path) == ""


def test_a_daemon_that_is_killed_finds_everything_again(hosts):
    paths = bring_up(hosts)
    client = paths["task-a"]
    stream = hosts.hold(client, "tcp", TASKS["task-c"][1], 80)
    through_vip = hosts.hold(client, "tcp", WEB, 80)
    assert stream().split()[0] == "task-c"
    answering = through_vip()
    hosts[1].driver.kill()
    assert names_in(hosts.ask(client, "tcp", WEB, 80, 40)) == set(TASKS), "the kernel goes on"
    # while nobody looks after it: an entry that is not to be there
    sandbox = next((hosts[1].exec_root / "netns").glob("network-*"))
    run("nsenter", f"--net={sandbox}", "bridge", "fdb", "add", "02:42:0a:00:01:63", "dev", "vxlan0", "dst", "10.98.0.2",
        "self", "permanent")  # fmt: skip
    driver = hosts[1].drive()
    assert driver.call("look")["version"] == 1
    assert driver.call("look")["sandboxes"] == ["task-a", "task-b"]
    entries = run("nsenter", f"--net={sandbox}", "bridge", "fdb", "show").stdout
    assert "02:42:0a:00:01:63" not in entries
    assert "02:42:0a:00:01:15" in entries
    assert stream().split()[0] == "task-c"
    assert through_vip() == answering
    hosts.tell(2, update(BLUE, web("task-a", "task-c", quiet=["task-a"]), complete=False))
    assert names_in(hosts.ask(client, "tcp", WEB, 80, 20)) == {"task-c"}
    assert hosts[1].attach("task-a", (BLUE["network_id"], "10.0.1.11/24")) == client


@pytest.mark.parametrize("rounds", [6, pytest.param(100, marks=pytest.mark.long)])
def test_killed_at_any_moment_it_heals(hosts, rounds):
    chance = random.Random(rounds)
    blue_link = BLUE["network_id"], "10.0.1.11/24"
    hosts.tell(1, update(BLUE, web(*TASKS)))
    hosts.serve(hosts[2].attach("task-c", (BLUE["network_id"], "10.0.1.21/24")), "task-c")
    host = hosts[1]
    for turn in range(rounds):
        killer = threading.Timer(chance.uniform(0, 0.05), host.driver.process.kill)
        killer.start()
        with contextlib.suppress(AssertionError, BrokenPipeError, ValueError):
            while True:
                host.attach("task-a", blue_link)
                host.driver.call("change", {"version": turn + 1, "overlays": [update(BLUE, web(*TASKS))]})
                if turn % 3:
                    host.driver.call("detach", "task-a")
                else:
                    host.driver.call("close", True)
                    host.drive()
        killer.join()
        host.driver.kill()
        host.drive()
        hosts.tell(turn + 1, update(BLUE, web(*TASKS)))
        path = host.attach("task-a", blue_link)
        assert names_in(hosts.ask(path, "tcp", "10.0.1.21", 80)) == {"task-c"}
        assert names_in(hosts.ask(path, "tcp", "10.0.1.1", 80)) == {REFUSED}, "the gateway"
        host.driver.call("detach", "task-a")
        assert not list((host.exec_root / "netns").glob("network-*"))
    host.driver.call("close", True)
    assert not host.exec_root.joinpath("netns").exists()
    assert hosts.links(host.path) == {"lo", "eth0"}
