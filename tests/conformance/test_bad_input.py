"""Bad input over HTTP: Docker's status and text, and nothing is lost by it."""

from __future__ import annotations

import base64
import gzip
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from urllib.parse import quote

import pytest

from tests.system.daemon import _UnixConnection, running_daemon, wait_for
from tests.system.left import left_on_machine
from tests.system.registry import USERS, ImageDirectory, layer_tar, registry

pytestmark = pytest.mark.root

IMAGE_STORE = "size=32m"
RUNNING = {"Image": "busybox", "Cmd": ["sleep", "1000"]}
CREATE, SERVICE, VOLUME, NETWORK = "/containers/create", "/services/create", "/volumes/create", "/networks/create"


def container(**fields):
    return {**RUNNING, **fields}


def host(**fields):
    return container(HostConfig=fields)


def service(template=None, **fields):
    return {"Name": "new", "TaskTemplate": {"ContainerSpec": {"Image": "busybox"}, **(template or {})}, **fields}


def spec(**fields):
    return service({"ContainerSpec": {"Image": "busybox", **fields}})


def filtered(path, **filters):
    return f"{path}?filters={quote(json.dumps(filters))}"


def mount(**fields):
    return host(Mounts=[fields])


def ulimit(name, soft, hard):
    return host(Ulimits=[{"Name": name, "Soft": soft, "Hard": hard}])


def published(port, *bindings):
    return host(PortBindings={port: list(bindings)})


