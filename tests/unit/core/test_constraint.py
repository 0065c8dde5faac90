"""The constraint language (docker-swarm.md 4.6)."""

from __future__ import annotations

import pytest

from shoal.core.constraint import matches_all, parse
from shoal.errors import InvalidArgument
from shoal.model.objects import ManagerStatus, Node, NodeDescription, NodeStatus
from shoal.model.specs import NodeSpec, Platform

NODE = Node(
    id="AbC1",
    spec=NodeSpec(labels={"Zone": "North", "empty": ""}),
    status=NodeStatus(address="10.1.2.3"),
    manager_status=ManagerStatus(raft_id=1, address=""),
    description=NodeDescription(
        hostname="Host1", platform=Platform(architecture="x86_64", os="linux"), engine_labels={"disk": "ssd"}
    ),
)


@pytest.mark.parametrize(
    ("expression", "expected"),
    [
        ("node.id==abc1", True),
        ("node.id == abc1 ", True),
        ("node.id!=abc1", False),
        ("NODE.HOSTNAME==host1", True),
        ("node.hostname==host", False),
        ("node.role==manager", True),
        ("node.role!=worker", True),
        ("node.platform.os==LINUX", True),
        ("node.platform.arch==amd64", False),
        ("node.platform.arch==x86_64", True),
        ("node.labels.Zone==north", True),
        ("node.labels.zone==north", False),
        ("node.labels.zone!=north", True),
        ("node.labels.gone!=x", True),
        ("node.labels.gone==x", False),
        ("engine.labels.disk==ssd", True),
        ("engine.labels.disk!=ssd", False),
        ("node.labels.Zone==N*", False),
        ("node.ip==10.1.2.3", True),
        ("node.ip==10.1.0.0/16", True),
        ("node.ip==10.1.9.9/16", True),
        ("node.ip!=10.1.0.0/16", False),
        ("node.ip==10.2.0.0/16", False),
        ("node.ip==nonsense", False),
        ("node.ip!=nonsense", False),
        ("node.colour==red", False),
        ("node.colour!=red", False),
    ],
)
def test_matches(expression: str, expected: bool) -> None:
    assert matches_all(parse((expression,)), NODE) is expected


def test_all_must_hold() -> None:
    assert matches_all(parse(("node.role==manager", "engine.labels.disk==ssd")), NODE)
    assert not matches_all(parse(("node.role==manager", "engine.labels.disk==hdd")), NODE)
    assert matches_all((), NODE)


@pytest.mark.parametrize(
    ("expression", "text"),
    [
        ("node.role", "constraint expected one operator from ==, !="),
        ("node.role=manager", "constraint expected one operator from ==, !="),
        ("", "constraint expected one operator from ==, !="),
        ("==x", "key '' is invalid"),
        ("1node==x", "key '1node' is invalid"),
        ("no de==x", "key 'no de' is invalid"),
        ("node.id==", "value '' is invalid"),
        ("node.id==a,b", "value 'a,b' is invalid"),
        ("node.id!=a==b", "key 'node.id!=a' is invalid"),
    ],
)
def test_refused(expression: str, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        parse((expression,))
    assert caught.value.message == text
