import pytest

from tests.system.network.hosts import FAR_CLIENT, NEAR_CLIENT, NUMBERS, address_of

pytestmark = pytest.mark.root

PEERS = [{"node_number": number, "address": address_of(number)} for number in NUMBERS]
TASKS = {"task-1": ("10.0.0.11", 1), "task-2": ("10.0.0.12", 2), "task-3": ("10.0.0.13", 3)}


def backends(names):
    return [{"task_id": name, "address": TASKS[name][0], "node_number": TASKS[name][1]} for name in names]


def mesh(version, serving, endpoints=None, **options):
    ports = [
        {"protocol": protocol, "published_port": published, "target_port": target, "service_id": "s",
         "backends": backends(serving), **options}
        for protocol, published, target in (("tcp", 8080, 80), ("udp", 5353, 53))
    ]  # fmt: skip
    return {"version": version, "ports": ports, "endpoints": backends(serving if endpoints is None else endpoints)}


class Swarm:
    """A driver on every host, with the data path set and the tasks attached and serving."""

    def __init__(self, hosts, settings="{}"):
        self.hosts = hosts
        self.drivers = {number: hosts.drive(number, settings) for number in NUMBERS}
        for number, driver in self.drivers.items():
            driver.call("set_node_number", number)
            driver.call("set_data_path", {"peers": PEERS})
        self.paths = {}
        for name, (address, number) in TASKS.items():
            self.paths[name] = self.drivers[number].attach(name, address)["path"]
            hosts.serve(self.paths[name], name)

    def publish(self, *arguments, **options):
        for driver in self.drivers.values():
            driver.call("set_ingress", mesh(*arguments, **options))


def names_in(answers):
    return {answer.split()[0] for answer in answers}


def sources_in(answers):
    return {answer.split()[-1] for answer in answers}


KINDS = [("tcp", 8080), ("udp", 5353)]


@pytest.mark.parametrize(("kind", "port"), KINDS)
def test_every_node_leads_to_every_task_and_keeps_the_client(hosts, kind, port):
    swarm = Swarm(hosts)
    swarm.publish(1, TASKS)
    for client, address in ((hosts.near, NEAR_CLIENT), (hosts.far, FAR_CLIENT)):
        for number in NUMBERS:
            answers = hosts.ask(client, kind, address_of(number), port, 6)
            assert names_in(answers) == set(TASKS), number
            assert sources_in(answers) == {address}