# (method, path, body: a value for JSON, bytes as they are, or None), status, text
REQUESTS = [
    (("POST", CREATE, b"{"), 400, "invalid JSON: unexpected EOF"),
    (("POST", CREATE, b'{"Image":"busybox"} x'), 400, "invalid JSON: trailing characters"),
    (("POST", CREATE, b"[]"), 400, "cannot unmarshal array into the body of type object"),
    (("POST", CREATE, b"\xff\xfe"), 400, "invalid JSON"),
    (("POST", CREATE, b"[" * 100_000), 400, "invalid JSON: exceeded max depth"),
    (("POST", CREATE, b'{"Image":"' + b"x" * (5 << 20) + b'"}'), 413, "larger than 4194304 bytes"),
    (("POST", CREATE, b""), 400, "no image specified"),
    (("POST", CREATE, None), 400, "no image specified"),
    (("GET", "/v1.99/info", None), 400, "client version 1.99 is too new. Maximum supported API version is 1.50"),
    (("GET", "/v1.1/info", None), 400, "client version 1.1 is too old. Minimum supported API version is 1.24"),
    (("GET", "/nowhere", None), 404, "page not found"),
    (("PUT", "/info", None), 404, "page not found"),
    (("GET", "/system/df?type=moon", None), 400, "unknown object type: moon"),
    (("GET", "/events?since=yesterday", None), 400, 'invalid value for "since"'),
    (("GET", filtered("/events", moon=["x"]), None), 400, "invalid filter 'moon'"),
    (("POST", "/auth", {"password": "x"}), 400, "username"),
    (("POST", "/auth", {"username": "a", "serveraddress": "127.0.0.1:1"}), 400, "password: give"),
    (("POST", "/auth", {"username": "a\0b", "password": "x"}), 400, "username"),
    (("POST", "/auth", {"username": "a", "password": "b", "serveraddress": "--authfile=/etc"}), 400, "serveraddress"),
    (("POST", "/auth", {"username": "a", "password": "b", "serveraddress": "127.0.0.1:1"}), 503, "cannot be reached"),
]
CONTAINERS = [
    (container(Image=5), 400, "cannot unmarshal number into field Image of type string"),
    (container(Image="nothing"), 404, "No such image: nothing:latest"),
    (container(Image="UPPER"), 400, "repository name (library/UPPER) must be lowercase"),
    (container(Image="a:b:c"), 400, "invalid reference format"),
    (container(Cmd=5), 400, "Cmd: write a string or a list of strings"),
    (container(Cmd=["a", 5]), 400, "Cmd: write a string or a list of strings"),
    (container(Cmd=[]), 400, "no command specified"),
    (container(Entrypoint={"a": 1}), 400, "Entrypoint: write a string or a list of strings"),
    (container(Env="A=1"), 400, "cannot unmarshal string into field Env of type array"),
    (container(Env=[5]), 400, "cannot unmarshal number into field Env[0] of type string"),
    (container(Env=["=x"]), 400, "invalid environment variable: =x"),
    (container(Labels=["a"]), 400, "field Labels of type object"),
    (container(Labels={"com.docker.swarm.x": "1"}), 400, "is set by the swarm only"),
    (container(HostConfig=[]), 400, "field HostConfig of type object"),
    (container(WorkingDir="here"), 400, "the working directory 'here' is invalid, it needs to be an absolute path"),
    (container(Hostname="a b"), 400, "Hostname: invalid name"),
    (container(Hostname="h" * 65), 400, "at most 64 bytes"),
    (container(StopSignal="SIGNOPE"), 400, "invalid signal: SIGNOPE"),
    (container(StopTimeout=-7), 400, "StopTimeout"),
    (container(Healthcheck={"Test": ["SOMETIMES"]}), 400, "Test in Healthcheck begins with 'SOMETIMES'"),
    (container(Healthcheck={"Test": ["CMD", "x"], "Interval": 5}), 400, "cannot be less than 1ms"),
    (container(Healthcheck={"Test": ["CMD", "x"], "Retries": -1}), 400, "cannot be negative"),
    (container(ExposedPorts={"70000": {}}), 400, 'invalid port specification: "70000"'),
    (host(Memory=100), 400, "Minimum memory limit allowed is 6MB"),
    (host(Memory=-1), 400, "must not be negative"),
    (host(Memory="1g"), 400, "cannot unmarshal string into field HostConfig.Memory of type int64"),
    (host(Memory=1.5), 400, "cannot unmarshal number into field HostConfig.Memory of type int64"),
    (host(Memory=1 << 63), 400, "into field HostConfig.Memory of type int64"),
    (host(NanoCpus=10**12), 400, "range of CPUs is from 0.01 to"),
    (host(PidsLimit=-5), 400, "HostConfig.PidsLimit"),
    (host(ShmSize=-1), 400, "SHM size can not be less than 0"),
    (host(OomScoreAdj=2000), 400, "Invalid value 2000, range for oom score adj is [-1000, 1000]"),
    (ulimit("moon", 1, 1), 400, "invalid ulimit type: moon"),
    (ulimit("nofile", 5, 1), 400, "soft limit must be less than or equal to hard limit: 5 > 1"),
    (host(CapAdd=["NONSENSE"]), 400, 'invalid capability: "NONSENSE"'),
    (host(CapAdd="ALL"), 400, "field HostConfig.CapAdd of type array"),
    (host(SecurityOpt=["x=y"]), 400, 'invalid --security-opt 2: "x=y"'),
    (host(SecurityOpt=["seccomp={broken"]), 400, "Decoding seccomp profile failed"),
    (host(SecurityOpt=["apparmor=mine"]), 501, 'HostConfig.SecurityOpt "apparmor=mine" is not built'),
    (host(Sysctls={"kernel.panic": "1"}), 400, "sysctl 'kernel.panic' is not allowed"),
    (host(RestartPolicy={"Name": "sometimes"}), 400, "invalid restart policy: unknown policy 'sometimes'"),
    (host(RestartPolicy={"Name": "always", "MaximumRetryCount": 3}), 400, "can only be used with 'on-failure'"),
    (host(AutoRemove=True, RestartPolicy={"Name": "always"}), 400, "can't create 'AutoRemove' container"),
    (host(Binds=["/a:/b:moon"]), 400, "invalid volume specification: '/a:/b:moon': invalid mode: moon"),
    (host(Binds=["/a:b"]), 400, "must be an absolute path"),
    (host(Binds=["/a:/x", "/b:/x"]), 400, "Duplicate mount point: /x"),
    (mount(Type="bind", Source="/not/there", Target="/x"), 400, "bind source path does not exist: /not/there"),
    (mount(Type="bind", Source="there", Target="/x"), 400, "invalid bind mount source, must be an absolute path"),
    (mount(Type="moon", Target="/x"), 400, 'invalid MountType: "moon"'),
    (mount(Type="volume", Source="!", Target="/x"), 400, "includes invalid characters for a local volume name"),
    (host(VolumesFrom=["nobody"]), 404, "No such container: nobody"),
    (host(VolumesFrom=["there:moon"]), 400, "invalid volumes-from specification: 'there:moon'"),
    (host(Tmpfs={"/x": "moon=1"}), 400, 'invalid tmpfs option "moon=1"'),
    (published("x/tcp", {}), 400, 'invalid port specification: "x/tcp"'),
    (published("80/icmp", {}), 400, "invalid proto: icmp"),
    (published("80/tcp", {"HostPort": "99999"}), 400, 'invalid port specification: "99999"'),
    (host(LogConfig={"Type": "moon"}), 400, "no log driver named 'moon' is registered"),
    (host(LogConfig={"Type": "json-file", "Config": {"moon": "1"}}), 400, "unknown log opt 'moon'"),
    (host(LogConfig={"Type": "json-file", "Config": {"max-size": "x"}}), 400, "max-size 'x'"),
    (host(NetworkMode="container:"), 400, "invalid container format"),
    (host(NetworkMode="container:nobody"), 404, "No such container: nobody"),
    (host(ExtraHosts=["nobody"]), 400, 'bad format for add-host: "nobody"'),
    (host(ExtraHosts=["a:999.1.1.1"]), 400, 'invalid IP address in add-host: "999.1.1.1"'),
    (host(Dns=["x.y"]), 400, "IP address is not correctly formatted: x.y"),
    (host(Isolation="hyperv"), 400, "invalid isolation 'hyperv' on linux"),
    (host(Runtime="kata"), 400, "unknown or invalid runtime name: kata"),
    (host(Devices=[{"PathOnHost": "/dev/null", "CgroupPermissions": "z"}]), 400, "invalid mode for device: z"),
]
THINGS = [
    (("POST", f"{CREATE}?name=there", RUNNING), 409, 'The container name "/there" is already in use by container'),
    (("POST", f"{CREATE}?name=%21", RUNNING), 400, "Invalid container name (!), only [a-zA-Z0-9][a-zA-Z0-9_.-]"),
    (("POST", f"{CREATE}?platform=a/b/c/d", RUNNING), 400, "cannot parse platform specifier"),
    (("POST", f"{CREATE}?platform=linux/s390x", RUNNING), 404, "does not match the specified platform (linux/s390x)"),
    (("GET", "/containers/nobody/json", None), 404, "No such container: nobody"),
    (("POST", "/containers/nobody/start", None), 404, "No such container: nobody"),
    (("POST", "/containers/there/unpause", None), 409, "is not paused"),
    (("POST", "/containers/made/pause", None), 409, "is not running"),
    (("POST", "/containers/made/kill", None), 409, "is not running"),
    (("POST", "/containers/there/kill?signal=MOON", None), 400, "invalid signal: MOON"),
    (("POST", "/containers/there/stop?t=x", None), 400, 'invalid value for "t": "x"'),
    (("POST", "/containers/there/rename?name=made", None), 409, 'The container name "/made" is already in use'),
    (("POST", "/containers/there/rename", None), 400, "Neither old nor new names may be empty"),
    (("POST", "/containers/there/wait?condition=moon", None), 400, 'invalid condition: "moon"'),
    (("POST", "/containers/there/update", {"Memory": 5}), 400, "Minimum memory limit allowed is 6MB"),
    (("POST", "/containers/there/update", {"RestartPolicy": {"Name": "x"}}), 400, "unknown policy 'x'"),
    (("DELETE", "/containers/there", None), 409, 'cannot remove container "/there": container is running'),
    (("GET", "/containers/there/logs", None), 400, "you must choose at least one stream"),
    (("GET", "/containers/there/logs?stdout=1&tail=x", None), 400, 'tail value must be a positive integer or "all"'),
    (("GET", "/containers/there/logs?stdout=1&since=x", None), 400, 'invalid value for "since"'),
    (("GET", "/containers/there/stats?stream=1&one-shot=1", None), 400, "cannot have stream=true and one-shot=true"),
    (("POST", "/containers/there/resize?h=x&w=1", None), 400, 'strconv.Atoi: parsing "x": invalid syntax'),
    (("GET", "/containers/made/top", None), 409, "is not running"),
    (("GET", "/containers/there/top?ps_args=%C2%BF", None), 400, "ps_args: ps: exit status 1: error: garbage option"),
    (("GET", "/containers/there/top?ps_args=-eo%20comm", None), 400, "Couldn't find PID field in ps output"),
    (("GET", "/containers/there/archive", None), 400, "path"),
    (("GET", "/containers/there/archive?path=/nowhere", None), 404, "Could not find the file /nowhere"),
    (("PUT", "/containers/there/archive?path=/tmp", b"x" * 600), 400, "no whole tar archive"),
    (("POST", "/containers/there/exec", {}), 400, "No exec command specified"),
    (("POST", "/containers/there/exec", {"Cmd": "ls"}), 400, "field Cmd of type array"),
    (("POST", "/containers/made/exec", {"Cmd": ["ls"]}), 409, "is not running"),
    (("POST", "/exec/nobody/start", {}), 404, "No such exec instance: nobody"),
    (("GET", "/containers/json?filters=x", None), 400, "invalid filter"),
    (("GET", "/containers/json?limit=x", None), 400, 'invalid value for "limit": "x"'),
    (("GET", filtered("/containers/json", moon=["x"]), None), 400, "invalid filter 'moon'"),
    (("GET", filtered("/containers/json", status=["moon"]), None), 400, "invalid filter 'status=moon'"),
    (("GET", filtered("/containers/json", exited=["x"]), None), 400, "invalid filter 'exited=x'"),
    (("GET", filtered("/containers/json", health=["ill"]), None), 400, "invalid filter 'health=ill'"),
    (("GET", filtered("/containers/json", publish=["x"]), None), 400, "invalid port of a filter: x"),
    (("GET", filtered("/containers/json", since=["nobody"]), None), 404, "No such container: nobody"),
    (("POST", filtered("/containers/prune", until=["x"]), None), 400, "invalid filter 'until=x'"),
    (("GET", "/images/nothing/json", None), 404, "No such image: nothing:latest"),
    (("GET", "/images/UPPER/json", None), 400, "repository name (library/UPPER) must be lowercase"),
    (("DELETE", "/images/nothing", None), 404, "No such image: nothing:latest"),
    (("DELETE", "/images/busybox?force=1", None), 409, "conflict: unable to remove repository reference"),
    (("POST", "/images/busybox/tag?repo=UPPER", None), 400, "must be lowercase"),
    (("POST", "/images/busybox/tag?repo=a&tag=%21", None), 400, "invalid reference format"),
    (("GET", "/images/get?names=nothing", None), 404, "No such image: nothing:latest"),
    (("GET", filtered("/images/json", moon=["x"]), None), 400, "invalid filter 'moon'"),
    (("GET", filtered("/images/json", before=["nothing"]), None), 404, "No such image: nothing:latest"),
    (("GET", filtered("/images/json", dangling=["maybe"]), None), 400, "invalid filter 'dangling=[maybe]'"),
    (("POST", filtered("/images/prune", until=["x"]), None), 400, "invalid filter 'until=x'"),
    (("POST", "/images/create", None), 400, "fromImage or fromSrc is needed"),
    (("POST", "/images/create?fromImage=UPPER", None), 400, "must be lowercase"),
    (("POST", "/images/create?fromImage=127.0.0.1:1/x", None), 503, "registry 127.0.0.1:1 cannot be reached"),
    (("POST", "/images/create?fromImage=x&platform=a/b/c/d", None), 400, "cannot parse platform specifier"),
    (("POST", "/images/create?fromSrc=-&repo=new", b"x" * 2000), 400, "no whole tar archive"),
    (("POST", "/images/create?fromSrc=-&repo=new&changes=MOON%20x", b""), 400, "MOON is not a valid change command"),
    (("POST", "/images/create?fromSrc=-&repo=new&changes=ENV%20%22", b""), 400, "No closing quotation"),
    (("POST", "/images/create?fromSrc=-&repo=new&changes=EXPOSE%20x", b""), 400, 'invalid port specification: "x"'),
    (("POST", "/images/nothing/push?tag=1", None), 404, "An image does not exist locally with the tag: nothing"),
    (("POST", "/images/nothing/push", None), 404, "An image does not exist locally with the tag: nothing"),
    (("POST", "/images/UPPER/push", None), 400, "must be lowercase"),
    (("POST", "/images/load", b"x" * 2000), 400, "invalid archive"),
    (("GET", "/distribution/UPPER/json", None), 400, "must be lowercase"),
    (("POST", VOLUME, {"Name": "!"}), 400, "includes invalid characters for a local volume name"),
    (("POST", VOLUME, {"Name": "a"}), 400, "volume name is too short"),
    (("POST", VOLUME, {"Name": "v" * 300}), 400, "volume name is too long"),
    (("POST", VOLUME, {"Name": "new", "Driver": "moon"}), 404, 'plugin "moon" not found'),
    (("POST", VOLUME, {"Name": "new", "DriverOpts": {"moon": "1"}}), 400, 'invalid option: "moon"'),
    (("DELETE", "/volumes/nothing", None), 404, "get nothing: no such volume"),
    (("DELETE", "/volumes/kept", None), 409, "remove kept: volume is in use"),
    (("GET", filtered("/volumes", moon=["x"]), None), 400, "invalid filter 'moon'"),
    (("POST", NETWORK, {"Name": "bridge"}), 403, "operation is not permitted on predefined bridge network"),
    (("POST", NETWORK, {"Name": "new", "Driver": "moon"}), 404, 'plugin "moon" not found'),
    (("POST", NETWORK, {"Name": "new", "IPAM": {"Config": [{"Subnet": "x"}]}}), 400, "invalid subnet x"),
    (("DELETE", "/networks/bridge", None), 403, "pre-defined network and cannot be removed"),
    (("DELETE", "/networks/nothing", None), 404, "network nothing not found"),
    (("GET", filtered("/networks", type=["moon"]), None), 400, "invalid filter"),
    (("POST", "/swarm/init", {"ListenAddr": "x"}), 503, "already part of a swarm"),
    (("POST", "/swarm/update?version=x", {}), 400, "invalid swarm version 'x'"),
    (("POST", "/swarm/leave", None), 503, "participating as a manager"),
    (("GET", "/nodes/nobody", None), 404, "node nobody not found"),
    (("GET", filtered("/nodes", role=["boss"]), None), 400, "role"),
    (("GET", "/services/nothing", None), 404, "service nothing not found"),
    (("GET", filtered("/services", moon=["x"]), None), 400, "invalid filter 'moon'"),
    (("GET", "/tasks/nothing", None), 404, "task nothing not found"),
    (("POST", "/secrets/create", {"Name": "new"}), 400, "secret data must be larger than 0"),
    (("POST", "/secrets/create", {"Name": "new", "Data": "*"}), 400, "illegal base64 data"),
    (("DELETE", "/secrets/nothing", None), 404, "secret nothing not found"),
]
SERVICES = [
    (service(Name="there"), 409, "service there already exists"),
    (service(Name="!"), 400, "name must be valid as a DNS name component"),
    (spec(Image=""), 400, "image reference must be provided"),
    (spec(Image="a b"), 400, "is not a valid repository/tag"),
    (spec(Mounts=[{"Type": "bind", "Source": "here", "Target": "/x"}]), 400, "must be an absolute path"),
    (spec(Healthcheck={"Test": ["SOMETIMES"]}), 400, "begins with 'SOMETIMES'"),
    (spec(StopGracePeriod=-1), 400, "StopGracePeriod cannot be negative"),
    (spec(Isolation="hyperv"), 400, "unsupported isolation"),
    (spec(Secrets=[{"SecretID": "a"}]), 400, "malformed secret reference"),
    (service({"Resources": {"Limits": {"MemoryBytes": 100}}}), 400, "invalid memory value 100: Must be at least 4MiB"),
    (service({"Resources": {"Limits": {"NanoCPUs": -1}}}), 400, "invalid cpu value"),
    (service({"RestartPolicy": {"Condition": "moon"}}), 400, "moon"),
    (service({"Placement": {"Constraints": ["node.colour==red"]}}), 400, "node.colour"),
    (service({"Networks": [{"Target": "nothing"}]}), 404, "network nothing not found"),
    (service(Mode={"Replicated": {"Replicas": -1}}), 400, "Replicas"),
    (service(Mode={"Replicated": {}, "Global": {}}), 400, "mode"),
    (service(EndpointSpec={"Ports": [{"TargetPort": 80, "PublishedPort": 8090}]}), 400, "port '8090' is already in"),
    (service(UpdateConfig={"FailureAction": "cry"}), 400, "cry"),
    (service(Labels={"shoal.moon": "1"}), 400, "shoal.moon"),
]  # fmt: skip


