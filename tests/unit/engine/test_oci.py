from __future__ import annotations

import pytest

from shoal.engine.host import CAPABILITIES, Host
from shoal.engine.oci import (
    DEFAULT_CAPABILITIES,
    FileBind,
    Places,
    arguments_of,
    capabilities_of,
    check_config,
    environment_of,
    make_spec,
)
from shoal.engine.users import Identity
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.base import replace
from shoal.model.container import ContainerConfig, ImageRecord
from shoal.model.container_spec import BindOptions, Mount, TmpfsOptions, Ulimit

HELD = frozenset(f"CAP_{name}" for name in CAPABILITIES) - {"CAP_SYS_RESOURCE"}
HOST = Host(
    machine="x86_64",
    capabilities=HELD,
    hard_limits={"nofile": 1000, "nproc": -1},
    oom_score_adj=0,
    cgroup_v2=False,
    cgroup_mounts=(),
    cpu_count=2,
    memory_bytes=1 << 30,
)
IMAGE = ImageRecord(id="sha256:0", entrypoint=("/entry",), command=("a", "b"), env=("PATH=/x", "A=1", "B=2"))
CONFIG = ContainerConfig(name="n", image="i")


def spec(config: ContainerConfig, host: Host = HOST) -> dict:
    places = Places(
        root="/root",
        cgroup="/shoal-d/c",
        binds=(FileBind(source="/h", target="/etc/hosts"),),
        volumes={"/v": "/volumes/v"},
    )
    return make_spec(config, IMAGE, "c" * 64, ("x",), Identity(uid=0, gid=0), places, host)


@pytest.mark.parametrize(
    ("entrypoint", "command", "expected"),
    [
        (None, None, ("/entry", "a", "b")),
        (None, ("c",), ("/entry", "c")),
        (("/e",), None, ("/e",)),
        (("/e",), ("c",), ("/e", "c")),
        ((), ("c",), ("c",)),
    ],
)
def test_arguments(entrypoint: tuple | None, command: tuple | None, expected: tuple) -> None:
    assert arguments_of(replace(CONFIG, entrypoint=entrypoint, command=command), IMAGE) == expected


def test_no_command() -> None:
    with pytest.raises(InvalidArgument, match="no command specified"):
        arguments_of(CONFIG, ImageRecord(id="sha256:1"))


def test_environment_merges_in_order_and_takes_away() -> None:
    environment = environment_of(replace(CONFIG, env=("A=3", "B", "C=4"), tty=True), IMAGE, "c" * 64)
    assert environment == ["PATH=/x", "HOSTNAME=cccccccccccc", "TERM=xterm", "A=3", "C=4"]


def test_capabilities() -> None:
    assert capabilities_of(CONFIG, HOST) == DEFAULT_CAPABILITIES
    assert capabilities_of(replace(CONFIG, capability_add=("ALL",)), HOST) == HELD
    only = replace(CONFIG, capability_drop=("ALL",), capability_add=("net_admin",))
    assert capabilities_of(only, HOST) == {"CAP_NET_ADMIN"}
    with pytest.raises(InvalidArgument, match="does not hold CAP_SYS_RESOURCE"):
        capabilities_of(replace(CONFIG, capability_add=("SYS_RESOURCE",)), HOST)
    with pytest.raises(InvalidArgument, match="invalid capability"):
        capabilities_of(replace(CONFIG, capability_add=("NONSENSE",)), HOST)


def test_spec_is_what_dockerd_gives() -> None:
    result = spec(replace(CONFIG, nano_cpus=500_000_000, memory_bytes=64 << 20, pids_limit=10))
    assert result["process"]["capabilities"]["effective"] == sorted(DEFAULT_CAPABILITIES)
    assert result["linux"]["resources"]["memory"] == {"limit": 64 << 20}
    assert result["linux"]["resources"]["cpu"] == {"quota": 50_000, "period": 100_000}
    assert result["linux"]["resources"]["pids"] == {"limit": 10}
    assert result["linux"]["cgroupsPath"] == "/shoal-d/c"
    assert result["hostname"] == "c" * 12
    assert "/proc/kcore" in result["linux"]["maskedPaths"]
    destinations = [mount["destination"] for mount in result["mounts"]]
    assert destinations[:3] == ["/proc", "/dev", "/dev/pts"]
    assert "/etc/hosts" in destinations


