import os
import shutil
import signal
from pathlib import Path

import pytest

from tests.system.left import left_on_machine
from tests.system.network.names_place import HOST_RESULT, HOST_SERVER, NamesPlace
from tests.system.network.place import run

pytestmark = pytest.mark.root

FRONT = {"network_id": "n1", "name": "front", "vni": 4097, "subnets": ["10.0.1.0/24"]}
BACK = {"network_id": "n2", "name": "back", "vni": 4098, "subnets": ["10.0.2.0/24"]}
SERVER_FAILURE, NO_SUCH_NAME = 2, 3


@pytest.fixture
def names():
    made = NamesPlace()
    try:
        yield made
    finally:
        made.close()


def service(name, *addresses, virtual_ips=()):
    endpoints = [
        {"task_id": f"t{n}", "name": f"{name}.{n}.t{n}", "addresses": [address], "node_number": 1, "serving": True}
        for n, address in enumerate(addresses, 1)
    ]
    return {"service_id": f"id-{name}", "names": [name], "virtual_ips": list(virtual_ips), "endpoints": endpoints}


def whole(overlay, *services):
    return {"overlay": overlay, "complete": True, "services": services}


WEB = service("web", "10.0.1.11", "10.0.1.12", virtual_ips=["10.0.1.2"])
DATABASE = service("db", "10.0.2.21", "10.0.2.22")


def serve_both(names, starter):
    starter.call("set_network", whole(FRONT, WEB))
    starter.call("set_network", whole(BACK, DATABASE))
    starter.add(names, "a", "n1", "n2")
    starter.add(names, "b", "n1")


def test_containers_find_the_names_of_their_networks(names):
    starter = names.start()
    serve_both(names, starter)
    names.peer("a", "bind")
    for is_stream in (False, True):
        for container in ("a", "b"):
            assert names.ask(container, "web", is_stream=is_stream) == ["10.0.1.2"]
            assert names.ask(container, "WEB.front.", is_stream=is_stream) == ["10.0.1.2"]
            assert names.ask(container, "tasks.web", is_stream=is_stream) == ["10.0.1.11", "10.0.1.12"]
            assert names.ask(container, "web.2.t2", is_stream=is_stream) == ["10.0.1.12"]
            assert names.ask(container, "web", "AAAA", is_stream=is_stream) == []
            assert names.ask(container, "11.1.0.10.in-addr.arpa", "PTR", is_stream=is_stream) == ["web.1.t1.front"]
        assert names.ask("a", "db", is_stream=is_stream) == ["10.0.2.21", "10.0.2.22"]
        assert names.ask("b", "db", is_stream=is_stream) == SERVER_FAILURE, "nobody of its networks, and no upstream"

    starter.call("set_network", {"overlay": BACK, "services": [service("db", "10.0.2.23"), service("mail")]})
    assert names.ask("a", "db") == ["10.0.2.23"]
    assert names.ask("a", "mail") == []
    starter.call("set_network", {"overlay": FRONT, "removed_service_ids": ["id-web"]})
    assert names.ask("a", "web") == names.ask("b", "web") == SERVER_FAILURE
    starter.add(names, "b", "n2")
    assert names.ask("b", "db") == ["10.0.2.23"], "a container that is given another network"
    starter.call("remove_network", "n2")
    assert names.ask("b", "db") == SERVER_FAILURE


def test_long_answers(names):
    starter = names.start()
    addresses = [f"10.0.2.{last}" for last in range(1, 101)]
    starter.call("set_network", whole(BACK, service("db", *addresses)))
    starter.add(names, "a", "n2")
    assert len(names.ask("a", "db")) == 30
    assert len(names.ask("a", "db", udp_bytes=4096)) == 100
    assert len(names.ask("a", "db", is_stream=True)) == 100


def test_other_names_are_asked_elsewhere(names):
    starter = names.start()
    starter.call("set_network", whole(FRONT, WEB))
    starter.add(names, "a", "n1")
    names.peer("host", "upstream", HOST_SERVER, HOST_RESULT)
    names.peer("host", "upstream", "127.0.0.54", "192.0.2.54")
    names.peer("b", "upstream", "127.0.0.99", "192.0.2.99")
    for is_stream in (False, True):
        assert names.ask("a", "example.org", is_stream=is_stream) == [HOST_RESULT]
        assert names.ask("a", "single", is_stream=is_stream) == [HOST_RESULT]
        assert names.ask("a", "missing.example.org", is_stream=is_stream) == NO_SUCH_NAME
        assert names.ask("a", "fail.example.org", is_stream=is_stream) == SERVER_FAILURE
        assert names.ask("a", "web", is_stream=is_stream) == ["10.0.1.2"]
    assert names.ask("a", "long.example.org") == [], "truncated"
    assert names.ask("a", "long.example.org", is_stream=True) == [HOST_RESULT]

    names.resolver_file.write_text("nameserver 127.0.0.55\nnameserver 127.0.0.54\n")
    assert names.ask("a", "example.org") == ["192.0.2.54"], "the first refuses, and the file was read again"

    starter.add(names, "b", "n1", name_servers=["127.0.0.98", "127.0.0.99"])
    assert names.ask("b", "example.org") == ["192.0.2.99"], "its own servers are asked from where it is"
    assert names.ask("b", "web") == ["10.0.1.2"]
    starter.add(names, "b", "n1", outside=False)
    assert names.ask("b", "example.org") == SERVER_FAILURE, "without a way out nothing gets out"
    assert names.ask("b", "web") == ["10.0.1.2"]
    assert names.ask("a", "silent.example.org", seconds=10) == SERVER_FAILURE