class World:
    """One daemon in a swarm with something of each kind, that must be there after each request as before."""

    def __init__(self, daemon, scratch):
        self.daemon = daemon
        self.scratch = scratch
        self.whole = ()

    def fill(self):
        daemon = self.daemon
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        daemon.docker("run", "-d", "--name", "there", "-p", "8091:80", "-v", "kept:/data", "busybox", "sleep", "1000")
        daemon.docker("create", "--name", "made", "busybox", "sleep", "1000")
        local = ("service", "create", "-d", "--no-resolve-image", "--name", "there", "-p", "8090:80")
        daemon.docker(*local, "busybox", "sleep", "1000")
        wait_for(lambda: "1/1" in daemon.docker("service", "ls").stdout, "it runs")
        self.whole = self.things()

    def ask(self, method, path, body=None, headers=None):
        connection = _UnixConnection(str(self.daemon.socket_path), 30)
        kind = "application/x-tar" if "/images/" in path or "/archive" in path else "application/json"
        raw = body if isinstance(body, bytes) or body is None else json.dumps(body).encode()
        connection.request(method, path, raw, {"Content-Type": kind, **(headers or {})})
        response = connection.getresponse()
        answer = response.status, response.read().decode()
        connection.close()
        return answer

    def things(self):
        """Everything there is, by what stays the same while it runs."""
        get = self.daemon.request
        containers = get("GET", "/containers/json?all=1")[1]
        return (
            sorted((each["Id"], each["State"], each["Names"][0]) for each in containers),
            sorted((each["Id"], *each["RepoTags"]) for each in get("GET", "/images/json")[1]),
            sorted(each["Name"] for each in get("GET", "/volumes")[1]["Volumes"]),
            sorted(each["ID"] for each in get("GET", "/services")[1]),
            sorted(each["Id"] for each in get("GET", "/networks")[1]),
        )

    def stored(self):
        """Every file and directory of the image store."""
        store = self.daemon.root / "images"
        names = {path.relative_to(store).as_posix() for path in store.rglob("*")}
        return {name for name in names if not name.startswith(("locks/", "index.sqlite", "l/0"))}


