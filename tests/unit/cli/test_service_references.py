"""Secrets, configs and networks of a service, from flags to references with ids."""

import pytest

from shoal.cli.service_references import parse_network, parse_payload, set_references
from shoal.errors import InvalidArgument, NotFound

FILE = {"Name": "key", "UID": "0", "GID": "0", "Mode": 0o444}


def find(path):
    _, kind, name = path.split("/")
    if name == "nosuch":
        raise NotFound(f"{kind} {name} not found")
    return {"Id": f"n-{name}", "ID": f"id-{name}", "Spec": {"Name": name}}


def changed(given, **container):
    spec = {"TaskTemplate": {"ContainerSpec": dict(container), "Networks": [{"Target": "n-old"}]}}
    set_references(spec, given, find)
    return spec["TaskTemplate"]


def test_short_and_long_forms():
    assert parse_payload("key") == {"source": "key", "File": FILE}
    assert parse_payload("src=key,target=/etc/k,uid=7,gid=8,mode=0400") == {
        "source": "key",
        "File": {"Name": "/etc/k", "UID": "7", "GID": "8", "Mode": 0o400},
    }


@pytest.mark.parametrize(
    ("parse", "text", "message"),
    [
        (parse_payload, "target=/x", "source is required"),
        (parse_payload, "", "source is required"),
        (parse_payload, "source=a,owner=1", 'invalid field "owner"'),
        (parse_payload, "source=a,target", 'invalid field "target"'),
        (parse_payload, "source=a,mode=rw", "no octal number"),
        (parse_network, "name=a,ip=1.2.3.4", "invalid field key ip"),
    ],
)
def test_what_cannot_be_read(parse, text, message):
    with pytest.raises(InvalidArgument, match=message):
        parse(text)


def test_references_are_added_and_taken_away():
    made = changed({"secret": (parse_payload("key"),), "config": (parse_payload("conf"),)})["ContainerSpec"]
    assert made["Secrets"] == [{"SecretID": "id-key", "SecretName": "key", "File": FILE}]
    assert made["Configs"][0]["ConfigID"] == "id-conf"
    kept = changed({"secret_rm": ("key",), "secret_add": (parse_payload("new"),)}, Secrets=made["Secrets"])
    assert [each["SecretName"] for each in kept["ContainerSpec"]["Secrets"]] == ["new"]


def test_two_files_of_one_name_are_refused():
    twice = (parse_payload("source=a,target=f"), parse_payload("source=b,target=f"))
    with pytest.raises(InvalidArgument, match="duplicate secret target for b not allowed: f"):
        changed({"secret": twice})
    with pytest.raises(NotFound):
        changed({"config_add": (parse_payload("nosuch"),)})


def test_networks_are_added_and_taken_away():
    template = changed({"network_add": (parse_network("name=new,alias=a"),), "network_rm": ("old",)})
    assert template["Networks"] == [{"Target": "n-new", "Aliases": ["a"]}]
    assert changed({"network_add": (parse_network("new"),)})["Networks"] == [{"Target": "n-old"}, {"Target": "n-new"}]
