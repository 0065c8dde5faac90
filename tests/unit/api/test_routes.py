from __future__ import annotations

import asyncio
import json
from typing import Any

from shoal.model.actions import Create, PatchTask
from shoal.model.container import ContainerConfig, LogLine, RemoteManifest, RemotePlatform
from shoal.model.objects import Task, TaskStatus
from shoal.model.states import LocalNodeState, TaskState
from tests.doubles.http import Api, run_api

SPEC: dict[str, Any] = {"Name": "web", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}}}


async def create(api: Api, **changes: object) -> str:
    reply = await api.call("POST", "/services/create", SPEC | changes)
    assert reply.status == 201, reply.body
    id_: str = reply.json["ID"]
    return id_


async def add_task(api: Api, service_id: str, task_id: str, state: TaskState = TaskState.RUNNING, **more: Any) -> None:
    assert api.daemon.the_manager is not None
    task = Task(
        id=task_id,
        service_id=service_id,
        spec_version=1,
        slot=more.pop("slot", 1),
        node_id=api.daemon.node_id,
        status=TaskStatus(state=state, timestamp_ns=1),
        **more,
    )
    await api.daemon.the_manager.store.update(lambda _view: [Create(object=task)])


def test_headers_and_versions() -> None:
    async def test(api: Api) -> None:
        for path in ("/_ping", "/v1.24/_ping", "/v1.50/version", "/nosuch", "/v1.99/info"):
            reply = await api.call("GET", path)
            assert reply.headers["Server"] == "Docker/28.2.2 (linux)"
            assert reply.headers["Api-Version"] == "1.50"
            assert reply.headers["Docker-Experimental"] == "false"
        assert (await api.call("GET", "/_ping")).headers["Swarm"] == "inactive"
        for method, path in (("PUT", "/services"), ("GET", "/nosuch"), ("GET", "/v1.40/nosuch")):
            reply = await api.call(method, path)
            assert (reply.status, reply.message) == (404, "page not found")
        assert (await api.call("GET", "/v1./info")).status == 400

    run_api(test, in_swarm=False)


def test_outside_the_product_says_so() -> None:
    async def test(api: Api) -> None:
        for method, path, word in (
            ("POST", "/build", "building images"),
            ("GET", "/images/search?term=x", "searching"),
            ("PUT", "/volumes/x", "cluster volumes"),
        ):
            reply = await api.call(method, path, {})
            assert reply.status == 501, path
            assert word in reply.message

    run_api(test)


def test_who_is_no_manager_is_told_what_to_do() -> None:
    async def test(api: Api) -> None:
        for state, text in (
            (LocalNodeState.INACTIVE, 'Use "docker swarm init"'),
            (LocalNodeState.ACTIVE, "Worker nodes can't be used"),
            (LocalNodeState.LOCKED, "needs to be unlocked"),
        ):
            api.daemon.state = state
            for path in ("/services", "/swarm", "/nodes", "/tasks", "/secrets", "/configs"):
                reply = await api.call("GET", path)
                assert reply.status == 503
                assert text in reply.message

    run_api(test, in_swarm=False)


def test_the_swarm_is_made_and_left() -> None:
    async def test(api: Api) -> None:
        node_id = await api.init()
        assert (await api.call("POST", "/swarm/init", {})).status == 503
        assert (await api.get("/info"))["Swarm"]["NodeID"] == node_id
        swarm = await api.get("/swarm")
        assert swarm["JoinTokens"]["Worker"].startswith("SWMTKN-1-")
        path = f"/swarm/update?version={swarm['Version']['Index']}&rotateWorkerToken=true"
        assert (await api.call("POST", path, swarm["Spec"])).status == 200
        assert (await api.get("/swarm"))["JoinTokens"]["Worker"] != swarm["JoinTokens"]["Worker"]
        assert (await api.call("POST", "/swarm/leave")).status == 503
        assert (await api.call("POST", "/swarm/leave?force=1")).status == 200
        assert (await api.get("/info"))["Swarm"]["LocalNodeState"] == "inactive"
        for body, text in (
            ({"Spec": {"Name": "other"}}, "must be named"),
            ({"Availability": "maybe"}, "invalid Availability"),
            ({"DataPathPort": 80}, "1024-49151"),
            ({"SubnetSize": 30}, "out of range"),
        ):
            reply = await api.call("POST", "/swarm/init", body)
            assert reply.status == 400
            assert text in reply.message

    run_api(test, in_swarm=False)