@pytest.fixture(scope="module")
def world():
    scratch = Path(tempfile.mkdtemp(prefix="shoal-bad-"))
    images = scratch / "images"
    images.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", IMAGE_STORE, "shoal-test", str(images)], check=True)
    try:
        with running_daemon("--image-root", str(images)) as daemon:
            (daemon.root / "images").symlink_to(images)
            daemon.import_busybox()
            daemon_id = daemon.request("GET", "/info")[1]["ID"]
            world = World(daemon, scratch)
            world.fill()
            yield world
            assert "level=error" not in daemon.log()
            daemon.docker("rm", "-f", "there", "made")
            daemon.docker("swarm", "leave", "--force")
            assert daemon.stop() == 0
            assert left_on_machine(daemon_id, daemon.root) == []
    finally:
        subprocess.run(["umount", str(images)], check=True)
        subprocess.run(["rm", "-r", str(scratch)], check=True)


def label(case):
    return str(case)[:60] if not isinstance(case, tuple) else f"{case[0]} {case[1]}"[:60]


def check(world, request, status, text):
    found, answer = world.ask(*request)
    assert found == status, answer
    assert text in json.loads(answer)["message"]
    assert world.things() == world.whole


@pytest.mark.parametrize(("request_", "status", "text"), REQUESTS + THINGS, ids=label)
def test_request(world, request_, status, text):
    check(world, request_, status, text)


