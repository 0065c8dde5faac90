from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from shoal.errors import InvalidArgument, NameConflict, NotBuilt, NotFound, OutOfSequence, ShoalError
from shoal.manager.control import Control, Rotation
from shoal.manager.lookup import find_service
from shoal.manager.service_plans import ServiceUpdate
from shoal.model.actions import Create, PatchService
from shoal.model.base import replace
from shoal.model.container_spec import ContainerSpec
from shoal.model.objects import Cluster, Endpoint, Node, NodeDescription, Service, UpdateStatus
from shoal.model.specs import (
    EndpointSpec,
    GlobalService,
    InitRequest,
    NetworkAttachmentConfig,
    NodeSpec,
    PortConfig,
    ReplicatedJob,
    ServiceMode,
    ServiceSpec,
    TaskSpec,
)
from shoal.model.states import Promotion, UpdateState
from shoal.store.store import Store
from tests.doubles.daemon import MemoryDaemon


def run(test: Callable[[Store, Control], Awaitable[None]]) -> None:
    async def main() -> None:
        daemon = MemoryDaemon()
        await daemon.init_swarm(InitRequest())
        assert daemon.the_manager is not None
        await test(daemon.the_manager.store, daemon.the_manager.control)

    asyncio.run(main())


def spec(name: str = "web", **changes: object) -> ServiceSpec:
    template = TaskSpec(container_spec=ContainerSpec(image="busybox"))
    return replace(ServiceSpec(name=name, task_template=template), **changes)


def service_of(store: Store, reference: str) -> Service:
    return find_service(store.view, reference)


async def refused(kind: type[ShoalError], text: str, work: Awaitable[object]) -> None:
    with pytest.raises(kind) as caught:
        await work
    assert text in caught.value.message


def test_names() -> None:
    async def test(store: Store, control: Control) -> None:
        first = await control.create_service(spec())
        await refused(
            NameConflict, "name conflicts with an existing object: service WEB", control.create_service(spec("WEB"))
        )
        nameless = await control.create_service(spec(""))
        assert "_" in service_of(store, nameless).spec.name
        assert service_of(store, "web").id == first
        assert service_of(store, first[:20]).id == first
        with pytest.raises(NotFound, match="service nope not found"):
            service_of(store, "nope")
        with pytest.raises(NotFound, match="service  not found"):
            service_of(store, "")

    run(test)


def test_an_ambiguous_prefix_is_refused() -> None:
    async def test(store: Store, control: Control) -> None:
        twins = [Service(id=f"abc{letter}", spec=spec(letter), spec_version=1) for letter in "xy"]
        await store.update(lambda _view: [Create(object=twin) for twin in twins])
        with pytest.raises(InvalidArgument, match=r"service abc is ambiguous \(2 matches found\)"):
            service_of(store, "abc")

    run(test)


def test_update_keeps_the_previous_spec_and_rollback_swaps() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec())
        first = service_of(store, id_)
        await refused(
            InvalidArgument,
            f"service {id_} does not have a previous spec",
            control.update_service(id_, ServiceUpdate(version=first.meta.version, spec=spec(), rollback="previous")),
        )
        await control.update_service(id_, ServiceUpdate(version=first.meta.version, spec=spec(labels={"v": "2"})))
        second = service_of(store, id_)
        assert (second.spec_version, second.previous_spec_version) == (2, 1)
        assert second.update_status is None
        for labels in ({}, {"v": "2"}):
            now = service_of(store, id_)
            back = ServiceUpdate(version=now.meta.version, spec=spec(), rollback="previous")
            await control.update_service(id_, back)
            rolled = service_of(store, id_)
            assert rolled.spec.labels == labels
            assert rolled.update_status is not None
            assert rolled.update_status.state == UpdateState.ROLLBACK_STARTED
            assert rolled.update_status.message == "manually requested rollback"
        versions = [revision.spec_version for revision in store.view.revisions_of(id_)]
        assert versions == sorted(set(versions))

    run(test)


def test_going_back_to_a_revision_by_its_number() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec(labels={"v": "1"}))
        for number in range(2, 13):
            labels = {"v": str(number)}
            version = service_of(store, id_).meta.version
            await control.update_service(id_, ServiceUpdate(version=version, spec=spec(labels=labels)))
        kept = [revision.spec_version for revision in store.view.revisions_of(id_)]
        assert kept == list(range(3, 13)), "the last ten"
        version = service_of(store, id_).meta.version
        await refused(InvalidArgument, "has no revision 2: kept are 3, 4", control.roll_back_service(id_, version, 2))
        await refused(InvalidArgument, "revision 12 is what", control.roll_back_service(id_, version, 12))
        await refused(OutOfSequence, "out of sequence", control.roll_back_service(id_, version - 1, 4))
        await control.roll_back_service(id_, version, 4)
        back = service_of(store, id_)
        assert (back.spec.labels, back.previous_spec_version) == ({"v": "4"}, 12)
        assert back.update_status is not None
        assert back.update_status.message == "manually requested rollback to revision 4"

    run(test)


