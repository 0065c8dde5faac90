from __future__ import annotations

import asyncio
import io
import json
import shutil
import socket
import subprocess
import tarfile

import pytest

from shoal.engine.engine import RuncEngine
from shoal.engine.images.formats import DOCKER_MANIFEST, OCI_MANIFEST
from shoal.engine.protocol import RegistryCredentials
from shoal.errors import Conflict, InvalidArgument, NotFound, ShoalError, Unauthenticated, Unavailable
from shoal.model.container import ContainerConfig, LogOptions
from tests.system.engine.conftest import Ground, make_rootfs, run_program, stream
from tests.system.registry import USERS, registry

pytestmark = pytest.mark.root


async def say(engine: RuncEngine, image: str, *command: str) -> str:
    await engine.create(ContainerConfig(name="say", image=image, command=command or None))
    await engine.start("say")
    await engine.wait("say")
    text = b"".join([line.data async for line in engine.logs("say", LogOptions())]).decode()
    await engine.remove("say")
    return text


async def save(engine: RuncEngine, *references: str) -> bytes:
    return b"".join([chunk async for chunk in engine.images.save(references)])


def test_import_tag_save_load_remove(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        changes = ('CMD ["echo", "imported"]', "ENV A=1", "LABEL x=y", "WORKDIR /tmp", "USER bob", "EXPOSE 80")
        record = await engine.images.import_root(stream(make_rootfs()), "mine:1", changes, "a message")
        assert (record.tags, record.command, record.env) == (("mine:1",), ("echo", "imported"), ("A=1",))
        assert (record.labels, record.user, record.exposed_ports) == ({"x": "y"}, "bob", ("80/tcp",))
        engine.images.tag("mine:1", "localhost:5000/other:2")
        assert engine.images.get(record.id[7:19]).tags == ("mine:1", "localhost:5000/other:2")
        archive = await save(engine, "mine:1", "localhost:5000/other:2")
        with pytest.raises(Conflict, match="must be forced"):
            await engine.images.remove(record.id)
        assert await engine.images.remove("mine:1") == (("Untagged", "mine:1"),)
        await engine.create(ContainerConfig(name="user", image="localhost:5000/other:2"))
        with pytest.raises(Conflict, match="is using its referenced image"):
            await engine.images.remove("localhost:5000/other:2")
        await engine.remove("user")
        done = await engine.images.remove("localhost:5000/other:2")
        assert ("Deleted", record.id) in done
        with pytest.raises(NotFound, match="No such image: mine:1"):
            engine.images.get("mine:1")
        assert await engine.images.load(stream(archive)) == ("mine:1", "localhost:5000/other:2")
        assert engine.images.get("mine:1").id == record.id
        assert await say(engine, "mine:1") == "imported\n"
        with pytest.raises(InvalidArgument, match="invalid archive"):
            await engine.images.load(stream(b"rubbish" * 100))

    ground.run(work)


def layer(*members: tuple[str, bytes | None]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            if content is None:
                info.type, info.mode = tarfile.DIRTYPE, 0o755
                archive.addfile(info)
            else:
                info.size = len(content)
                info.pax_headers = {"SCHILY.xattr.user.kind": "tested"}
                archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def legacy_archive(layers: list[bytes]) -> bytes:
    """What `docker save` wrote before it wrote OCI layouts."""
    import hashlib

    diff_ids = [f"sha256:{hashlib.sha256(content).hexdigest()}" for content in layers]
    config = {"architecture": "amd64", "os": "linux", "config": {}, "rootfs": {"type": "layers", "diff_ids": diff_ids}}
    files = {f"{number}/layer.tar": content for number, content in enumerate(layers)}
    manifest = [{"Config": "config.json", "RepoTags": ["stacked:1"], "Layers": list(files)}]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, content in {
            **files,
            "config.json": json.dumps(config).encode(),
            "manifest.json": json.dumps(manifest).encode(),
        }.items():
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def test_layers_stack_with_whiteouts(ground: Ground) -> None:
    lower = layer(("d", None), ("d/gone", b"1"), ("d/kept", b"2"), ("o", None), ("o/hidden", b"3"), ("f", b"old"))
    upper = layer(("d/.wh.gone", b""), ("o/.wh..wh..opq", b""), ("o/new", b"4"), ("f", b"new"))

    async def work(engine: RuncEngine) -> None:
        archive = legacy_archive([make_rootfs(), lower, upper])
        assert await engine.images.load(stream(archive)) == ("stacked:1",)
        assert await say(engine, "stacked:1", "sh", "-c", "ls /d /o; cat /f") == "/d:\nkept\n\n/o:\nnew\nnew"

    ground.run(work)


def test_pull_docker_and_oci_manifests(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        (ground.directory / "image.tar").write_bytes(await save(engine, "busybox:test"))
        source = f"docker-archive:{ground.directory / 'image.tar'}"
        with registry(ground.directory) as address:
            for kind, extra in (("oci", ()), ("v2s2", ()), ("oci", ("--dest-compress-format", "zstd"))):
                name = f"{address}/test/{kind}{len(extra)}:1"
                command = ["copy", "--quiet", "--insecure-policy", "--dest-tls-verify=false", "--format", kind]
                copy = ["skopeo", *command, *extra, source, f"docker://{name}"]
                await asyncio.to_thread(run_program, *copy)
                await engine.images.remove(engine.images.list()[0].id, force=True)
                assert list((engine.local_images.content.blobs / "sha256").iterdir()) == []
                steps = [step async for step in engine.images.pull(name)]
                record = engine.images.get(name)
                assert steps[-1].status == f"Status: Downloaded newer image for {name}"
                assert record.digests[0].split("@")[1] in {step.status.removeprefix("Digest: ") for step in steps}
                assert await say(engine, name, "echo", kind) == f"{kind}\n"
                remote = await engine.local_images.inspect_remote(name, timeout_seconds=20)
                assert remote.media_type == (OCI_MANIFEST if kind == "oci" else DOCKER_MANIFEST)
                assert f"{name.rsplit(':', 1)[0]}@{remote.digest}" in engine.images.get(name).digests
                assert remote.platforms[0].os == "linux"
                pinned = f"{name.rsplit(':', 1)[0]}@{remote.digest}"
                assert [step async for step in engine.images.pull(pinned)][-1].status.startswith(
                    "Status: Image is up to date"
                )
            with pytest.raises(NotFound, match="not found: manifest unknown: manifest unknown"):
                [step async for step in engine.images.pull(f"{address}/test/oci0:none")]
            with pytest.raises(NotFound, match=r"manifest|pull access denied"):
                [step async for step in engine.images.pull(f"{address}/nothing/here:1")]
        with pytest.raises(Unavailable, match="cannot be reached"):
            [step async for step in engine.images.pull(f"{address}/test/oci0:1")]
        with pytest.raises(Unavailable):
            await engine.local_images.inspect_remote(f"{address}/test/oci0:1")
        assert list(engine.local_images.content.temporary.iterdir()) == []

    ground.run(work)


def test_credentials(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        (ground.directory / "image.tar").write_bytes(await save(engine, "busybox:test"))
        with registry(ground.directory, USERS) as address:
            name = f"{address}/private:1"
            source = f"docker-archive:{ground.directory / 'image.tar'}"
            options = ["--quiet", "--insecure-policy", "--dest-tls-verify=false", "--dest-creds", "bob:secret"]
            await asyncio.to_thread(run_program, "skopeo", "copy", *options, source, f"docker://{name}")
            with pytest.raises(ShoalError, match="no basic auth credentials"):
                [step async for step in engine.images.pull(name)]
            wrong = RegistryCredentials(username="bob", password="wrong")
            with pytest.raises(Unauthenticated, match="unauthorized: authentication required"):
                [step async for step in engine.images.pull(name, wrong)]
            right = RegistryCredentials(username="bob", password="secret")
            steps = [step async for step in engine.images.pull(name, right)]
            assert steps[-1].status.startswith("Status: ")
            remote = await engine.local_images.inspect_remote(name, right, timeout_seconds=20)
            assert engine.images.get(name).digests[0].endswith(remote.digest)

    ground.run(work)


def test_a_registry_that_does_not_answer_is_given_up(ground: Ground) -> None:
    async def work(engine: RuncEngine) -> None:
        with socket.socket() as silent:
            silent.bind(("127.0.0.1", 0))
            silent.listen(1)
            name = f"127.0.0.1:{silent.getsockname()[1]}/a"
            with pytest.raises(Unavailable, match=r"did not answer within 0\.3 seconds"):
                await engine.local_images.inspect_remote(name, timeout_seconds=0.3)

    ground.run(work)


@pytest.mark.skipif(shutil.which("zstd") is None, reason="no zstd program")
def test_zstd_import(ground: Ground) -> None:
    packed = subprocess.run(["zstd", "-qc"], input=make_rootfs(), capture_output=True, check=True).stdout

    async def work(engine: RuncEngine) -> None:
        await engine.images.import_root(stream(packed), "packed")
        assert await say(engine, "packed", "echo", "zstd") == "zstd\n"

    ground.run(work)