@pytest.mark.parametrize(("body", "status", "text"), CONTAINERS, ids=label)
def test_container(world, body, status, text):
    check(world, ("POST", CREATE, body), status, text)


@pytest.mark.parametrize(("body", "status", "text"), SERVICES, ids=label)
def test_service(world, body, status, text):
    check(world, ("POST", SERVICE, body), status, text)


def test_there_are_at_least_a_hundred_cases():
    assert len(REQUESTS + CONTAINERS + THINGS + SERVICES) >= 150


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (host(CapAdd=["SYS_RESOURCE"]), "the daemon itself does not hold CAP_SYS_RESOURCE"),
        (host(OomScoreAdj=-500), "OomScoreAdj -500: below 0 needs CAP_SYS_RESOURCE, which the daemon lacks"),
        (ulimit("nofile", 1 << 30, 1 << 30), "above this node's hard limit"),
    ],
)  # fmt: skip
def test_what_the_host_cannot_give(world, body, text):
    mask = int(Path(f"/proc/{world.daemon.pid}/status").read_text().partition("CapEff:")[2].split()[0], 16)
    if mask >> 24 & 1:
        pytest.skip("this host can give it: the daemon holds CAP_SYS_RESOURCE")
    check(world, ("POST", CREATE, body), 400, text)


