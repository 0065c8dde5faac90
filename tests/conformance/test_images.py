"""Images against Debian's registry, with and without authentication, through the stock docker command and docker-py."""

from __future__ import annotations

import json
import os
import sys
import tarfile

import docker as docker_py
import pytest

from shoal.lab.image import busybox_archive
from tests.system.daemon import wait_for
from tests.system.registry import USERS, ImageDirectory, layer_tar, registry

pytestmark = pytest.mark.root

LOOK = "ls /d /opaque; cat /f /hard /linked; stat -c %h /hard; stat -c %a /mode"


@pytest.fixture(scope="module")
def client(daemon):
    client = docker_py.DockerClient(base_url=daemon.host, timeout=30)
    yield client
    client.close()


@pytest.fixture(scope="module")
def place(daemon, tmp_path_factory):
    """A registry with a password in the daemon's network, and a directory to make images in."""
    directory = tmp_path_factory.mktemp("registry")
    with registry(directory, USERS, daemon.netns) as address:
        image = ImageDirectory(directory / "image")

        def push(descriptor, name):
            image.push(descriptor, f"{address}/{name}", "--dest-creds", "bob:secret", netns=daemon.netns)

        image.address, image.send = address, push
        yield image


@pytest.fixture(scope="module")
def busybox():
    return busybox_archive()


def hard_link(name, target):
    info = tarfile.TarInfo(name)
    info.type, info.linkname = tarfile.LNKTYPE, target
    return info


def with_attribute(name):
    info = tarfile.TarInfo(name)
    info.mode, info.pax_headers = 0o4711, {"SCHILY.xattr.user.kind": "tested", "SCHILY.xattr.trusted.overlay.x": "no"}
    return info


def log_in(daemon, place, password="secret"):
    words = ("login", "-u", "bob", "--password-stdin", place.address)
    return daemon.docker(*words, input=password, check=False)


def test_credentials(daemon, docker, place, busybox):
    descriptor = place.image([(busybox, "gzip")])
    place.send(descriptor, "private:1")
    name = f"{place.address}/private"
    assert "no basic auth credentials" in docker("pull", f"{name}:1", check=False)
    refused = log_in(daemon, place, "wrong")
    assert (refused.returncode, "401 Unauthorized" in refused.stderr) == (1, True), refused.stderr
    assert "Login Succeeded" in log_in(daemon, place).stdout
    said = docker("pull", f"{name}:1")
    assert f"Status: Downloaded newer image for {name}:1" in said
    digest = descriptor["digest"]
    assert f"Digest: {digest}" in said
    assert f"Status: Image is up to date for {name}@{digest}" in docker("pull", f"{name}@{digest}")
    assert docker("run", "--rm", f"{name}@{digest}", "echo", "hi") == "hi\n"
    place.send(descriptor, "private:2")
    assert docker("pull", "-a", name).count("Status: Downloaded newer image") == 1
    assert docker("images", "--format", "{{.Tag}}", name).split() == ["1", "2"]
    docker("rmi", "-f", f"{name}:1", f"{name}:2")
    assert docker("images", "-q", name) == ""
    # a service's credentials go with it to the node, and nobody is told of them
    create = (
        "service",
        "create",
        "-d",
        "--stop-grace-period",
        "0s",
        "--name",
        "private",
        "--with-registry-auth",
        f"{name}:1",
        "sleep",
        "1000",
    )
    docker(*create)
    wait_for(lambda: "1/1" in docker("service", "ls"), "it was pulled and runs")
    shown = docker("service", "inspect", "private", "--format", "{{json .Spec.TaskTemplate.ContainerSpec}}")
    assert json.loads(shown)["Image"] == f"{name}:1@{digest}"
    assert "secret" not in shown
    daemon.docker("logout", place.address)
    assert "no basic auth credentials" in docker("pull", f"{name}:1", check=False)
    docker("service", "rm", "private")
    wait_for(lambda: docker("ps", "-aq") == "", "its task has gone")
    docker("image", "prune", "-af", "--filter", "label!=kept")
    daemon.import_busybox()