def test_only_what_awaits_its_promotion_is_promoted() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec())
        await refused(
            InvalidArgument, "awaits no promotion: no update of it is under way", control.promote_service(id_)
        )
        paused = UpdateStatus(state=UpdateState.PAUSED)
        for promotion, is_refused in ((Promotion.NONE, True), (Promotion.AWAITED, False), (Promotion.HELD, False)):
            status = replace(paused, promotion=promotion)
            await store.update(lambda _view, s=status: [PatchService(id=id_, spec_version=1, update_status=s)])
            if is_refused:
                await refused(InvalidArgument, "its update is paused", control.promote_service(id_))
            else:
                await control.promote_service(id_)
                after = service_of(store, id_).update_status
                assert after is not None
                assert (after.state, after.promotion) == (UpdateState.UPDATING, Promotion.GIVEN)

    run(test)


def test_an_equal_spec_is_taken_but_makes_no_revision() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec())
        before = service_of(store, id_)
        # as it is read back, and as it was first written
        for again in (before.spec, spec()):
            now = service_of(store, id_)
            await control.update_service(id_, ServiceUpdate(version=now.meta.version, spec=again))
            after = service_of(store, id_)
            assert after.spec_version == before.spec_version == after.previous_spec_version
            assert after.meta.version > now.meta.version
        assert len(store.view.revisions_of(id_)) == 1

    run(test)


def test_what_an_update_may_not_change() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec())
        version = service_of(store, id_).meta.version

        def update(changed: ServiceSpec, at: int = version, **more: str) -> Awaitable[None]:
            return control.update_service(id_, ServiceUpdate(version=at, spec=changed, **more))

        await refused(NotBuilt, "renaming services is not supported", update(spec("other")))
        await refused(
            NotBuilt, "service mode change is not allowed", update(spec(mode=ServiceMode(global_=GlobalService())))
        )
        await refused(OutOfSequence, "update out of sequence", update(spec(labels={"a": "b"}), version - 1))
        await refused(InvalidArgument, "unrecognized rollback option", update(spec(), rollback="sideways"))
        await refused(InvalidArgument, "unsupported registryAuthFrom", update(spec(), registry_auth_from="odd"))
        await refused(
            NotFound, "service gone not found", control.update_service("gone", ServiceUpdate(version=1, spec=spec()))
        )
        assert service_of(store, id_).meta.version == version

    run(test)


def test_credentials_are_kept_over_updates() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec(), registry_auth="first")

        def auth() -> str:
            container = service_of(store, id_).spec.task_template.container_spec
            assert container is not None
            return container.pull_options.registry_auth if container.pull_options else ""

        async def update(labels: str, **more: str) -> None:
            changed = spec(labels={"v": labels})
            version = service_of(store, id_).meta.version
            await control.update_service(id_, ServiceUpdate(version=version, spec=changed, **more))

        assert auth() == "first"
        await update("2", registry_auth="second")
        assert auth() == "second"
        await update("3")
        assert auth() == "second"
        await update("4", registry_auth="third")
        await update("5", registry_auth_from="previous-spec")
        assert auth() == "second"

    run(test)


def test_published_ports_are_one_services_alone() -> None:
    async def test(store: Store, control: Control) -> None:
        port = EndpointSpec(ports=(PortConfig(target_port=80, published_port=8080),))
        id_ = await control.create_service(spec("repl", endpoint_spec=port))
        await refused(
            InvalidArgument,
            f"port '8080' is already in use by service 'repl' ({id_}) as an ingress port",
            control.create_service(spec("other", endpoint_spec=port)),
        )

    run(test)


def test_networks() -> None:
    async def test(store: Store, control: Control) -> None:
        def on(target: str) -> ServiceSpec:
            template = spec().task_template
            return spec(task_template=replace(template, networks=(NetworkAttachmentConfig(target=target),)))

        await refused(NotFound, "network nonet not found", control.create_service(on("nonet")))
        await refused(
            InvalidArgument,
            'Service cannot be explicitly attached to the ingress network "ingress"',
            control.create_service(on("ingress")),
        )

    run(test)