def test_a_container_that_cannot_start_stays_as_it_was(world):
    for field, value, status, text in (
        ("HostConfig", {"PortBindings": {"80/tcp": [{"HostPort": "8091"}]}}, 500, "port is already allocated"),
        ("HostConfig", {"PortBindings": {"80/tcp": [{"HostPort": "8090"}]}}, 500, "port is already allocated"),
        ("HostConfig", {"NetworkMode": "nowhere"}, 404, "network nowhere not found"),
        ("HostConfig", {"GroupAdd": ["nobodies"]}, 400, "unable to find group nobodies"),
        ("HostConfig", {"Devices": [{"PathOnHost": "/dev/nowhere"}]}, 400, "error gathering device information"),
        ("User", "nobody9", 400, "unable to find user nobody9: no matching entries in passwd file"),
        ("Cmd", ["nothing"], 400, 'exec: "nothing": executable file not found in $PATH'),
        ("Cmd", ["/etc"], 400, "permission denied"),
    ):
        before = world.things()
        status_made, answer = world.ask("POST", CREATE, container(**{field: value}))
        assert status_made == 201, answer
        id_ = json.loads(answer)["Id"]
        found, answer = world.ask("POST", f"/containers/{id_}/start")
        message = json.loads(answer)["message"]
        assert (found, text in message) == (status, True), message
        state = json.loads(world.ask("GET", f"/containers/{id_}/json")[1])["State"]
        assert (state["Running"], state["Pid"]) == (False, 0)
        assert world.ask("DELETE", f"/containers/{id_}")[0] == 204
        assert world.things() == before


