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
    deploy: {replicas: 2, update_config: {monitor: 100ms}}
    stop_grace_period: 0s
    networks: [front, default]
  client:
    image: busybox:latest
    command: sleep 1000
    deploy: {update_config: {monitor: 100ms}}
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


OWN = (
    STACK
    + """
    configs: [{source: page, target: /etc/page}]
    secrets: [word]
    environment: {A: "1"}
configs: {page: {file: ./page}}
secrets: {word: {file: ./word}}
"""
)


def tasks_of(docker):
    return sorted(docker("stack", "ps", "shop", "-q", "--no-trunc", "--filter", "desired-state=running").split())


def test_shoal_and_docker_make_the_same_of_a_file(daemon, docker, tmp_path):
    text = OWN.replace("networks:\n  front: {internal: true}\n", "") + "networks:\n  front: {internal: true}\n"
    (tmp_path / "stack.yml").write_text('version: "3.8"\n' + text)
    (tmp_path / "page").write_text("one")
    (tmp_path / "word").write_text("secret")
    file = str(tmp_path / "stack.yml")
    arguments = ("stack", "deploy", "--resolve-image", "never", "-c", file)

    planned = daemon.shoal("stack", "plan", "-c", file, "shop").stdout
    assert "+ service shop_web is made" in planned
    assert "6 to make, 0 to update, 0 to keep" in planned
    assert "There is room for all tasks.\n" in planned
    (tmp_path / "large.yml").write_text("services: {web: {deploy: {resources: {reservations: {memory: 900G}}}}}\n")
    planned = daemon.shoal("stack", "plan", "-c", file, "-c", str(tmp_path / "large.yml"), "shop").stdout
    assert "! shop_web: 0 of 2 tasks have a node: no suitable node (insufficient resources on 1 node)" in planned
    made = daemon.shoal(*arguments, "--wait", "shop").stdout
    assert "Creating service shop_web" in made
    assert services(docker) == {"shop_web 2/2", "shop_client 1/1"}
    running = tasks_of(docker)
    docker("stack", "deploy", "--resolve-image", "never", "--detach=true", "-c", file, "shop")
    assert tasks_of(docker) == running, "the docker command asks for the same"
    kept = daemon.shoal("stack", "plan", "-c", file, "shop").stdout
    assert "  service shop_client is kept" in kept
    daemon.shoal(*arguments, "--wait", "shop")
    assert tasks_of(docker) == running

    (tmp_path / "page").write_text("two")
    (tmp_path / "stack.yml").write_text(text.replace("replicas: 2", "replicas: 1").replace('A: "1"', 'A: "2"'))
    planned = daemon.shoal("stack", "deploy", "--dry-run", "-c", file, "shop").stdout
    assert "~ service shop_web is updated: its tasks are kept\n      Mode.Replicated.Replicas: 2 -> 1\n" in planned
    assert "~ service shop_client is updated: its tasks are replaced" in planned
    assert "TaskTemplate.ContainerSpec.Env[0]: A=1 -> A=2" in planned
    assert tasks_of(docker) == running, "a dry run changes nothing"
    daemon.shoal(*arguments, "--wait", "shop")
    assert services(docker) == {"shop_web 1/1", "shop_client 1/1"}
    client = docker("ps", "-q", "--filter", "name=shop_client").strip()
    assert docker("exec", client, "cat", "/etc/page", "/run/secrets/word") == "twosecret"

    removed = daemon.shoal("stack", "rm", "--wait", "shop").stdout
    assert "Removing config shop_page" in removed
    assert daemon.shoal("stack", "ls", "--format", "{{.Name}}").stdout == ""


def test_a_file_with_a_slip_says_where(daemon, tmp_path):
    file = tmp_path / "stack.yml"
    file.write_text("services:\n  web:\n    image: busybox\n    replica: 2\n")
    refused = daemon.shoal("stack", "deploy", "-c", str(file), "shop", check=False)
    assert refused.returncode == 1
    assert f'{file}:4: services.web.replica: unknown key "replica"' in refused.stderr
    assert daemon.shoal("stack", "ps", "shop", check=False).stderr == "nothing found in stack: shop\n"


def test_services_wait_for_those_they_depend_on(daemon, docker, tmp_path):
    text = """
services:
  app:
    image: busybox
    command: sleep 1000
    stop_grace_period: 0s
    depends_on: {migrate: {condition: service_completed_successfully}}
  migrate:
    image: busybox
    command: sh -c "until test -e /gate/open; do sleep 0.05; done"
    volumes: ["%s:/gate"]
    deploy: {mode: replicated-job}
"""
    (tmp_path / "gate").mkdir()
    (tmp_path / "stack.yml").write_text(text % (tmp_path / "gate"))
    daemon.shoal("stack", "deploy", "--resolve-image", "never", "-c", str(tmp_path / "stack.yml"), "shop")
    shown = ("service", "ps", "--no-trunc", "--format", "{{.CurrentState}} {{.Error}}", "shop_app")
    wait_for(lambda: 'waits for service shop_migrate to complete"' in docker(*shown), "the reason")
    assert docker(*shown).startswith("Pending")
    (tmp_path / "gate" / "open").touch()
    wait_for(lambda: docker(*shown).startswith("Running"), "its turn")
    daemon.shoal("stack", "rm", "--wait", "shop")