def test_what_is_read_can_be_written_back() -> None:
    async def test(api: Api) -> None:
        id_ = await create(api, Mode={"Replicated": {"Replicas": 3}}, UpdateConfig={"Parallelism": 2})
        before = await api.get(f"/services/{id_}")
        path = f"/services/{id_}/update?version={before['Version']['Index']}"
        reply = await api.call("POST", path, before["Spec"])
        assert (reply.status, reply.json) == (200, {"Warnings": None})
        after = await api.get(f"/services/{id_}")
        assert after["Spec"] == before["Spec"] == after["PreviousSpec"]
        changed = {**before["Spec"], "Labels": {"a": "b"}}
        assert (await api.call("POST", path, changed)).status == 200
        assert (await api.call("POST", path, before["Spec"])).status == 500, "the spec is another one by now"

    run_api(test)


def test_credentials_never_come_back() -> None:
    async def test(api: Api) -> None:
        reply = await api.call("POST", "/services/create", SPEC, X_Registry_Auth="c2VjcmV0LWF1dGg=")
        await add_task(api, reply.json["ID"], "t1")
        for path in ("/services", f"/services/{reply.json['ID']}", "/tasks", "/tasks/t1"):
            text = (await api.call("GET", path)).body
            assert b"c2VjcmV0" not in text
            assert b"PullOptions" not in text

    run_api(test)


def test_bad_bodies() -> None:
    async def test(api: Api) -> None:
        for headers, raw, status in (
            ({}, b'{"Name":', 400),
            ({"Content_Type": "text/plain"}, b"{}", 400),
            ({}, b" " * (5 << 20), 413),
        ):
            reply = await api.call("POST", "/services/create", raw=raw, **headers)
            assert reply.status == status
            assert reply.message
        assert (await api.get("/services")) == []

    run_api(test)


def test_lists_and_their_filters() -> None:
    async def test(api: Api) -> None:
        web = await create(api, Labels={"tier": "front"})
        job = await create(api, Name="once", Mode={"GlobalJob": {}})
        await add_task(api, web, "task1")
        await add_task(api, web, "task2", TaskState.FAILED, slot=2, desired_state=TaskState.SHUTDOWN)
        await add_task(api, job, "task3", TaskState.COMPLETE, desired_state=TaskState.COMPLETE, job_iteration=0)

        async def ids(path: str, **filters: list[str]) -> list[str]:
            from urllib.parse import quote

            found = await api.get(
                f"{path}?filters={quote(json.dumps({k.replace('_', '-', 1): v for k, v in filters.items()}))}"
            )
            return sorted(each["ID"] for each in found)

        assert await ids("/services", name=["we"]) == [web]
        assert await ids("/services", mode=["global-job"]) == [job]
        assert await ids("/services", label=["tier=front"]) == [web]
        assert await ids("/services", label=["tier=back"]) == []
        assert await ids("/tasks", service=["web"]) == ["task1", "task2"]
        assert await ids("/tasks", service=["web"], desired_state=["running"]) == ["task1"]
        assert await ids("/tasks", node=["h1"]) == ["task1", "task2", "task3"]
        assert await ids("/tasks", name=["web.2"]) == ["task2"]
        assert await ids("/tasks", label=["tier"]) == ["task1", "task2"]
        assert await ids("/nodes", role=["worker"]) == []
        assert (await api.call("GET", '/tasks?filters={"service":["gone"]}')).status == 404
        status = {each["ID"]: each["ServiceStatus"] for each in await api.get("/services?status=true")}
        assert status[web] == {"RunningTasks": 1, "DesiredTasks": 1, "CompletedTasks": 0}
        assert status[job] == {"RunningTasks": 0, "DesiredTasks": 0, "CompletedTasks": 1}

    run_api(test)


