"""Names and options of volumes, and how they are mounted."""

from __future__ import annotations

import pytest

from shoal.core.volume import check_volume, mount_command, server_of, users_of
from shoal.errors import InvalidArgument, NotBuilt, NotFound, ShoalError
from shoal.model.container import ContainerConfig
from shoal.model.container_spec import Mount

NFS = {"type": "nfs", "device": ":/export", "o": "addr=store.example,rw,nolock"}


@pytest.mark.parametrize(
    ("name", "driver", "options", "kind", "text"),
    [
        ("a/b", "", {}, InvalidArgument, 'create a/b: "a/b" includes invalid characters for a local volume name'),
        ("", "", {}, InvalidArgument, "includes invalid characters"),
        (".removed-x", "", {}, InvalidArgument, "includes invalid characters"),
        ("x", "", {}, InvalidArgument, "volume name is too short"),
        ("vol", "nosuch", {}, NotFound, 'create vol: error looking up volume plugin nosuch: plugin "nosuch" not found'),
        ("vol", "local", {"foo": "1"}, InvalidArgument, 'create vol: invalid option: "foo"'),
        ("vol", "local", {"type": "tmpfs"}, InvalidArgument, 'create vol: missing required option: "device"'),
        ("vol", "local", {"device": "tmpfs"}, InvalidArgument, 'create vol: missing required option: "type"'),
        ("vol", "local", {"o": "size=1m"}, InvalidArgument, 'create vol: missing required option: "device"'),
        ("vol", "", {"size": "1g"}, NotBuilt, "project quotas"),
    ],
)
def test_what_is_refused_in_dockers_words(
    name: str, driver: str, options: dict[str, str], kind: type[ShoalError], text: str
) -> None:
    with pytest.raises(kind) as caught:
        check_volume(name, driver, options)
    assert text in caught.value.message


def test_good_volumes_pass() -> None:
    check_volume("a.b-c_1", "", {})
    check_volume("nfs", "local", NFS)


def test_commands_that_mount() -> None:
    assert mount_command({"type": "tmpfs", "device": "tmpfs", "o": "size=1m,uid=1000"}, "/v") == [
        "mount", "-i", "-t", "tmpfs", "tmpfs", "/v", "-o", "size=1m,uid=1000",
    ]  # fmt: skip
    assert mount_command({"type": "none", "device": "/srv/data", "o": "bind"}, "/v") == [
        "mount", "/srv/data", "/v", "-o", "bind",
    ]  # fmt: skip
    assert server_of(NFS) == "store.example"
    assert server_of({"type": "ext4", "device": "/dev/sdb", "o": "addr=no"}) == ""
    assert mount_command(NFS, "/v", "10.0.0.9")[-1] == "addr=10.0.0.9,rw,nolock"
    assert mount_command({"type": "ext4", "device": "/dev/sdb"}, "/v") == [
        "mount",
        "-i",
        "-t",
        "ext4",
        "/dev/sdb",
        "/v",
    ]


def test_who_uses_a_volume() -> None:
    mounts = (Mount(type="volume", source="vol", target="/v"), Mount(type="bind", source="/srv", target="/s"))
    containers = [
        ("c2", ContainerConfig(name="b", image="i", mounts=mounts)),
        ("c1", ContainerConfig(name="a", image="i", mounts=mounts[:1])),
        ("c3", ContainerConfig(name="c", image="i", mounts=(Mount(type="volume", target="/anonymous"),))),
    ]
    assert users_of("vol", containers) == ("c1", "c2")
    assert users_of("/srv", containers) == ()
