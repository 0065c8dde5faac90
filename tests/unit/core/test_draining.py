"""When a task has finished what it had begun."""

import pytest

from shoal.core.draining import any_active, drain_seconds
from shoal.core.extensions import parse_extensions
from shoal.errors import InvalidArgument
from shoal.model.netstate import Connection
from shoal.model.objects import Attachment, Task
from shoal.model.specs import ServiceSpec


@pytest.mark.parametrize(
    ("since_sent_ms", "since_received_ms", "acknowledged_bytes", "received_bytes", "active"),
    [
        (100, 100, 9, 9, True),
        (10_000, 9_000, 9, 9, True),
        (9_000, 10_000, 9, 9, False),
        (600, 600, 9, 9, False),
        (600, 600, 1, 9, True),
        (600, 600, 1, 0, False),
        (400, 9_000, 9, 9, True),
    ],
)
def test_a_connection_is_active(
    since_sent_ms: int, since_received_ms: int, acknowledged_bytes: int, received_bytes: int, active: bool
) -> None:
    connection = Connection(
        since_sent_ms=since_sent_ms,
        since_received_ms=since_received_ms,
        acknowledged_bytes=acknowledged_bytes,
        received_bytes=received_bytes,
    )
    assert any_active([connection]) == active


def test_how_long() -> None:
    task = Task(
        id="t", service_id="s", spec_version=1, attachments=(Attachment(network_id="n", addresses=("10.0.0.2/24",)),)
    )
    assert drain_seconds(ServiceSpec(), task) == 2.0
    assert drain_seconds(ServiceSpec(labels={"shoal.drain": "1m"}), task) == 60.0
    assert drain_seconds(ServiceSpec(labels={"shoal.drain": "0"}), task) == 0.0
    assert drain_seconds(ServiceSpec(), Task(id="t", service_id="s", spec_version=1)) == 0.0
    with pytest.raises(InvalidArgument, match=r'shoal\.drain: "soon" is no duration'):
        parse_extensions({"shoal.drain": "soon"})
