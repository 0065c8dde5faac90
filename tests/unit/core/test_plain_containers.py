"""Plain containers: what a client may ask for, and what becomes of those that have ended."""

from __future__ import annotations

import pytest

from shoal.api.decode import decode_value
from shoal.core.plain_life import after_end, at_start_up, ends_restarts
from shoal.core.random_names import random_name
from shoal.core.validate.plain_container import plain_config, plain_warnings, updated_config
from shoal.core.validate.plain_limits import numbers_of_set
from shoal.engine.host import Host
from shoal.engine.limits import limit_arguments, limits_of
from shoal.errors import InvalidArgument, NotBuilt
from shoal.model.base import replace
from shoal.model.container import HOST_NETWORK, Container, ContainerConfig, ContainerState
from shoal.model.container_request import ContainerRequest, HostConfig
from shoal.model.container_spec import BindOptions, HealthConfig, Mount, TmpfsOptions, Ulimit, VolumeOptions
from shoal.model.plain import EndpointRequest, PlainConfig, PortRequest, RestartName, RestartRule

SECOND_NS = 1_000_000_000


def asked(host=None, networks=None, **body):
    """Return the container of a request."""
    if host is not None:
        body["HostConfig"] = host
    if networks is not None:
        body["NetworkingConfig"] = {"EndpointsConfig": networks}
    return plain_config(decode_value({"Image": "busybox", **body}, ContainerRequest), "c")


def plain(host=None, networks=None, **body):
    found = asked(host, networks, **body).plain
    assert found is not None
    return found


def test_what_the_docker_command_sends_for_nothing_special():
    host = {
        "Binds": None, "ContainerIDFile": "", "LogConfig": {"Type": "", "Config": {}}, "NetworkMode": "default",
        "PortBindings": {}, "RestartPolicy": {"Name": "no", "MaximumRetryCount": 0}, "AutoRemove": False,
        "VolumeDriver": "", "VolumesFrom": None, "ConsoleSize": [24, 80], "CapAdd": None, "CgroupnsMode": "",
        "Dns": [], "DnsOptions": [], "DnsSearch": [], "ExtraHosts": None, "GroupAdd": None, "IpcMode": "",
        "Cgroup": "", "Links": None, "OomScoreAdj": 0, "PidMode": "", "Privileged": False, "PublishAllPorts": False,
        "ReadonlyRootfs": False, "SecurityOpt": None, "UTSMode": "", "UsernsMode": "", "ShmSize": 0, "Isolation": "",
        "CpuShares": 0, "Memory": 0, "NanoCpus": 0, "CgroupParent": "", "BlkioWeight": 0, "BlkioWeightDevice": [],
        "Devices": [], "MemorySwap": 0, "MemorySwappiness": -1, "OomKillDisable": False, "PidsLimit": 0,
        "Ulimits": [], "MaskedPaths": None, "ReadonlyPaths": None,
    }  # fmt: skip
    body = {"Cmd": ["echo", "hi"], "Entrypoint": None, "Tty": False, "OnBuild": None, "Volumes": {}}
    config = asked(host, {"default": {"IPAMConfig": None, "Aliases": None}}, **body)
    assert config == ContainerConfig(name="c", image="busybox", command=("echo", "hi"), plain=PlainConfig())