def test_credentials_by_shoal(daemon, place, busybox, tmp_path):
    """A helper's credentials go to the registry with push and pull, and to the nodes with a service."""
    name, shoal = f"{place.address}/helped", daemon.shoal
    helper = tmp_path / "docker-credential-told"
    helper.write_text('#!/bin/sh\necho \'{"Username": "bob", "Secret": "secret"}\'\n')
    helper.chmod(0o755)
    kept = daemon.root / "docker" / "config.json"
    kept.parent.mkdir(exist_ok=True)
    before = kept.read_text() if kept.exists() else "{}"
    program = ("env", f"PATH={tmp_path}:{os.environ['PATH']}", sys.executable, "-m", "shoal.cli.main")

    def told(*words, check=True):
        done = daemon.execute(*program, *words, check=check)
        return done.stdout + done.stderr

    create = ("service", "create", "--detach", "--stop-grace-period", "0s", "--name", "helped")
    stack = tmp_path / "stack.yaml"
    one = {"image": f"{name}:1", "command": ["sleep", "1000"], "stop_grace_period": "0s"}
    stack.write_text(json.dumps({"services": {"one": one}}))
    try:
        shoal("tag", "busybox", f"{name}:1")
        kept.write_text("{}")
        assert "no basic auth credentials" in told("push", f"{name}:1", check=False)
        kept.write_text(json.dumps({"credHelpers": {place.address: "told"}}))
        assert f"The push refers to repository [{name}]" in told("push", f"{name}:1")
        shoal("rmi", f"{name}:1", "busybox")
        assert f"Downloaded newer image for {name}:1" in told("pull", f"{name}:1")
        shoal("rmi", f"{name}:1")
        told(*create, "--with-registry-auth", f"{name}:1", "sleep", "1000")
        wait_for(lambda: "1/1" in shoal("service", "ls").stdout, "it was pulled and runs")
        shown = shoal("service", "inspect", "helped").stdout
        assert f"{name}:1@sha256:" in shown
        assert "secret" not in shown
        # an update without the flag keeps what the nodes were sent
        shoal("service", "update", "--detach", "--label-add", "a=b", "helped")
        shoal("service", "scale", "--detach", "helped=0")
        wait_for(lambda: shoal("ps", "--all", "--quiet").stdout == "", "its task has gone")
        assert "Deleted Images:" in shoal("image", "prune", "--all", "--force").stdout
        shoal("service", "scale", "--detach", "helped=1")
        wait_for(lambda: "1/1" in shoal("service", "ls").stdout, "it was pulled again and runs")
        shoal("service", "rm", "helped")
        wait_for(lambda: shoal("ps", "--all", "--quiet").stdout == "", "its task has gone")
        shoal("image", "prune", "--all", "--force")
        told("stack", "deploy", "--with-registry-auth", "--compose-file", str(stack), "helped")
        wait_for(lambda: "1/1" in shoal("stack", "services", "helped").stdout, "the stack's image was pulled")
    finally:
        kept.write_text(before)
        shoal("stack", "rm", "--wait", "helped")
        shoal("image", "prune", "--all", "--force")
        daemon.import_busybox()


def test_progress_and_an_index_of_platforms(daemon, client, place, busybox):
    base = (busybox, "gzip")
    ours = place.image([base, (layer_tar(("ours", b"x" * 3_000_000)), "")])
    other = place.image([(layer_tar(("theirs", b"y")), "gzip")], architecture="arm64", variant="v8")
    index = place.index(
        other | {"platform": {"architecture": "arm64", "os": "linux", "variant": "v8"}},
        ours | {"platform": {"architecture": "amd64", "os": "linux"}},
    )
    place.send(index, "many:1")
    log_in(daemon, place)
    auth = {"username": "bob", "password": "secret"}
    name = f"{place.address}/many"
    steps = list(client.api.pull(name, "1", stream=True, decode=True, auth_config=auth))
    assert steps[0] == {"status": "Pulling from many", "id": "1", "progressDetail": {}}
    of_layers = {}
    for step in steps[1:-2]:
        of_layers.setdefault(step["id"], []).append(step["status"])
    layers = [each["digest"][7:19] for each in manifest_of(place, ours)["layers"]]
    assert list(of_layers) == layers
    for told in of_layers.values():
        if told[0] == "Already exists":
            continue
        assert told[0] == "Pulling fs layer"
        assert set(told[1:-3]) <= {"Downloading"}
        assert told[-3:] == ["Download complete", "Extracting", "Pull complete"]
    sizes = {step["id"]: step["progressDetail"] for step in steps if step["status"] == "Downloading"}
    assert all(0 < detail["current"] <= detail["total"] for detail in sizes.values())
    assert [step["status"] for step in steps[-2:]] == [
        f"Digest: {index['digest']}", f"Status: Downloaded newer image for {name}:1"
    ]  # fmt: skip
    image = client.images.get(f"{name}:1")
    assert (image.attrs["Architecture"], image.attrs["RepoDigests"]) == ("amd64", [f"{name}@{index['digest']}"])
    # the other platform by name, and one that there is not
    daemon.docker("pull", "--platform", "linux/arm64", f"{name}:1")
    assert client.images.get(f"{name}:1").attrs["Architecture"] == "arm64"
    refused = daemon.docker("create", "--pull", "never", "--platform", "linux/amd64", f"{name}:1", check=False)
    assert "does not match the specified platform (linux/amd64)" in refused.stderr
    missing = daemon.docker("pull", "--platform", "linux/s390x", f"{name}:1", check=False)
    assert "no matching manifest for linux/s390x in the manifest list entries" in missing.stderr
    daemon.docker("rmi", f"{name}:1", image.id)


