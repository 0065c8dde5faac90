import pytest

from shoal.language.mounts import parse_mount
from shoal.language.ports import is_same_port, parse_port_match, parse_ports
from shoal.language.values import (
    parse_bytes,
    parse_command,
    parse_environment,
    parse_filters,
    parse_generic_resource,
    parse_nano_cpus,
    parse_node_address,
    parse_preference,
    parse_scale,
    parse_uint,
    parse_ulimit,
)


def port(target, published=None, protocol="tcp", mode="ingress"):
    made = {"Protocol": protocol, "TargetPort": target, "PublishMode": mode}
    return made if published is None else {**made, "PublishedPort": published}


@pytest.mark.parametrize(
    ("text", "ports"),
    [
        ("80", [port(80)]),
        ("8080:80", [port(80, 8080)]),
        ("53:5353/udp", [port(5353, 53, "udp")]),
        ("8000-8002:80-82", [port(80, 8000), port(81, 8001), port(82, 8002)]),
        ("80-81", [port(80), port(81)]),
        ("published=8080,target=80", [port(80, 8080)]),
        ("target=80,mode=host,protocol=UDP", [port(80, None, "udp", "host")]),
        ("target=80,published=0", [port(80, 0)]),
    ],
)
def test_ports(text, ports):
    assert list(parse_ports(text)) == ports


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "invalid port"),
        ("0", "invalid port"),
        ("x:80", "invalid port"),
        ("65536", "invalid port"),
        ("90-80", "invalid port"),
        ("1-2:80-82", "invalid ranges"),
        ("127.0.0.1:8080:80", "hostip is not supported"),
        ("80/icmp", "invalid proto"),
        ("published=80", "missing mandatory field 'target'"),
        ("target=80,mode=vip", "invalid publish mode value"),
        ("target=80,protocol=icmp", "invalid protocol value"),
        ("target=80,colour=red", "invalid field key colour"),
        ("target=http", "invalid target port"),
        ("target=80,host", "invalid field: host"),
    ],
)
def test_bad_ports(text, message):
    with pytest.raises(ValueError, match=message):
        parse_ports(text)


def test_removal_of_a_port_matches_target_protocol_and_mode():
    assert is_same_port({"TargetPort": 80, "PublishedPort": 8080}, parse_port_match("80"))
    assert not is_same_port(port(80, 8080, "udp"), parse_port_match("80"))
    assert not is_same_port(port(80, 8080, mode="host"), parse_port_match("80/tcp"))
    assert is_same_port(port(80, 8080, mode="host"), parse_port_match("target=80,mode=host"))
    with pytest.raises(ValueError, match="target port only"):
        parse_port_match("8080:80")


@pytest.mark.parametrize(
    ("text", "mount"),
    [
        ("type=bind,src=/a,dst=/b,ro", {"Type": "bind", "Source": "/a", "Target": "/b", "ReadOnly": True}),
        ("source=data,target=/d", {"Type": "volume", "Source": "data", "Target": "/d"}),
        ("target=/d,readonly=false", {"Type": "volume", "Target": "/d", "ReadOnly": False}),
        (
            "type=tmpfs,target=/t,tmpfs-size=1m,tmpfs-mode=1770",
            {"Type": "tmpfs", "Target": "/t", "TmpfsOptions": {"SizeBytes": 1 << 20, "Mode": 0o1770}},
        ),
        (
            "target=/d,volume-driver=nfs,volume-opt=a=b,volume-label=x=y,volume-nocopy",
            {
                "Type": "volume",
                "Target": "/d",
                "VolumeOptions": {
                    "DriverConfig": {"Name": "nfs", "Options": {"a": "b"}},
                    "Labels": {"x": "y"},
                    "NoCopy": True,
                },
            },
        ),
        (
            '"type=bind",src=/a,target=/b,bind-propagation=rslave',
            {"Type": "bind", "Source": "/a", "Target": "/b", "BindOptions": {"Propagation": "rslave"}},
        ),
    ],
)
def test_mounts(text, mount):
    assert parse_mount(text) == mount


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("type=bind,src=/a", "target is required"),
        ("type=image,target=/a", "not available for services"),
        ("type=nfs,target=/a", "invalid mount type 'nfs'"),
        ("target=/a,colour=red", "unexpected key 'colour'"),
        ("target", "must be a key=value pair"),
        ("target=/a,tmpfs-size=1m", "cannot mix 'tmpfs-\\*'"),
        ("type=tmpfs,target=/a,tmpfs-mode=9", "octal"),
        ("target=/a,ro=perhaps", "invalid value for readonly"),
        ("type=bind,src=/a,target=/b,bind-recursive=readonly", "requires 'readonly'"),
        ("type=bind,src=/a,target=/b,bind-recursive=no", "invalid value for bind-recursive"),
    ],
)
def test_bad_mounts(text, message):
    with pytest.raises(ValueError, match=message):
        parse_mount(text)


def test_sizes_and_numbers():
    assert [parse_bytes(text) for text in ("0", "1k", "1.5m", "64MB", "2GiB")] == [
        0, 1024, 1572864, 64 << 20, 2 << 30,
    ]  # fmt: skip
    assert parse_nano_cpus("0.25") == 250_000_000
    assert parse_uint("0x10") == 16
    for parse, text in (
        (parse_bytes, "-1m"),
        (parse_nano_cpus, "half"),
        (parse_nano_cpus, "0.0000000001"),
        (parse_uint, "-1"),
    ):
        with pytest.raises(ValueError):
            parse(text)


def test_small_values():
    assert parse_command("sh -c 'echo a b'") == ("sh", "-c", "echo a b")
    assert parse_command("") == ()
    assert parse_preference("spread=node.labels.zone") == {"Spread": {"SpreadDescriptor": "node.labels.zone"}}
    assert parse_generic_resource("gpu=2") == {"DiscreteResourceSpec": {"Kind": "gpu", "Value": 2}}
    assert parse_ulimit("nofile=1024:2048") == {"Name": "nofile", "Soft": 1024, "Hard": 2048}
    assert parse_ulimit("nofile=-1") == {"Name": "nofile", "Soft": -1, "Hard": -1}
    assert parse_scale("my=web=3") == ("my=web", 3)
    assert parse_environment("A", {"A": "1"}) == "A=1"
    assert parse_environment("A", {}) == "A"
    assert parse_environment("A=", {"A": "1"}) == "A="
    assert parse_filters(["name=web", "label=a=b", "name=api"]) == {
        "name": {"web": True, "api": True},
        "label": {"a=b": True},
    }
    for parse, text in (
        (parse_preference, "binpack=node.labels.x"),
        (parse_generic_resource, "gpu=GPU-1"),
        (parse_ulimit, "nofile=5:4"),
        (parse_scale, "web"),
        (parse_scale, "web=-1"),
    ):
        with pytest.raises(ValueError):
            parse(text)


def test_node_address_gets_the_port_of_swarm():
    assert parse_node_address("10.0.0.1") == "10.0.0.1:2377"
    assert parse_node_address("eth0:4000") == "eth0:4000"
    assert parse_node_address("[::1]") == "[::1]:2377"
    with pytest.raises(ValueError, match="invalid port"):
        parse_node_address("10.0.0.1:port")