def test_up_to_date_tasks() -> None:
    async def test(api: Api) -> None:
        id_ = await create(api)
        await add_task(api, id_, "task1")
        service = await api.get(f"/services/{id_}")
        changed = service["Spec"]
        changed["TaskTemplate"]["ForceUpdate"] = 1
        path = f"/services/{id_}/update?version={service['Version']['Index']}"
        query = '/tasks?filters={"_up-to-date":{"true":true},"service":{"web":true}}'
        assert len(await api.get(query)) == 1
        assert (await api.call("POST", path, changed)).status == 200
        assert await api.get(query) == []

    run_api(test)


def test_logs_of_a_task_that_starts_later_are_followed() -> None:
    async def test(api: Api) -> None:
        id_ = await create(api)
        lines = (LogLine(stream="stdout", at_ns=5, data=b"out\n"), LogLine(stream="stderr", at_ns=6, data=b"err\n"))
        api.daemon.task_lines["later"] = lines
        async with api.session.get(f"http://docker/services/{id_}/logs?stdout=1&follow=1") as response:
            assert response.headers["Content-Type"] == "application/vnd.docker.multiplexed-stream"
            await add_task(api, id_, "later", TaskState.PREPARING)
            assert api.daemon.the_manager is not None
            running = PatchTask(id="later", status=TaskStatus(state=TaskState.RUNNING))
            await api.daemon.the_manager.store.update(lambda _view: [running])
            assert await response.content.readexactly(12) == b"\x01\0\0\0\0\0\0\x04out\n"
        reply = await api.call("GET", f"/services/{id_}/logs?stdout=1&stderr=1&timestamps=1&details=1")
        assert reply.body.count(b"com.docker.swarm.task.id=later") == 2
        assert b"1970-01-01T00:00:00.000000005Z " in reply.body
        for query, status in (("", 500), ("?stdout=1&tail=x", 400), ("?stdout=1&since=x", 400)):
            assert (await api.call("GET", f"/services/{id_}/logs{query}")).status == status

    run_api(test)


def test_logs_of_a_terminal_are_raw() -> None:
    async def test(api: Api) -> None:
        id_ = await create(api, TaskTemplate={"ContainerSpec": {"Image": "busybox", "TTY": True}})
        await add_task(api, id_, "t1")
        api.daemon.task_lines["t1"] = (LogLine(stream="stdout", at_ns=5, data=b"out\r\n"),)
        reply = await api.call("GET", "/tasks/t1/logs?stdout=1")
        assert reply.body == b"out\r\n"
        assert reply.headers["Content-Type"] == "application/vnd.docker.raw-stream"

    run_api(test)


def test_events_are_streamed() -> None:
    async def test(api: Api) -> None:
        await create(api)
        async with api.session.get('http://docker/events?since=1&filters={"type":["service"]}') as response:
            first = json.loads(await response.content.readline())
            assert (first["Action"], first["Actor"]["Attributes"]["name"]) == ("create", "web")
            assert (await api.call("DELETE", "/services/web")).status == 200
            second = json.loads(await response.content.readline())
            assert second["Action"] == "remove"
            assert second["Actor"]["Attributes"]["shoal.actor"].startswith("uid:")

    run_api(test)