def test_every_update_of_a_job_is_a_new_run() -> None:
    async def test(store: Store, control: Control) -> None:
        job = spec(mode=ServiceMode(replicated_job=ReplicatedJob(max_concurrent=2)))
        id_ = await control.create_service(job)
        before = service_of(store, id_)
        assert before.job_status is not None
        assert before.job_status.iteration == 0
        await control.update_service(id_, ServiceUpdate(version=before.meta.version, spec=job))
        after = service_of(store, id_)
        assert after.job_status is not None
        assert after.job_status.iteration == 1

    run(test)


def test_nodes() -> None:
    async def test(store: Store, control: Control) -> None:
        manager = store.view.all(Node)[0]
        worker = Node(
            id="workernode",
            spec=NodeSpec(role="worker", availability="active"),
            number=2,
            description=NodeDescription(hostname="h2"),
        )
        await store.update(lambda _view: [Create(object=worker)])
        version = manager.meta.version
        await refused(
            InvalidArgument,
            "attempting to demote the last manager of the swarm",
            control.update_node(manager.id, version, NodeSpec(role="worker", availability="active")),
        )
        await refused(OutOfSequence, "update out of sequence", control.update_node("h2", 1, worker.spec))
        drained = NodeSpec(role="worker", availability="drain", labels={"zone": "a"})
        await control.update_node("h2", find_version(store, "workernode"), drained)
        found = store.view.get(Node, "workernode")
        assert found is not None
        assert found.spec == drained
        await refused(InvalidArgument, "is a cluster manager and is a member", control.remove_node(manager.id, True))
        await control.remove_node("worker")
        assert store.view.get(Node, "workernode") is None
        await refused(NotFound, "node worker not found", control.remove_node("worker"))

    run(test)


def find_version(store: Store, node_id: str) -> int:
    node = store.view.get(Node, node_id)
    assert node is not None
    return node.meta.version


def test_cluster_secrets_rotate() -> None:
    async def test(store: Store, control: Control) -> None:
        def cluster() -> Cluster:
            found = store.view.cluster()
            assert found is not None
            return found

        before = cluster()
        assert before.join_tokens is not None
        await control.update_cluster(before.meta.version, before.spec, Rotation(worker_token=True))
        after = cluster()
        assert after.join_tokens is not None
        assert after.join_tokens.worker != before.join_tokens.worker
        assert after.join_tokens.manager == before.join_tokens.manager
        await refused(
            OutOfSequence, "out of sequence", control.update_cluster(before.meta.version, before.spec, Rotation())
        )
        await control.update_cluster(after.meta.version, after.spec, Rotation(network_keys=True))
        assert cluster().network_key_generation == before.network_key_generation + 1
        assert cluster().network_keys_ordered_at_ns > before.network_keys_ordered_at_ns
        after = cluster()
        locked = replace(after.spec, encryption_config=replace(after.spec.encryption_config, auto_lock_managers=True))
        await control.update_cluster(after.meta.version, locked)
        assert cluster().unlock_key.startswith("SWMKEY-1-")
        await control.update_cluster(cluster().meta.version, after.spec)
        assert cluster().unlock_key == ""

    run(test)


def test_a_spec_written_meanwhile_is_not_overwritten() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec())
        seen = service_of(store, id_).meta.version
        await control.update_service(id_, ServiceUpdate(version=seen, spec=spec(labels={"a": "b"})))
        stale = ServiceUpdate(version=seen, spec=spec(labels={"c": "d"}))
        await refused(OutOfSequence, "update out of sequence", control.update_service(id_, stale))
        ahead = ServiceUpdate(version=service_of(store, id_).meta.version + 1, spec=spec(labels={"c": "d"}))
        await refused(OutOfSequence, "update out of sequence", control.update_service(id_, ahead))

    run(test)


def test_what_a_loop_notes_of_a_service_meanwhile_holds_no_update_up() -> None:
    async def test(store: Store, control: Control) -> None:
        id_ = await control.create_service(spec())
        service = service_of(store, id_)
        noted = PatchService(id=id_, spec_version=service.spec_version, endpoint=Endpoint(mode="dnsrr"))
        await store.update(lambda _view: [noted])
        assert service_of(store, id_).meta.version > service.meta.version
        update = ServiceUpdate(version=service.meta.version, spec=spec(labels={"a": "b"}))
        await control.update_service(id_, update)
        after = service_of(store, id_)
        assert (after.spec.labels, after.endpoint.mode) == ({"a": "b"}, "dnsrr")

    run(test)
