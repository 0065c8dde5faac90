"""Labels of services that are Shoal's own settings, and the reference that tells of them."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from shoal.core.extensions import CANARY, DEFAULTS, DRAIN, PROMOTE_AFTER, Canary, parse_extensions
from shoal.errors import InvalidArgument

SECOND = 1_000_000_000
REFERENCE = Path(__file__).parents[3] / "docs" / "reference" / "extensions.md"


def test_labels_are_read_and_others_left_alone() -> None:
    plain = parse_extensions({"a": "b"})
    assert (plain.balancing, plain.ingress_policy, plain.drain_ns) == ("random", "cluster", 2 * SECOND)
    assert (plain.progress_deadline_ns, plain.canary, plain.backoff_most_ns) == (600 * SECOND, None, 0)
    labels = {"shoal.lb": "source", "shoal.ingress.policy": "local", CANARY: "10%", PROMOTE_AFTER: "5m"}
    given = parse_extensions(labels)
    assert (given.balancing, given.ingress_policy) == ("source", "local")
    assert (given.canary, given.promote_after_ns) == (Canary(percent=10), 300 * SECOND)


@pytest.mark.parametrize(
    ("label", "value"),
    [
        ("shoal.nosuch", "1"),
        ("shoal.lb", "best"),
        (DRAIN, "-1s"),
        (DRAIN, "soon"),
        ("shoal.update.progress-deadline", "0"),
        (CANARY, "0"),
        (CANARY, "101%"),
        (CANARY, "-1"),
        (CANARY, "half"),
        (PROMOTE_AFTER, "5m"),
        ("shoal.update.strategy", "red"),
        ("shoal.restart.backoff", "0s"),
    ],
)
def test_a_bad_label_is_named(label: str, value: str) -> None:
    with pytest.raises(InvalidArgument, match=re.escape(label)):
        parse_extensions({label: value})


@pytest.mark.parametrize(
    ("canary", "total", "slots"),
    [
        (Canary(count=2), 10, 2),
        (Canary(percent=10), 10, 1),
        (Canary(percent=10), 11, 2),
        (Canary(percent=1), 3, 1),
        (Canary(percent=100), 3, 3),
    ],
)
def test_a_share_of_the_slots_is_one_at_least(canary: Canary, total: int, slots: int) -> None:
    assert canary.slots_of(total) == slots


def test_the_reference_tells_of_every_label_and_its_default() -> None:
    rows = re.findall(r"^\| `(shoal\.[a-z.-]+)` \|[^|]*\| `([^`|]+)` \|", REFERENCE.read_text(), re.MULTILINE)
    assert dict(rows) == DEFAULTS