def test_containers() -> None:
    async def test(api: Api) -> None:
        engine = api.daemon.engine
        engine.images.add("busybox:latest")
        made = await engine.create(ContainerConfig(name="web.1.t", image="busybox", labels={"a": "b"}, command=("sh",)))
        assert await api.get("/containers/json") == []
        assert [each["Id"] for each in await api.get("/containers/json?all=1")] == [made.id]
        assert (await api.call("POST", "/containers/web.1.t/start")).status == 204
        assert (await api.call("POST", "/containers/web.1.t/start")).status == 304
        shown = await api.get(f"/containers/{made.id[:12]}/json")
        assert (shown["Name"], shown["State"]["Running"], shown["Path"]) == ("/web.1.t", True, "sh")
        engine.lines[made.id] = (LogLine(stream="stdout", at_ns=1, data=b"hi\n"),)
        reply = await api.call("GET", f"/containers/{made.id}/logs?stdout=1")
        assert reply.body == b"\x01\0\0\0\0\0\0\x03hi\n"
        assert (await api.call("POST", "/containers/web.1.t/kill?signal=HUP")).status == 204
        assert (await api.call("DELETE", "/containers/web.1.t")).status == 409
        assert (await api.call("POST", "/containers/web.1.t/stop?t=3")).status == 204
        assert engine.signals == [(made.id, "HUP"), (made.id, "stop 3.0 None")]
        assert (await api.call("POST", "/containers/web.1.t/wait")).json == {"StatusCode": 137}
        assert await api.get('/containers/json?filters={"status":["exited"],"label":["a=b"]}') != []
        assert await api.get('/containers/json?all=1&filters={"label":["a=c"]}') == []
        assert (await api.call("DELETE", "/containers/web.1.t")).status == 204
        reply = await api.call("GET", "/containers/web.1.t/json")
        assert (reply.status, reply.message) == (404, "No such container: web.1.t")

    run_api(test)


def test_images() -> None:
    async def test(api: Api) -> None:
        images = api.daemon.engine.images
        reply = await api.call("POST", "/images/create?fromImage=nosuch&tag=v0")
        assert reply.status == 404
        images.registry["busybox:latest"] = images.add("busybox:latest")
        images.records.clear()
        auth = "eyJ1c2VybmFtZSI6ImEiLCJwYXNzd29yZCI6ImIifQ=="
        reply = await api.call("POST", "/images/create?fromImage=busybox&tag=latest", X_Registry_Auth=auth)
        lines = [json.loads(line) for line in reply.body.splitlines()]
        assert lines[1]["progressDetail"] == {"current": 1, "total": 2}
        credentials = images.credentials[-1]
        assert credentials is not None
        assert (credentials.username, credentials.password) == ("a", "b")
        reply = await api.call("POST", "/images/create?fromSrc=-&repo=mine&tag=1", raw=b"x" * 100_000)
        assert reply.json["status"].startswith("sha256:")
        reply = await api.call("POST", "/images/load", raw=b"x" * (6 << 20))
        assert b"Loaded image: loaded:latest" in reply.body
        assert (await api.call("POST", "/images/busybox/tag?repo=host:5000/a/b&tag=v1")).status == 201
        assert "host:5000/a/b:v1" in (await api.get("/images/host:5000/a/b:v1/json"))["RepoTags"]
        assert len(await api.get('/images/json?filters={"reference":["mine"]}')) == 1
        assert (await api.call("GET", "/images/get?names=mine:1")).body.startswith(b"sha256:")
        assert (await api.call("DELETE", "/images/host:5000/a/b:v1")).json[0] == {"Untagged": "busybox:latest"}
        reply = await api.call("GET", "/images/nosuch/json")
        assert (reply.status, reply.message) == (404, "No such image: nosuch")
        assert (await api.call("POST", "/images/create?fromImage=UPPER")).status == 400

    run_api(test, in_swarm=False)


def test_distribution() -> None:
    async def test(api: Api) -> None:
        digest = "sha256:" + "a" * 64
        platforms = (RemotePlatform(architecture="amd64", os="linux"),)
        api.daemon.remote["host:5000/a/b:v1"] = RemoteManifest(digest=digest, media_type="m", platforms=platforms)
        found = await api.get("/distribution/host:5000/a/b:v1/json")
        assert found["Descriptor"]["digest"] == digest
        assert found["Platforms"] == [{"architecture": "amd64", "os": "linux"}]
        assert (await api.call("GET", "/distribution/busybox/json")).status == 404
        assert (await api.call("GET", "/distribution/UP/json")).status == 400

    run_api(test, in_swarm=False)


def test_a_listener_that_goes_away_ends_its_stream() -> None:
    async def test(api: Api) -> None:
        before = asyncio.all_tasks()
        async with api.session.get("http://docker/events"):
            streams = [task for task in asyncio.all_tasks() - before if "_send" in repr(task.get_coro())]
        assert streams
        _, left = await asyncio.wait(streams, timeout=10)
        assert not left

    run_api(test)