def test_seccomp_follows_capabilities() -> None:
    def allowed(config: ContainerConfig) -> set[str]:
        rules = spec(config)["linux"]["seccomp"]["syscalls"]
        return {
            name
            for rule in rules
            if rule["action"] == "SCMP_ACT_ALLOW" and "args" not in rule
            for name in rule["names"]
        }

    assert "read" in allowed(CONFIG)
    assert "mount" not in allowed(CONFIG)
    assert "keyctl" not in allowed(CONFIG)
    assert "chroot" in allowed(CONFIG)
    assert "mount" in allowed(replace(CONFIG, capability_add=("SYS_ADMIN",)))
    assert "seccomp" not in spec(replace(CONFIG, seccomp_mode="unconfined"))["linux"]


def test_network_namespace_is_joined_or_new() -> None:
    assert {"type": "network"} in spec(CONFIG)["linux"]["namespaces"]
    joined = spec(replace(CONFIG, network_namespace="/run/netns/x"))["linux"]["namespaces"]
    assert {"type": "network", "path": "/run/netns/x"} in joined


def test_namespaces_of_the_host_are_not_made() -> None:
    shared = spec(replace(CONFIG, host_namespaces=("ipc", "pid")))
    assert {each["type"] for each in shared["linux"]["namespaces"]} == {"mount", "uts", "network"}
    memory = [mount for mount in shared["mounts"] if mount["destination"] == "/dev/shm"]
    assert [(mount["type"], mount["source"]) for mount in memory] == [("bind", "/dev/shm")]
    with pytest.raises(InvalidArgument, match="with the host's IPC"):
        check_config(replace(CONFIG, host_namespaces=("ipc",), sysctls={"kernel.shmmax": "1"}), HOST)


def test_mounts() -> None:
    mounts = (
        Mount(
            type="bind", source="/a", target="/m/deep", read_only=True, bind_options=BindOptions(propagation="rslave")
        ),
        Mount(type="tmpfs", target="/m", tmpfs_options=TmpfsOptions(size_bytes=4096, mode=0o700)),
        Mount(type="volume", source="v", target="/v"),
        Mount(type="bind", source="/b", target="/etc/hosts"),
    )
    result = {mount["destination"]: mount for mount in spec(replace(CONFIG, mounts=mounts))["mounts"]}
    assert result["/m/deep"]["options"] == ["rbind", "rslave", "ro"]
    assert {"size=4096", "mode=700"} <= set(result["/m"]["options"])
    assert result["/v"]["source"] == "/volumes/v"
    assert result["/etc/hosts"]["source"] == "/b"
    assert list(result).index("/m") < list(result).index("/m/deep")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"ulimits": (Ulimit(name="nofile", soft=10, hard=2000),)}, "above this node's hard limit"),
        ({"ulimits": (Ulimit(name="nofile", soft=10, hard=5),)}, "soft limit must be less"),
        ({"ulimits": (Ulimit(name="nothing", soft=1, hard=1),)}, "invalid ulimit type"),
        ({"oom_score_adj": -5}, "CAP_SYS_RESOURCE"),
        ({"memory_bytes": 1 << 20}, "6MB"),
        ({"nano_cpus": 3_000_000_000}, "only 2 CPUs"),
        ({"init": True}, "no init program"),
        ({"mounts": (Mount(type="bind", source="rel", target="/x"),)}, "must be absolute"),
        ({"mounts": (Mount(type="volume", source="../x", target="/x"),)}, "invalid characters"),
        ({"mounts": (Mount(type="tmpfs", target="x"),)}, "absolute path"),
        ({"sysctls": {"vm.swappiness": "1"}}, "not allowed"),
    ],
)
def test_refusals(changes: dict, words: str) -> None:
    with pytest.raises(InvalidArgument, match=words):
        check_config(replace(CONFIG, **changes), HOST)


def test_mount_types_not_built() -> None:
    with pytest.raises(NotBuilt, match="cluster"):
        check_config(replace(CONFIG, mounts=(Mount(type="cluster", source="x", target="/x"),)), HOST)