@pytest.mark.parametrize(
    ("body", "expected"),
    [
        ({"Cmd": "true", "Entrypoint": "/bin/sh"}, {"command": ("true",), "entrypoint": ("/bin/sh",)}),
        ({"Entrypoint": [""]}, {"entrypoint": ()}),
        ({"Env": ["A=1", "B"], "User": "1:2", "WorkingDir": "/w"},
         {"env": ("A=1", "B"), "user": "1:2", "working_dir": "/w"}),
        ({"Hostname": "h", "Labels": {"a": "b"}, "Tty": True, "OpenStdin": True},
         {"hostname": "h", "labels": {"a": "b"}, "tty": True, "open_stdin": True}),
        ({"StopSignal": "SIGINT", "StopTimeout": 3}, {"stop_signal": "SIGINT", "stop_timeout_seconds": 3.0}),
        ({"Healthcheck": {"Test": ["CMD", "true"], "Interval": SECOND_NS}},
         {"healthcheck": HealthConfig(test=("CMD", "true"), interval=SECOND_NS)}),
        ({"HostConfig": {"Memory": 64 << 20, "MemorySwap": 128 << 20, "NanoCpus": 5, "PidsLimit": -1, "ShmSize": 9}},
         {"memory_bytes": 64 << 20, "nano_cpus": 5, "shm_bytes": 9}),
        ({"HostConfig": {"CapAdd": ["NET_ADMIN"], "CapDrop": ["ALL"], "ReadonlyRootfs": True, "Init": True}},
         {"capability_add": ("NET_ADMIN",), "capability_drop": ("ALL",), "read_only": True, "init": True}),
        ({"HostConfig": {"Ulimits": [{"Name": "nofile", "Soft": 1, "Hard": 2}], "Sysctls": {"net.a": "1"}}},
         {"ulimits": (Ulimit(name="nofile", soft=1, hard=2),), "sysctls": {"net.a": "1"}}),
        ({"HostConfig": {"Dns": ["1.1.1.1"], "DnsSearch": ["x"], "ExtraHosts": ["db:10.0.0.1", "six:[::1]"]}},
         {"dns_nameservers": ("1.1.1.1",), "dns_search": ("x",), "hosts": ("10.0.0.1 db", "::1 six")}),
        ({"HostConfig": {"LogConfig": {"Type": "none"}}}, {"log_driver": "none"}),
        ({"HostConfig": {"SecurityOpt": ["no-new-privileges", "seccomp=unconfined", "label:disable"]}},
         {"no_new_privileges": True, "seccomp_mode": "unconfined"}),
        ({"HostConfig": {"NetworkMode": "host"}}, {"network_namespace": HOST_NETWORK}),
    ],
)  # fmt: skip
def test_fields_of_a_container(body, expected):
    config = asked(**body)
    assert {name: getattr(config, name) for name in expected} == expected


@pytest.mark.parametrize(
    ("host", "volumes", "expected"),
    [
        ({"Binds": ["/a:/b:ro,rshared"]}, {}, Mount(type="bind", source="/a", target="/b", read_only=True,
         bind_options=BindOptions(propagation="rshared", create_mountpoint=True))),
        ({"Binds": ["data:/b:nocopy"]}, {},
         Mount(type="volume", source="data", target="/b", volume_options=VolumeOptions(no_copy=True))),
        ({}, {"/v": {}}, Mount(type="volume", target="/v")),
        ({"Binds": ["data:/v"]}, {"/v/": {}}, Mount(type="volume", source="data", target="/v")),
        ({"Mounts": [{"Type": "BIND", "Source": "/a", "Target": "/b"}]}, {},
         Mount(type="bind", source="/a", target="/b")),
        ({"Tmpfs": {"/t": "size=1m,mode=1777,exec,ro"}}, {}, Mount(type="tmpfs", target="/t", read_only=True,
         tmpfs_options=TmpfsOptions(size_bytes=1 << 20, mode=0o1777, options=(("exec",),)))),
    ],
)  # fmt: skip
def test_mounts(host, volumes, expected):
    assert asked(host, Volumes=volumes).mounts == (expected,)


def test_ports():
    host = {"PortBindings": {"80/tcp": [{"HostPort": "8080"}, {"HostIp": "::", "HostPort": "8080"}], "53/udp": None}}
    found = plain(host, ExposedPorts={"443/tcp": {}})
    assert found.ports == (
        PortRequest(protocol="tcp", target_port=80, published_port=8080),
        PortRequest(protocol="udp", target_port=53),
    )
    assert found.exposed_ports == ("443/tcp", "80/tcp", "53/udp")
    on_host = {"NetworkMode": "host", **host}
    assert plain(on_host).ports == ()
    request = decode_value({"Image": "busybox", "HostConfig": on_host}, ContainerRequest)
    assert plain_warnings(request) == ("Published ports are discarded when using host network mode",)