def test_registries(world, tmp_path):
    netns, before, stored = world.daemon.netns, world.things(), world.stored()
    image = ImageDirectory(tmp_path / "image")
    plain = layer_tar(("file", b"x" * 100_000))
    with registry(tmp_path, USERS, netns) as address:
        good = image.image([(plain, "gzip")])
        image.push(good, f"{address}/private:1", "--dest-creds", "bob:secret", netns=netns)
        path = f"/images/create?fromImage={address}/private&tag=1"
        status, answer = world.ask("POST", path)
        assert (status, "no basic auth credentials" in answer) == (500, True), answer
        wrong = base64.urlsafe_b64encode(b'{"username":"bob","password":"x"}').decode()
        status, answer = world.ask("POST", path, None, {"X-Registry-Auth": wrong})
        assert (status, "unauthorized: authentication required" in answer) == (401, True), answer
        status, answer = world.ask("POST", "/auth", {"username": "bob", "password": "x", "serveraddress": address})
        assert (status, "401 Unauthorized" in answer) == (401, True), answer
        for header in ("%%%", "WzFd", "a"):
            status, answer = world.ask("POST", path, None, {"X-Registry-Auth": header})
            assert (status, "no base64 of a JSON object" in answer) == (400, True), answer
    (tmp_path / "open").mkdir()
    with registry(tmp_path / "open", netns=netns) as address:
        image.push(good, f"{address}/broken:1", netns=netns)
        layer = json.loads((image.directory / "blobs/sha256" / good["digest"][7:]).read_text())["layers"][0]["digest"]
        (data,) = (tmp_path / "open" / "registry").rglob(f"blobs/sha256/{layer[7:9]}/{layer[7:]}/data")
        content = data.read_bytes()
        # other bytes of the same length under the layer's name
        data.write_bytes(content[:50] + bytes(len(content) - 50))
        status, answer = world.ask("POST", f"/images/create?fromImage={address}/broken&tag=1")
        assert (status, "layer verification failed" in answer) == (200, True), answer
        # a layer whose content is not what the image's config names, though its own digest is right
        lying = image.image([(plain, "gzip")], rootfs={"type": "layers", "diff_ids": ["sha256:" + "0" * 64]})
        image.push(lying, f"{address}/lying:1", netns=netns)
        data.write_bytes(content)
        status, answer = world.ask("POST", f"/images/create?fromImage={address}/lying&tag=1")
        assert (status, "the content of its blob is" in answer) == (200, True), answer
        status, answer = world.ask("POST", f"/images/create?fromImage={address}/broken&tag=2")
        assert (status, "manifest unknown" in answer) == (404, True), answer
    assert (world.things(), world.stored()) == (before, stored)


