"""docker-py against a real daemon: services, tasks, nodes, images, containers."""

import docker
import pytest
from docker.types import EndpointSpec, Resources, RestartPolicy, ServiceMode, UpdateConfig

from shoal.lab.image import busybox_archive
from tests.conformance.conftest import SERVE_HOSTNAME
from tests.system.daemon import wait_for

pytestmark = pytest.mark.root


@pytest.fixture
def client(daemon):
    client = docker.DockerClient(base_url=daemon.host, version="auto")
    yield client
    for service in client.services.list():
        service.remove()
    # not containers.list: it looks at each again, and one may have gone by then
    wait_for(lambda: client.api.containers(all=True) == [], "no container")
    client.close()


def running(service):
    tasks = service.tasks(filters={"desired-state": "running"})
    return [task for task in tasks if task["Status"]["State"] == "running"]


def test_services_and_tasks(daemon, client):
    service = client.services.create(
        "busybox",
        ["sh", "-c", SERVE_HOSTNAME],
        name="web",
        labels={"a": "b"},
        env=["X=1"],
        mode=ServiceMode("replicated", 2),
        endpoint_spec=EndpointSpec(ports={8087: 80}),
        resources=Resources(mem_limit=64 << 20),
        stop_grace_period=0,
        restart_policy=RestartPolicy("any", delay=0),
        update_config=UpdateConfig(parallelism=2, monitor=100_000_000),
    )
    wait_for(lambda: len(running(service)) == 2, "both run")
    assert {task["Slot"] for task in running(service)} == {1, 2}
    assert len(daemon.execute("curl", "-sS", "--max-time", "5", "http://127.0.0.1:8087").stdout.strip()) == 12
    service.reload()
    assert service.scale(3)
    wait_for(lambda: len(running(service)) == 3, "three run")
    before = {task["ID"] for task in running(service)}
    service.reload()
    service.update(env=["X=2"], fetch_current_spec=True)
    wait_for(lambda: len(found := running(service)) == 3 and not before & {t["ID"] for t in found}, "all are new")
    service.reload()
    wait_for(lambda: service.reload() or service.attrs["UpdateStatus"]["State"] == "completed", "the update is done")
    assert client.services.get("web").id == service.id
    assert [each.name for each in client.services.list(filters={"label": "a=b"}, status=True)] == ["web"]
    assert b"".join(service.logs(stdout=True)) == b""
    assert service.force_update()
    with pytest.raises(
        docker.errors.APIError, match="name conflicts with an existing object: service web already exists"
    ):
        client.services.create("busybox", ["true"], name="web")


def test_global_service_and_nodes(client):
    (node,) = client.nodes.list()
    assert node.attrs["Status"]["State"] == "ready"
    assert node.update({"Availability": "active", "Role": "manager", "Labels": {"zone": "a"}})
    service = client.services.create("busybox", ["sleep", "999"], name="all", mode="global", stop_grace_period=0,
                                     constraints=["node.labels.zone==a"])  # fmt: skip
    wait_for(lambda: len(running(service)) == 1, "it runs")
    assert running(service)[0]["NodeID"] == node.id
    node.reload()
    assert node.attrs["Spec"]["Labels"] == {"zone": "a"}
    assert node.update({"Availability": "active", "Role": "manager", "Labels": {}})
    wait_for(lambda: not running(service), "it no longer fits")


def test_images(client):
    (made,) = client.images.load(b"".join(client.images.get("busybox:latest").save(named=True)))
    assert "busybox:latest" in made.tags
    assert made.tag("copy", "two")
    assert client.images.get("copy:two").id == made.id
    client.images.remove("copy:two")
    client.api.import_image_from_data(busybox_archive({"etc/new": "x"}), repository="fresh", tag="1")
    fresh = client.images.get("fresh:1")
    assert fresh.id != made.id
    client.images.remove("fresh:1")
    with pytest.raises(docker.errors.ImageNotFound):
        client.images.get("fresh:1")


def test_containers(client):
    service = client.services.create(
        "busybox",
        ["sh", "-c", "echo hello; exec sleep 999"],
        name="c",
        stop_grace_period=0,
        restart_policy=RestartPolicy("any", delay=0),
        container_labels={"mine": "yes"},
    )
    wait_for(lambda: running(service), "it runs")
    (container,) = client.containers.list(filters={"label": "mine=yes"})
    assert container.status == "running"
    assert container.name.startswith("c.1.")
    assert container.image.tags == ["busybox:latest"]
    wait_for(lambda: container.logs() == b"hello\n", "its output")
    container.kill()
    assert container.wait()["StatusCode"] == 137
    wait_for(
        lambda: [each for each in client.containers.list(ignore_removed=True) if each.id != container.id],
        "another is there",
    )
    container.reload()
    assert container.status == "exited"
    with pytest.raises(docker.errors.NotFound):
        client.containers.get("nope")