@pytest.mark.parametrize(
    ("host", "networks", "mode", "endpoints"),
    [
        ({}, {}, "bridge", ()),
        ({"NetworkMode": "none"}, {}, "none", ()),
        ({"NetworkMode": "container:abc"}, {}, "container:abc", ()),
        ({"NetworkMode": "net"}, {}, "net", (EndpointRequest(network="net"),)),
        ({"NetworkMode": "net"}, {"other": {}, "net": {"Aliases": ["a"], "IPAMConfig": {"IPv4Address": "10.1.0.9"}}},
         "net", (EndpointRequest(network="net", aliases=("a",), addresses=("10.1.0.9",)),
                 EndpointRequest(network="other"))),
    ],
)  # fmt: skip
def test_networks(host, networks, mode, endpoints):
    found = plain(host, networks)
    assert (found.network_mode, found.endpoints) == (mode, endpoints)


def test_life():
    found = plain({"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": 3}}, StdinOnce=True)
    assert found.restart == RestartRule(name=RestartName.ON_FAILURE, most_retries=3)
    assert found.stdin_once
    assert plain({"AutoRemove": True}).auto_remove


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"Image": ""}, "Image"),
        ({"Cmd": 5}, "Cmd"),
        ({"Env": ["=x"]}, "invalid environment variable: =x"),
        ({"WorkingDir": "w"}, "needs to be an absolute path"),
        ({"Labels": {"com.docker.swarm.task.id": "x"}}, "set by the swarm"),
        ({"Healthcheck": {"Interval": 5}}, "Interval in Healthcheck cannot be less than 1ms"),
        ({"StopTimeout": -2}, "StopTimeout"),
        ({"ExposedPorts": {"80/icmp": {}}}, "invalid proto: icmp"),
        ({"HostConfig": {"PortBindings": {"0/tcp": []}}}, "invalid port specification"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "x"}]}}}, "invalid port specification"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostPort": "90-80"}]}}}, "invalid port specification"),
        ({"HostConfig": {"Binds": ["a:b:c:d"]}}, "invalid volume specification"),
        ({"HostConfig": {"Binds": ["/a:/b:wat"]}}, "invalid mode: wat"),
        ({"HostConfig": {"Binds": ["/a:/b", "/c:/b/"]}}, "Duplicate mount point"),
        ({"HostConfig": {"Binds": ["/a:b"]}}, "must be an absolute path"),
        ({"HostConfig": {"Tmpfs": {"/t": "wat"}}}, 'invalid tmpfs option "wat"'),
        ({"HostConfig": {"Mounts": [{"Type": "wat", "Target": "/t"}]}}, "invalid MountType"),
        ({"HostConfig": {"RestartPolicy": {"Name": "wat"}}}, "unknown policy 'wat'"),
        ({"HostConfig": {"RestartPolicy": {"Name": "always", "MaximumRetryCount": 1}}}, "only be used with"),
        ({"HostConfig": {"RestartPolicy": {"Name": "on-failure", "MaximumRetryCount": -1}}}, "cannot be negative"),
        ({"HostConfig": {"AutoRemove": True, "RestartPolicy": {"Name": "always"}}}, "can't create 'AutoRemove'"),
        ({"HostConfig": {"ExtraHosts": ["x"]}}, "bad format for add-host"),
        ({"HostConfig": {"PidMode": "moon"}}, "invalid PID mode: moon"),
        ({"HostConfig": {"UTSMode": "moon"}}, "invalid UTS mode: moon"),
        ({"Hostname": "h", "HostConfig": {"UTSMode": "host"}}, "conflicting options: hostname and the UTS mode"),
        ({"HostConfig": {"MemorySwap": 9}}, "always set the Memory limit when using Memoryswap"),
        ({"HostConfig": {"Memory": 64 << 20, "MemorySwap": 9}}, "Minimum memoryswap limit should be larger"),
        ({"HostConfig": {"MemorySwappiness": 101}}, "valid memory swappiness range is 0-100"),
        ({"HostConfig": {"MemoryReservation": 9}}, "Minimum memory reservation allowed is 6MB"),
        ({"HostConfig": {"Memory": 7 << 20, "MemoryReservation": 8 << 20}}, "less than memory reservation limit"),
        ({"HostConfig": {"CpuShares": -1}}, "invalid CPU shares (-1)"),
        ({"HostConfig": {"CpuPeriod": 5}}, "CPU cfs period can not be less than 1ms"),
        ({"HostConfig": {"CpuQuota": 5}}, "CPU cfs quota can not be less than 1ms"),
        ({"HostConfig": {"CpuQuota": 5000, "NanoCpus": 5}}, "Nano CPUs and CPU Quota cannot both be set"),
        ({"HostConfig": {"CpusetCpus": "x"}}, "Invalid value x for cpuset cpus"),
        ({"HostConfig": {"NetworkMode": "container:"}}, "invalid container format"),
        ({"Hostname": "h", "HostConfig": {"NetworkMode": "container:a"}}, "conflicting options: hostname"),
        ({"HostConfig": {"NetworkMode": "none", "PortBindings": {"80/tcp": []}}}, "without a network"),
        ({"NetworkingConfig": {"EndpointsConfig": {"bridge": {"Aliases": ["a"]}}}}, "network-scoped alias"),
        ({"NetworkingConfig": {"EndpointsConfig": {"n": {"IPAMConfig": {"IPv4Address": "x"}}}}}, "invalid IP address"),
        ({"NetworkingConfig": {"EndpointsConfig": {"n": {}}}, "HostConfig": {"NetworkMode": "none"}}, "do not go with"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(body, text):
    with pytest.raises(InvalidArgument) as refused:
        asked(**body)
    assert text in refused.value.message


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"HostConfig": {"BlkioWeight": 5}}, "HostConfig.BlkioWeight is not built: leave it out"),
        ({"HostConfig": {"IpcMode": "container:x"}}, 'HostConfig.IpcMode "container:x"'),
        ({"HostConfig": {"MaskedPaths": ["/x"]}}, "HostConfig.MaskedPaths"),
        ({"HostConfig": {"SecurityOpt": ["apparmor=mine"]}}, "HostConfig.SecurityOpt"),
        ({"HostConfig": {"PortBindings": {"80/tcp": [{"HostIp": "fd00::1"}]}}}, "on the IPv6 address fd00::1"),
        ({"MacAddress": "02:42:00:00:00:01"}, "MacAddress"),
        ({"NetworkingConfig": {"EndpointsConfig": {"n": {"Links": ["a"]}}}}, "EndpointsConfig.n.Links"),
    ],
)
def test_what_is_not_built_is_refused_by_name(body, text):
    with pytest.raises(NotBuilt) as refused:
        asked(**body)
    assert text in refused.value.message