def manifest_of(place, descriptor):
    return json.loads((place.directory / "blobs/sha256" / descriptor["digest"].partition(":")[2]).read_text())


def test_push(daemon, docker, place):
    log_in(daemon, place)
    name = f"{place.address}/pushed"
    docker("tag", "busybox", f"{name}:1")
    docker("tag", "busybox", f"{name}:2")
    assert "An image does not exist locally with the tag" in docker("push", f"{name}:3", check=False)
    said = docker("push", f"{name}:1")
    assert f"The push refers to repository [{name}]" in said
    digest = said.partition("digest: ")[2].split()[0]
    by_digest, by_name = (docker("inspect", each, "--format", "{{.Id}}") for each in (f"{name}@{digest}", "busybox"))
    assert by_digest == by_name
    assert "2: digest: " in docker("push", "-a", name)
    docker("rmi", f"{name}:1", f"{name}:2")
    assert f"Digest: {digest}" in docker("pull", f"{name}:2")
    docker("rmi", f"{name}:2")
    daemon.docker("logout", place.address)
    docker("tag", "busybox", f"{name}:4")
    assert f"push {name}:4: no basic auth credentials" in docker("push", f"{name}:4", check=False)
    docker("rmi", f"{name}:4")


def test_layers(daemon, docker, place, busybox):
    lower = layer_tar(
        ("d/", b""), ("d/gone", b"1"), ("d/kept", b"2"), ("opaque/", b""), ("opaque/hidden", b"3"), ("f", b"old\n"),
        ("hard", b"one\n"), hard_link("linked", "hard"), with_attribute("mode"),
    )  # fmt: skip
    upper = layer_tar(("d/.wh.gone", b""), ("opaque/.wh..wh..opq", b""), ("opaque/new", b"4"), ("f", b"new\n"))
    for packing in ("gzip", "zstd", ""):
        history = [
            {"created": "2026-01-02T03:04:05Z", "created_by": "base", "comment": "first"},
            {"created_by": "CMD sh", "empty_layer": True},
            {"created_by": "lower"},
            {"created_by": "upper"},
        ]
        layers = [(content, packing) for content in (busybox, lower, upper)]
        place.send(place.image(layers, {"Cmd": ["sh", "-c", LOOK]}, history=history), f"layers{packing}:1")
        log_in(daemon, place)
        name = f"{place.address}/layers{packing}:1"
        docker("pull", name)
        assert docker("run", "--rm", name) == "/d:\nkept\n\n/opaque:\nnew\nnew\none\none\n2\n4711\n"
        (file,) = (daemon.data_root / "images" / "l").glob("*/mode")
        assert os.getxattr(file, "user.kind") == b"tested"
        assert "trusted.overlay.x" not in os.listxattr(file), "a layer does not speak to overlayfs"
    said = docker("history", "--no-trunc", "--format", "{{.CreatedBy}}|{{.Size}}|{{.Comment}}", name)
    shown = [line.split("|") for line in said.splitlines()]
    assert [line[0] for line in shown] == ["upper", "lower", "CMD sh", "base"]
    assert [line[1] for line in shown][:3] == ["5B", "11B", "0B"]
    assert shown[3][2] == "first"
    docker("rmi", *(f"{place.address}/layers{packing}:1" for packing in ("gzip", "zstd", "")))


