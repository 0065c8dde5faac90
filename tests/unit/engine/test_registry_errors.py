"""What a registry refuses, in Docker's words: named after what was asked for."""

from __future__ import annotations

import pytest

from shoal.core.reference import parse_reference
from shoal.engine.images.remote import error_of
from shoal.errors import NotFound, ShoalError, Unauthenticated, Unavailable

IMAGE = parse_reference("host:5000/a/b:1")


@pytest.mark.parametrize(
    ("said", "kind", "pull", "push"),
    [
        (
            "denied: requested access to the resource is denied", NotFound,
            "pull access denied for host:5000/a/b, repository does not exist or may require 'docker login'",
            "push access denied for host:5000/a/b, repository does not exist or may require 'docker login'",
        ),
        ("unauthorized: authentication required", Unauthenticated, "unauthorized", "unauthorized"),
        ("dial tcp: connection refused", Unavailable, "registry host:5000 cannot be reached", "cannot be reached"),
        ("toomanyrequests", ShoalError, "cannot pull host:5000/a/b:1: toomany", "cannot push host:5000/a/b:1: toomany"),
    ],
)  # fmt: skip
def test_failures_of_a_registry(said: str, kind: type[ShoalError], pull: str, push: str) -> None:
    for action, text in (("pull", pull), ("push", push)):
        error = error_of(said, IMAGE, action)
        assert type(error) is kind
        assert text in error.message
