"""Volumes through the stock docker command: those without a name, shared ones, filters, pruning, events."""

from __future__ import annotations

import json

import pytest

from tests.system.daemon import wait_for

pytestmark = pytest.mark.root


def listed(docker, *filters):
    words = [word for each in filters for word in ("--filter", each)]
    return set(docker("volume", "ls", "-q", *words).split())


def test_volumes_without_a_name(daemon, docker):
    docker("import", "-c", "VOLUME /of-image", rootfs(daemon), "withvolume")
    docker("create", "--name", "box", "-v", "/own", "-v", "named:/named", "withvolume", "sh", "-c", "echo x >/own/x")
    # they are there before the container runs
    mounts = {mount["Destination"]: mount for mount in json.loads(docker("inspect", "box"))[0]["Mounts"]}
    assert set(mounts) == {"/own", "/named", "/of-image"}
    own = mounts["/own"]["Name"]
    assert listed(docker) == {own, "named", mounts["/of-image"]["Name"]}
    assert mounts["/own"]["Source"] == docker("volume", "inspect", own, "--format", "{{.Mountpoint}}").strip()
    labels = json.loads(docker("volume", "inspect", own))[0]["Labels"]
    assert labels == {"com.docker.volume.anonymous": ""}
    docker("start", "-a", "box")
    refused = docker("volume", "rm", own, check=False)
    assert f"remove {own}: volume is in use" in refused
    # another container keeps what it takes over
    read = ("run", "-d", "--name", "second", "--volumes-from", "box:ro", "busybox")
    docker(*read, "sh", "-c", "cat /own/x; touch /own/y; sleep 1000")
    wait_for(lambda: "Read-only file system" in docker_logs(daemon, "second"), "it reads and cannot write")
    assert docker_logs(daemon, "second").startswith("x\n")
    docker("rm", "box")
    assert listed(docker) == {own, "named", mounts["/of-image"]["Name"]}
    docker("rm", "-f", "second")
    assert listed(docker) == {"named"}
    docker("volume", "rm", "named")
    docker("rmi", "withvolume")


def rootfs(daemon):
    path = daemon.root / "rootfs.tar"
    daemon.docker("create", "--name", "source", "busybox", "true")
    daemon.docker("export", "-o", str(path), "source")
    daemon.docker("rm", "source")
    return str(path)


def docker_logs(daemon, name):
    done = daemon.docker("logs", name)
    return done.stdout + done.stderr


def test_filters_and_pruning(daemon, docker):
    docker("volume", "create", "--label", "a=1", "first")
    docker("volume", "create", "second")
    unnamed = docker("volume", "create").strip()
    docker("create", "--name", "user", "-v", "first:/x", "busybox", "true")
    assert listed(docker, "dangling=true") == {"second", unnamed}
    assert listed(docker, "dangling=false") == {"first"}
    assert listed(docker, "label=a=1") == listed(docker, "name=fir") == {"first"}
    assert listed(docker, "driver=local") == {"first", "second", unnamed}
    assert listed(docker, "driver=other") == set()
    assert unnamed in docker("volume", "prune", "-f")
    assert listed(docker) == {"first", "second"}
    docker("rm", "user")
    said = docker("volume", "prune", "-af", "--filter", "label!=a")
    assert "second" in said
    assert listed(docker) == {"first"}
    docker("volume", "prune", "-af")
    assert listed(docker) == set()


def test_events(daemon, docker):
    since = daemon.request("GET", "/info")[1]["SystemTime"]
    docker("volume", "create", "told")
    docker("run", "--rm", "-v", "told:/told", "-v", "/unnamed", "busybox", "true")
    docker("volume", "rm", "told")
    until = daemon.request("GET", "/info")[1]["SystemTime"]
    words = ("events", "--since", since, "--until", until, "--filter", "type=volume", "--format", "{{json .}}")
    told = [json.loads(line) for line in docker(*words).splitlines()]
    of_named = [event for event in told if event["Actor"]["ID"] == "told"]
    assert [event["Action"] for event in of_named] == ["create", "mount", "unmount", "destroy"]
    attributes = of_named[1]["Actor"]["Attributes"]
    assert (attributes["destination"], attributes["driver"], attributes["read/write"]) == ("/told", "local", "true")
    others = [event["Action"] for event in told if event not in of_named]
    assert others == ["create", "mount", "unmount", "destroy"]
    assert {event["scope"] for event in told} == {"local"}