def named(docker, *filters):
    words = [word for each in filters for word in ("--filter", each)]
    return docker("images", "--format", "{{.Repository}}", *words).split()


def test_what_is_no_longer_used_is_pruned(daemon, docker, client, busybox):
    base = client.images.get("busybox")
    archives = {name: layer_tar((name, name.encode() * 1000)) for name in ("kept", "used", "plain", "loose")}
    for name, archive in archives.items():
        words = ("import", "--change", "CMD true", "--change", f"LABEL kind={name}", "-", name)
        daemon.execute("docker", *words, input=archive.decode("latin-1"), encoding="latin-1")
    docker("create", "--name", "user", "used", "true")
    docker("tag", "busybox", "loose")  # takes the name from it
    assert named(docker, "dangling=true") == ["<none>"]
    assert named(docker, "before=plain", "since=kept") == ["used"]
    assert docker("images", "--filter", "until=1h", "-q") == ""
    said = docker("image", "prune", "-f")
    assert "Deleted Images:" in said
    assert "Total reclaimed space: 5kB" in said
    assert named(docker, "dangling=true") == []
    assert "Total reclaimed space: 0B" in docker("image", "prune", "-af", "--filter", "until=24h")
    said = docker("image", "prune", "-af", "--filter", "label!=kind=kept", "--filter", "label=kind")
    assert "untagged: plain:latest" in said
    assert {"kept", "used", "loose", "busybox"} <= set(named(docker))
    # what is left on the disk is what images name
    index = {layer for image in client.images.list(all=True) for layer in image.attrs["RootFS"]["Layers"]}
    store = daemon.data_root / "images"
    assert len([path for path in (store / "l").iterdir() if path.name != "0"]) == len(index)
    docker("rm", "user")
    docker("rmi", "kept", "used", "loose")
    assert [image.id for image in client.images.list(all=True)] == [base.id]


def test_what_is_used_of_the_disk(daemon, docker, client):
    docker("volume", "create", "full")
    write = "yes | head -c 30000 >/file; yes | head -c 9000 >/full/x"
    docker("run", "--name", "writer", "-v", "full:/full", "busybox", "sh", "-c", write)
    docker("tag", "busybox", "busybox:other")
    usage = client.df()
    (image,) = (each for each in usage["Images"] if "busybox:latest" in each["RepoTags"])
    assert (image["Containers"], image["SharedSize"]) == (1, 0)
    assert usage["LayersSize"] == sum(each["Size"] for each in usage["Images"])
    (container,) = usage["Containers"]
    assert container["SizeRw"] == 30_000
    assert container["SizeRootFs"] == 30_000 + image["Size"]
    (volume,) = (each for each in usage["Volumes"] if each["Name"] == "full")
    assert volume["UsageData"] == {"Size": 9000, "RefCount": 1}
    assert "30kB" in docker("ps", "-as", "--format", "{{.Size}}")
    lines = docker("system", "df", "--format", "{{.Type}} {{.TotalCount}} {{.Active}} {{.Reclaimable}}").splitlines()
    assert "Containers 1 0 30kB (100%)" in lines
    detailed = docker("system", "df", "-v")
    assert "writer" in detailed
    assert "full" in detailed
    assert client.api.get(client.api._url("/system/df?type=volume")).json().keys() == {"Volumes"}
    assert "Total reclaimed space: 30kB" in docker("container", "prune", "-f")
    docker("volume", "rm", "full")
    docker("rmi", "busybox:other")


def test_system_prune(docker):
    docker("create", "--name", "gone", "busybox", "true")
    said = docker("system", "prune", "-f", "--volumes", "--filter", "label!=kept")
    assert "Deleted Containers:" in said
    assert "Total reclaimed space: 0B" in said
    assert docker("builder", "prune", "-f") == "Total reclaimed space: 0B\n"


def test_events(daemon, docker, client):
    since = daemon.request("GET", "/info")[1]["SystemTime"]
    docker("tag", "busybox", "told:1")
    docker("rmi", "told:1")
    until = daemon.request("GET", "/info")[1]["SystemTime"]
    words = ("events", "--since", since, "--until", until, "--filter", "type=image", "--format", "{{.Action}}")
    assert docker(*words).split() == ["tag", "untag"]