def squeezed(megabytes):
    """A tar of zeros that is small on the way and large on the disk."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for number in range(megabytes):
            info = tarfile.TarInfo(f"zeros-{number}")
            info.size = 1 << 20
            archive.addfile(info, io.BytesIO(bytes(1 << 20)))
    return buffer.getvalue()


def test_a_full_disk_leaves_nothing_half_there(world, tmp_path):
    before, stored = world.things(), world.stored()
    large = squeezed(64)
    status, answer = world.ask("POST", "/images/create?fromSrc=-&repo=large", gzip.compress(large, 1))
    assert (status, "no space left on device" in answer) == (500, True), answer
    assert (world.things(), world.stored()) == (before, stored)
    # the body itself finds no room
    status, answer = world.ask("POST", "/images/load", large)
    assert (status, "no space left on device" in answer) == (500, True), answer
    assert (world.things(), world.stored()) == (before, stored)
    netns = world.daemon.netns
    with registry(tmp_path, netns=netns) as address:
        image = ImageDirectory(tmp_path / "image")
        small = layer_tar(("small", b"x"))
        image.push(image.image([(small, "gzip"), (large, "gzip")]), f"{address}/large:1", netns=netns)
        status, answer = world.ask("POST", f"/images/create?fromImage={address}/large&tag=1")
        assert (status, "no space left on device" in answer) == (200, True), answer
        assert (world.things(), world.stored()) == (before, stored)
    # there is room again
    world.daemon.import_busybox("again")
    assert world.daemon.docker("run", "--rm", "again", "echo", "hi").stdout == "hi\n"
    assert world.ask("DELETE", "/images/again")[0] == 200
    assert world.things() == before