def test_it_outlives_whoever_started_it(names):
    starter = names.start()
    serve_both(names, starter)
    resolver, _ = starter.look()
    starter.kill()
    assert names.ask("a", "db") == ["10.0.2.21", "10.0.2.22"]

    second = names.start()
    assert second.look() == (resolver, {"a", "b"}), "the same one goes on"
    os.kill(resolver, signal.SIGKILL)
    names.until(lambda: names.ask("a", "web", seconds=0.5) == ["10.0.1.2"])
    after, served = second.look()
    assert after != resolver
    assert served == {"a", "b"}
    assert names.ask("b", "tasks.web", is_stream=True) == ["10.0.1.11", "10.0.1.12"]

    second.call("set_network", {"overlay": FRONT, "services": [service("web", "10.0.1.99")]})
    os.kill(after, signal.SIGKILL)
    names.until(lambda: names.ask("a", "web", seconds=0.5) == ["10.0.1.99"])
    rules = names.ruleset("a")
    names.until(lambda: b"10.0.1.99" in (names.exec_root / "resolver/networks/n1.msgpack").read_bytes())
    second.kill()
    names.kill_resolver()
    third = names.start()
    assert third.look()[1] == {"a", "b"}, "it knows by itself what it served"
    assert names.ask("a", "web") == ["10.0.1.99"]
    assert names.ask("a", "db", is_stream=True) == ["10.0.2.21", "10.0.2.22"]
    assert names.ruleset("a") == rules, "on the ports it had before"
    assert len(names.resolvers()) == 1


def test_another_version_takes_its_place(names):
    starter = names.start()
    serve_both(names, starter)
    before, _ = starter.look()
    starter.kill()
    other = names.root / "other.conf"
    other.write_text("")
    newer = names.start(resolver_file=other)
    after, served = newer.look()
    assert after != before
    assert served == {"a", "b"}
    assert names.resolvers() == [after]
    assert names.ask("a", "web") == ["10.0.1.2"]


def test_a_flood_slows_nobody_else(names):
    starter = names.start()
    serve_both(names, starter)
    names.peer("host", "upstream", HOST_SERVER, HOST_RESULT)
    for name in ("web", "example.org"):
        flood = names.peer("b", "flood", name)
        for _ in range(300):
            assert names.ask("a", "web") == ["10.0.1.2"]
            assert names.ask("a", "tasks.web", is_stream=True) == ["10.0.1.11", "10.0.1.12"]
        assert names.ask("a", "outside.example.org") == [HOST_RESULT]
        assert flood.process.poll() is None, "it still floods"
        flood.kill()
        names.children.remove(flood)
    names.until(lambda: names.ask("b", "web") == ["10.0.1.2"])


def test_nothing_is_left_behind(names):
    starter = names.start()
    serve_both(names, starter)
    assert "shoal-dns" in names.ruleset("a")
    assert list(Path("/sys/fs/cgroup").glob(f"**/{names.cgroup}"))
    starter.call("remove_container", "a")
    starter.call("remove_container", "a")
    assert not names.ruleset("a")
    assert names.ask("a", "web") == "ConnectionRefusedError"
    assert names.ask("b", "web") == ["10.0.1.2"]
    starter.call("close", True)
    assert not names.ruleset("b")
    assert not list(names.exec_root.iterdir())
    assert not names.resolvers()
    assert not list(Path("/sys/fs/cgroup").glob(f"**/{names.cgroup}"))
    starter.kill()
    assert not left_on_machine(names.cgroup, names.exec_root)


def test_what_is_gone_is_let_go(names):
    starter = names.start()
    serve_both(names, starter)
    run("ip", "netns", "del", names.names["b"])
    names.until(lambda: starter.look()[1] == {"a"})
    refused = starter.exchange(["add_container", [{"task_id": "b"}, f"/run/netns/{names.names['b']}"]])
    assert "no network namespace" in refused["error"]
    starter.kill()
    shutil.rmtree(names.exec_root)
    names.until(lambda: not names.resolvers())


def test_one_that_hangs_is_replaced(names):
    starter = names.start()
    serve_both(names, starter)
    before, _ = starter.look()
    os.kill(before, signal.SIGSTOP)
    after, served = starter.look()
    assert after != before
    assert served == {"a", "b"}
    assert names.ask("a", "web") == ["10.0.1.2"]
