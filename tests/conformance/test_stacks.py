"""`docker stack`, which is all in the stock command: what it creates, asks and waits for."""

import pytest

from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

STACK = """
services:
  web:
    image: busybox:latest
    command: ["sh", "-c", "hostname > /www/index.html; exec httpd -f -p 80 -h /www"]
    ports: ["8095:80"]
    deploy: {replicas: 2}
    stop_grace_period: 0s
    networks: [front, default]
  client:
    image: busybox:latest
    command: sleep 1000
    stop_grace_period: 0s
    networks: {front: {aliases: [asker]}}
networks:
  front: {internal: true}
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "stack.yml"
    path.write_text('version: "3.8"\n' + STACK)
    return str(path)


def deploy(docker, file):
    return docker("stack", "deploy", "--resolve-image", "never", "--detach=true", "-c", file, "shop")


def services(docker):
    return set(docker("stack", "services", "shop", "--format", "{{.Name}} {{.Replicas}}").splitlines())


def test_a_stack_comes_changes_and_goes(docker, file):
    made = deploy(docker, file)
    for line in ("Creating network shop_default", "Creating network shop_front", "Creating service shop_web"):
        assert line in made
    wait_for(lambda: services(docker) == {"shop_web 2/2", "shop_client 1/1"}, "all of it runs")
    assert docker("stack", "ls", "--format", "{{.Name}} {{.Services}}") == "shop 2\n"
    tasks = docker("stack", "ps", "shop", "--format", "{{.Name}} {{.DesiredState}}").splitlines()
    assert sorted(tasks) == ["shop_client.1 Running", "shop_web.1 Running", "shop_web.2 Running"]
    client = docker("ps", "-q", "--filter", "name=shop_client").strip()
    for name in ("web", "shop_web", "tasks.web"):
        assert "Address: 10." in docker("exec", client, "nslookup", name, check=False), name
    assert "Updating service shop_web" in deploy(docker, file)
    again = docker("stack", "ps", "shop", "--format", "{{.Name}} {{.DesiredState}}").splitlines()
    assert sorted(again) == sorted(tasks), "an equal file replaces nothing"
    removed = docker("stack", "rm", "shop")
    assert "Removing network shop_front" in removed
    assert "Failed" not in removed, "networks wait for their last tasks"
    deploy(docker, file)
    wait_for(lambda: services(docker) == {"shop_web 2/2", "shop_client 1/1"}, "it runs again")
    docker("stack", "rm", "shop")
    assert docker("network", "ls", "-q", "--filter", "label=com.docker.stack.namespace=shop") == ""
