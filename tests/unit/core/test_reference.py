from __future__ import annotations

import pytest

from shoal.core.reference import parse_reference
from shoal.errors import InvalidArgument

DIGEST = "sha256:" + "a" * 64


@pytest.mark.parametrize(
    ("text", "canonical", "familiar"),
    [
        ("busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("busybox:1.36", "docker.io/library/busybox:1.36", "busybox:1.36"),
        ("docker.io/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("index.docker.io/library/busybox", "docker.io/library/busybox:latest", "busybox:latest"),
        ("user/app", "docker.io/user/app:latest", "user/app:latest"),
        ("localhost/app", "localhost/app:latest", "localhost/app:latest"),
        ("localhost:5000/a/b:x", "localhost:5000/a/b:x", "localhost:5000/a/b:x"),
        ("[::1]:5000/a", "[::1]:5000/a:latest", "[::1]:5000/a:latest"),
        (f"busybox@{DIGEST}", f"docker.io/library/busybox@{DIGEST}", f"busybox@{DIGEST}"),
        (f"busybox:1@{DIGEST}", f"docker.io/library/busybox:1@{DIGEST}", f"busybox:1@{DIGEST}"),
    ],
)
def test_forms(text: str, canonical: str, familiar: str) -> None:
    parsed = parse_reference(text).with_default_tag()
    assert parsed.canonical == canonical
    assert parsed.familiar == familiar
    assert parse_reference(canonical) == parsed


@pytest.mark.parametrize(
    "text", ["", ":tag", "a:b:c", "a@sha256:12", "UPPER", "a/UPPER", "-a", "a b", "a:" + "t" * 129]
)
def test_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        parse_reference(text)


def test_words_of_refusals() -> None:
    with pytest.raises(InvalidArgument, match="must be lowercase"):
        parse_reference("Busybox")
    with pytest.raises(InvalidArgument, match="cannot specify 64-byte hexadecimal"):
        parse_reference("a" * 64)
