"""Networks over the whole manager: made, used, told to nodes, removed; and the order in which tasks leave them."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest

from shoal.errors import Forbidden, InvalidArgument, NameConflict, NotFound, Unavailable
from shoal.lib.ids import Ids
from shoal.manager.attachments import Attachments
from shoal.manager.networks import Networks
from shoal.manager.removals import PATIENCE_SECONDS, Removals
from shoal.model.actions import Remove, Replace
from shoal.model.base import replace
from shoal.model.netstate import NetworkChange
from shoal.model.node_port import AttachCall
from shoal.model.objects import Network, Node, Service
from shoal.model.specs import EndpointSpec, NetworkAttachmentConfig, NetworkSpec, Placement, PortConfig
from shoal.model.states import TaskState
from tests.doubles.cluster import FakeCluster, running_cluster
from tests.unit.manager.test_life_of_a_service import change, scaled, spec


def scenario(directory: Path, nodes: int, body: Callable[[FakeCluster, Networks], Awaitable[None]]) -> None:
    async def run() -> None:
        async with running_cluster(directory, nodes) as cluster:
            await body(cluster, Networks(cluster.store, Ids()))

    asyncio.run(run())


def on(*network_ids: str, aliases: tuple[str, ...] = ()) -> tuple[NetworkAttachmentConfig, ...]:
    return tuple(NetworkAttachmentConfig(target=id_, aliases=aliases) for id_ in network_ids)


def test_a_service_on_a_network_is_told_to_the_nodes_that_take_part(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        net = await networks.create(NetworkSpec(name="net", driver="overlay"))
        id_ = await cluster.create(spec("web", 1, networks=on(net, aliases=("www",))))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs")
        task = cluster.wanted_running(id_)[0]
        there = next(node for node in cluster.nodes if node.id == task.node_id)
        elsewhere = next(node for node in cluster.nodes if node.id != task.node_id)

        def is_served() -> bool:
            told = there.network.overlays.get(net, {}).get(id_)
            return told is not None and any(endpoint.serving for endpoint in told.endpoints)

        await cluster.until(is_served, "the node knows that it serves")
        told = there.network.overlays[net][id_]
        assert told.names == ("web", "www")
        assert [endpoint.name for endpoint in told.endpoints] == [f"web.1.{task.id}"]
        service = cluster.store.view.get(Service, id_)
        assert service is not None
        addresses = [ip.address.partition("/")[0] for ip in service.endpoint.virtual_ips if ip.network_id == net]
        assert list(told.virtual_ips) == addresses
        assert elsewhere.network.overlays == {}
        request = there.network.attached[task.id]
        assert [link.network_id for link in request.overlays] == [net]
        await cluster.store.update(lambda _view: [Remove(kind="service", id=id_)])
        await cluster.until(lambda: there.network.overlays == {}, "the node is off the network")
        assert not cluster.store.view.addresses_in_use(net)

    scenario(tmp_path, 2, body)


def test_names_and_uses_are_refused(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        net = await networks.create(NetworkSpec(name="net"))
        with pytest.raises(NameConflict, match="network with name net already exists"):
            await networks.create(NetworkSpec(name="net"))
        with pytest.raises(NameConflict, match="already present"):
            await networks.create(NetworkSpec(name="other", ingress=True))
        with pytest.raises(Forbidden):
            await networks.remove("host")
        with pytest.raises(NotFound):
            await networks.remove("nosuch")
        id_ = await cluster.create(spec("web", 1, networks=on(net)))
        with pytest.raises(InvalidArgument, match="network net is in use by service web"):
            await networks.remove("net")
        assert await networks.prune(lambda _network: True) == ()
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs")
        await cluster.store.update(lambda _view: [Remove(kind="service", id=id_)])
        await cluster.until(lambda: not cluster.store.view.tasks_on(net), "its task is gone")
        assert await networks.prune(lambda _network: True) == ("net",)
        assert cluster.store.view.get(Network, net) is None
        assert cluster.store.view.by_name(Network, "ingress") is not None
        with pytest.raises(NotFound):
            await cluster.create(spec("late", 1, networks=on(net)))

    scenario(tmp_path, 1, body)


def test_many_networks_made_at_once_share_nothing(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        await asyncio.gather(*(networks.create(NetworkSpec(name=f"net{number}")) for number in range(20)))
        made = cluster.store.view.all(Network)
        assert len({network.vni for network in made}) == len({network.subnets for network in made}) == 21

    scenario(tmp_path, 1, body)


def test_a_thousand_services_come_and_go_and_the_pool_is_as_it_was(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        net = await networks.create(NetworkSpec(name="net"))
        port = EndpointSpec(ports=(PortConfig(target_port=80),))
        for turn in range(10):
            wanted = (
                replace(spec(f"web{turn}-{number}", 1, networks=on(net)), endpoint_spec=port) for number in range(100)
            )
            ids = await asyncio.gather(*(cluster.create(one) for one in wanted))
            await cluster.until(
                lambda ids=ids: all(cluster.wanted_running(id_) for id_ in ids),  # type: ignore[misc]
                "all run",
            )
            await cluster.store.update(lambda _view, ids=ids: [Remove(kind="service", id=id_) for id_ in ids])
        view = cluster.store.view
        await cluster.until(lambda: not view.tasks_on(net), "all tasks are gone")
        assert view.addresses_in_use(net) == view.addresses_in_use("ingress-id") == frozenset()
        assert view.port_user("tcp", 30_000) is None

    scenario(tmp_path, 2, body)


def test_a_task_stops_when_every_node_has_let_go(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        port = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
        id_ = await cluster.create(replace(spec("web", 2), endpoint_spec=port))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 2, "two run")
        slow = cluster.nodes[2].network
        gate = asyncio.Event()
        take = slow.change

        async def wait_and_take(change: NetworkChange) -> None:
            await gate.wait()
            await take(change)

        slow.change = wait_and_take  # type: ignore[method-assign]
        await change(cluster, id_, scaled(1))

        def going() -> list[str]:
            return [task.id for task in cluster.tasks(id_) if task.desired_state > TaskState.RUNNING]

        def others_know() -> bool:
            nodes = cluster.nodes[:2]
            return all(len(port.backends) == 1 for node in nodes for port in node.network.ingress.ports)

        await cluster.until(lambda: bool(going()) and others_know(), "one is to go, and two nodes have let go")
        task_id = going()[0]
        task = next(task for task in cluster.tasks(id_) if task.id == task_id)
        assert task.status.state == TaskState.RUNNING, "the third has not"
        gate.set()
        await cluster.until(lambda: len(cluster.tasks(id_, TaskState.RUNNING)) == 1, "it has stopped")

    scenario(tmp_path, 3, body)


def test_a_node_that_keeps_silent_is_named_and_waited_for_no_longer(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        port = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
        stuck = cluster.nodes[2]
        elsewhere = Placement(constraints=(f"node.id!={stuck.id}",))
        id_ = await cluster.create(replace(spec("web", 1, placement=elsewhere), endpoint_spec=port))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 1, "it runs")

        async def hang(_change: NetworkChange) -> None:
            await asyncio.Event().wait()

        stuck.network.change = hang  # type: ignore[method-assign]
        # an update, not a removal: what is shut down stays to be looked at
        await change(cluster, id_, lambda old: replace(old, task_template=replace(old.task_template, force_update=1)))

        def ended() -> list[str]:
            return [task.status.message for task in cluster.tasks(id_) if task.status.state.is_terminal]

        await cluster.until(lambda: bool(ended()), "it has stopped all the same")
        name = stuck.description.hostname
        assert ended()[0].endswith(f"; stopped without the acknowledgement of node {name}")

    scenario(tmp_path, 3, body)


def test_removals() -> None:
    removals = Removals()
    removals.begin("t1", 10, ("a", "b"), now=0.0)
    removals.begin("t2", 11, ("a",), now=1.0)
    removals.begin("t3", 11, (), now=1.0)
    assert [removals.is_held(id_) for id_ in ("t1", "t2", "t3")] == [True, True, False]
    assert removals.acknowledge("a", 10) == ()
    assert removals.acknowledge("b", 10) == ("t1",)
    assert removals.next_deadline() == 1.0 + PATIENCE_SECONDS
    assert removals.expire(0.5 + PATIENCE_SECONDS) == ()
    assert removals.expire(1.0 + PATIENCE_SECONDS) == (("t2", ("a",)),)
    removals.begin("t4", 12, ("a", "c"), now=2.0)
    assert removals.forget_node("a") == ()
    assert removals.forget_node("c") == ("t4",)
    removals.note("t4", "why")
    assert removals.note_of("t4") == "why"
    removals.forget_task("t4")
    assert removals.note_of("t4") == ""


def test_an_encrypted_network_needs_a_node_that_can_encrypt(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        secret = NetworkSpec(name="secret", driver="overlay", options={"encrypted": ""})
        with pytest.raises(Unavailable, match="no node of the swarm can encrypt: install wireguard-tools"):
            await networks.create(secret)
        node = next(iter(cluster.store.view.find(Node)))
        able = replace(node, description=replace(node.description, wireguard_key="k"))
        await cluster.store.update(lambda _view: [Replace(object=able)])
        assert cluster.store.view.get(Network, await networks.create(secret)) is not None
        mesh = next(each for each in cluster.store.view.find(Network) if each.spec.ingress)
        await networks.remove(mesh.id)
        again = cluster.store.view.get(Network, await networks.create(replace(secret, name="mesh", ingress=True)))
        assert again is not None
        assert again.vni == 4096

    scenario(tmp_path, 1, body)


def test_a_plain_container_is_told_to_the_nodes_of_its_network_until_it_or_its_node_goes(tmp_path: Path) -> None:
    async def body(cluster: FakeCluster, networks: Networks) -> None:
        net = await networks.create(NetworkSpec(name="net", driver="overlay", attachable=True))
        attachments = Attachments(cluster.store, Ids(), cluster.clock)
        here, other = cluster.nodes[0], cluster.nodes[1]
        call = AttachCall(network="net", container_id="c" * 64, name="one", aliases=("uno",))
        first = await attachments.attach(call, here.id)
        second = await attachments.attach(replace(call, name="two"), other.id)
        await cluster.until(lambda: second.task_id in here.network.overlays.get(net, {}), "the nodes are told")
        (endpoint,) = here.network.overlays[net][first.task_id].endpoints
        assert (endpoint.name, endpoint.serving, endpoint.aliases) == ("one", True, ("cccccccccccc", "uno"))
        # other tasks are placed and run beside them
        id_ = await cluster.create(spec("web", 2))
        await cluster.until(lambda: len(cluster.wanted_running(id_)) == 2, "they run")
        with pytest.raises(InvalidArgument, match="in use by container one"):
            await networks.remove(net)
        assert (await attachments.release((second.task_id,), here.id)).task_ids == (first.task_id,), "another's"
        await attachments.release((first.task_id,), here.id)
        await cluster.until(lambda: here.network.overlays == {}, "it takes part no more")
        await cluster.store.update(lambda _view: [Remove(kind="node", id=other.id)])
        await cluster.until(lambda: not cluster.store.view.tasks_on(net), "what it had is free")
        with pytest.raises(Forbidden, match="network ingress not manually attachable"):
            await attachments.attach(replace(call, network="ingress"), here.id)

    scenario(tmp_path, 2, body)
