"""The stock docker command and docker-py as black-box clients of the API over a unix socket."""

from __future__ import annotations

import asyncio
import os
import shutil
import tempfile
from collections.abc import Awaitable, Callable

import docker
import pytest

from shoal.model.actions import Create
from shoal.model.container import LogLine
from shoal.model.objects import Task, TaskStatus
from shoal.model.states import TaskState
from tests.doubles.daemon import real_time_daemon
from tests.doubles.http import Api, serve

DEADLINE_SECONDS = 60.0
needs_docker = pytest.mark.skipif(shutil.which("docker") is None, reason="the docker command is not installed")


def run(test: Callable[[Api], Awaitable[None]]) -> None:
    async def main() -> None:
        daemon = real_time_daemon()
        daemon.engine.images.add("busybox:latest")
        async with asyncio.timeout(DEADLINE_SECONDS), serve(daemon) as api:
            await test(api)

    asyncio.run(main())


async def command(api: Api, *words: str, fails: bool = False) -> str:
    """Run `docker …` and return what it printed."""
    with tempfile.TemporaryDirectory(prefix="shoal-docker-") as home:
        process = await asyncio.create_subprocess_exec(
            "docker",
            *words,
            env={"DOCKER_HOST": f"unix://{api.socket}", "HOME": home, "PATH": os.environ["PATH"]},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        output, _ = await process.communicate()
    assert (process.returncode != 0) == fails, output.decode()
    return output.decode()


async def run_task(api: Api, service_id: str) -> None:
    assert api.daemon.the_manager is not None
    task = Task(
        id="taskofweb0000000000000001",
        service_id=service_id,
        spec_version=1,
        slot=1,
        node_id=api.daemon.node_id,
        status=TaskStatus(state=TaskState.RUNNING, timestamp_ns=api.daemon.clock.now_ns()),
    )
    await api.daemon.the_manager.store.update(lambda _view: [Create(object=task)])
    api.daemon.task_lines[task.id] = (LogLine(stream="stdout", at_ns=1_700_000_000_000_000_000, data=b"hello\n"),)


@needs_docker
def test_docker_command() -> None:
    async def test(api: Api) -> None:
        assert "Shoal" in await command(api, "version")
        assert "Swarm: inactive" in await command(api, "info")
        assert "docker swarm join --token SWMTKN-1-" in await command(api, "swarm", "init")
        info = await command(api, "info")
        assert "Is Manager: true" in info
        assert "Managers: 1" in info
        assert "already part of a swarm" in await command(api, "swarm", "init", fails=True)
        assert "Leader" in await command(api, "node", "ls")
        assert "Hostname:" in await command(api, "node", "inspect", "self", "--pretty")
        await command(api, "node", "update", "--label-add", "zone=a", "h1")
        create = ("service", "create", "-d", "--no-resolve-image", "--name", "web", "-p", "8080:80", "busybox")
        service_id = (await command(api, *create, "sleep", "100")).split()[0]
        assert "NAME" in await command(api, "service", "ls")
        await run_task(api, service_id)
        assert "1/1" in await command(api, "service", "ls")
        assert "Running" in await command(api, "service", "ps", "web")
        assert "Running" in await command(api, "node", "ps")
        assert "busybox:latest" in await command(api, "service", "inspect", "--pretty", "web")
        logs = await command(api, "service", "logs", "--timestamps", "web")
        assert "web.1.taskofweb000@h1" in logs
        assert "hello" in logs
        await command(api, "service", "update", "-d", "--env-add", "A=1", "web")
        await command(api, "service", "scale", "-d", "web=3")
        await command(api, "service", "rollback", "-d", "web")
        assert "1/1" in await command(api, "service", "ls")
        assert "in use by service 'web'" in await command(
            api, "service", "create", "-d", "--no-resolve-image", "-p", "8080:80", "busybox", fails=True
        )
        assert "no such service: nope" in await command(api, "service", "inspect", "nope", fails=True)
        await command(api, "service", "rm", "web")

    run(test)


@needs_docker
def test_docker_command_on_the_rest() -> None:
    async def test(api: Api) -> None:
        await command(api, "swarm", "init")
        worker = await command(api, "swarm", "join-token", "-q", "worker")
        assert await command(api, "swarm", "join-token", "-q", "--rotate", "worker") != worker
        await command(api, "swarm", "update", "--task-history-limit", "3")
        assert "busybox" in await command(api, "images")
        assert "sha256" in await command(api, "image", "inspect", "busybox")
        assert "CONTAINER ID" in await command(api, "ps", "-a")
        assert "ingress" in await command(api, "network", "ls")
        assert "DRIVER" in await command(api, "volume", "ls")
        assert "TYPE" in await command(api, "system", "df")
        with tempfile.NamedTemporaryFile(prefix="shoal-config-") as file:
            file.write(b"data")
            file.flush()
            for kind in ("secret", "config"):
                await command(api, kind, "create", "one", file.name)
                assert "one" in await command(api, kind, "ls")
                assert "one" in await command(api, kind, "inspect", "--pretty", "one")
                await command(api, kind, "rm", "one")
        assert len((await command(api, "create", "--name", "plain", "busybox", "true")).strip()) == 64
        assert "plain" in await command(api, "rm", "plain")
        assert "outside Shoal" in await command(api, "search", "plain", fails=True)
        events = await command(api, "events", "--since=1h", "--until=-1s", "--filter", "type=config")
        assert "config create" in events
        assert "Node left the swarm." in await command(api, "swarm", "leave", "-f")

    run(test)


def test_docker_py() -> None:
    def use(socket: str) -> None:
        client = docker.DockerClient(base_url=f"unix://{socket}", version="auto")
        try:
            assert client.ping()
            assert client.version()["ApiVersion"] == "1.50"
            assert client.swarm.init(advertise_addr="10.99.0.1")
            assert client.info()["Swarm"]["ControlAvailable"]
            assert client.nodes.list()[0].attrs["ManagerStatus"]["Leader"]
            service = client.services.create("busybox", command=["sleep", "1"], name="web", labels={"a": "b"})
            assert [each.name for each in client.services.list(filters={"label": "a=b"})] == ["web"]
            assert service.scale(2)
            service.reload()
            assert service.attrs["Spec"]["Mode"]["Replicated"]["Replicas"] == 2
            assert service.update(labels={"a": "c"}, fetch_current_spec=True) == {"Warnings": None}
            service.reload()
            assert service.attrs["Spec"]["Labels"] == {"a": "c"}
            assert service.tasks() == []
            secret = client.secrets.create(name="s", data=b"x")
            assert client.secrets.get(secret.id).name == "s"
            with pytest.raises(docker.errors.NotFound):
                client.services.get("nope")
            assert service.remove()
            assert client.images.list()[0].tags == ["busybox:latest"]
            assert client.containers.list(all=True) == []
            assert client.networks.list()
            assert client.swarm.leave(force=True)
            with pytest.raises(docker.errors.APIError, match="This node is not a swarm manager"):
                client.services.list()
        finally:
            client.close()

    async def test(api: Api) -> None:
        await asyncio.to_thread(use, api.socket)

    run(test)