def rule(name, most=0, **more):
    return PlainConfig(restart=RestartRule(name=RestartName(name), most_retries=most), **more)


@pytest.mark.parametrize(
    ("of", "code", "count", "restarts"),
    [
        (rule("no"), 1, 0, False),
        (rule("always"), 0, 0, True),
        (rule("always", stopped_by_hand=True), 0, 0, False),
        (rule("unless-stopped"), 0, 0, True),
        (rule("unless-stopped", stopped_by_hand=True), 137, 0, False),
        (rule("on-failure"), 0, 0, False),
        (rule("on-failure"), 1, 99, True),
        (rule("on-failure"), None, 0, True),
        (rule("on-failure", 2), 1, 1, True),
        (rule("on-failure", 2), 1, 2, False),
    ],
)
def test_what_is_started_again_after_its_end(of, code, count, restarts):
    verdict = after_end(of, code, 0, count, 0)
    assert (verdict.restart_after_ns is not None) == restarts
    assert verdict.why


def test_the_pause_doubles_up_to_a_minute_and_begins_anew_after_a_long_run():
    pauses = [after_end(rule("always"), 1, 0, 0, last).restart_after_ns for last in (0, SECOND_NS, 50 * SECOND_NS)]
    assert pauses == [SECOND_NS // 10, 2 * SECOND_NS, 60 * SECOND_NS]
    assert after_end(rule("always"), 1, 10 * SECOND_NS, 0, 8 * SECOND_NS).restart_after_ns == SECOND_NS // 10


def test_what_is_removed_after_its_end():
    assert after_end(PlainConfig(auto_remove=True), 0, 0, 0, 0).removes
    assert after_end(PlainConfig(auto_remove=True, stopped_by_hand=True), 0, 0, 0, 0).removes
    assert not after_end(PlainConfig(), 0, 0, 0, 0).removes


@pytest.mark.parametrize(
    ("of", "status", "code", "restarts", "removes"),
    [
        (rule("always"), "created", 0, False, False),
        (rule("always", stopped_by_hand=True), "exited", 0, True, False),
        (rule("unless-stopped"), "exited", 0, True, False),
        (rule("unless-stopped", stopped_by_hand=True), "exited", 0, False, False),
        (rule("on-failure"), "exited", 255, True, False),
        (rule("on-failure", stopped_by_hand=True), "exited", 137, False, False),
        (rule("no", auto_remove=True), "exited", 0, False, True),
    ],
)
def test_what_a_daemon_that_starts_takes_up(of, status, code, restarts, removes):
    container = Container(
        id="i",
        config=replace(ContainerConfig(name="c", image="busybox"), plain=of),
        image_id="",
        created_at_ns=0,
        state=ContainerState(status=status, exit_code=code),
    )
    verdict = at_start_up(container)
    assert (verdict.restart_after_ns is not None, verdict.removes) == (restarts, removes)


@pytest.mark.parametrize(
    ("signal", "own", "ends"),
    [("HUP", "", True), ("SIGHUP", "SIGINT", False), ("INT", "SIGINT", True), ("9", "SIGINT", True)],
)
def test_signals_that_end_restarts(signal, own, ends):
    assert ends_restarts(signal, own) == ends


def test_random_names():
    assert random_name(lambda _: 0, lambda _name: False) == "amber_abel"
    assert random_name(lambda _: 0, lambda name: name == "amber_abel") == "amber_abel0"


def changed(config, **host):
    return updated_config(config, decode_value(host, HostConfig))


HOST = Host(
    machine="x86_64", capabilities=frozenset(), hard_limits={}, oom_score_adj=0, cgroup_v2=False, cgroup_mounts=(),
    cpu_count=2, memory_bytes=1 << 30, limits_swap=True,
)  # fmt: skip


def test_other_limits():
    before = asked({"Memory": 64 << 20, "PidsLimit": 50})
    assert changed(before) == before, "what is not asked for stays"
    after = changed(before, NanoCpus=5, PidsLimit=-1, RestartPolicy={"Name": "always"})
    assert (after.memory_bytes, after.nano_cpus, after.pids_limit) == (64 << 20, 5, 0)
    assert after.plain is not None
    assert after.plain.restart.name == RestartName.ALWAYS
    shared = changed(before, CpuShares=5, CpusetCpus="0-1,4", MemoryReservation=32 << 20, MemorySwap=-1)
    assert changed(shared, NanoCpus=5).more_limits == shared.more_limits
    assert numbers_of_set(shared.more_limits.cpuset_cpus) == {0, 1, 4}
    with pytest.raises(InvalidArgument, match="because AutoRemove is enabled"):
        changed(asked({"AutoRemove": True}), RestartPolicy={"Name": "always"})
    with pytest.raises(InvalidArgument, match="is a task's"):
        changed(replace(before, plain=None))
    assert limit_arguments(before, before, HOST) == []
    arguments = ["--cpu-period", "100000", "--cpu-quota", "1000", "--pids-limit", "-1"]
    assert limit_arguments(before, after, HOST) == arguments
    assert limit_arguments(before, shared, HOST) == [
        "--memory", str(64 << 20), "--memory-swap", "-1", "--cpu-share", "5", "--cpuset-cpus", "0-1,4",
        "--memory-reservation", str(32 << 20),
    ]  # fmt: skip
    more = changed(before, Memory=128 << 20)
    assert limit_arguments(before, more, HOST) == ["--memory", str(128 << 20), "--memory-swap", str(256 << 20)]
    timed = changed(after, CpuQuota=20_000, CpuPeriod=50_000)
    assert limits_of(timed, HOST)["cpu"] == {"quota": 20_000, "period": 50_000}
