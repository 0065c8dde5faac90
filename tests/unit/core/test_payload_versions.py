"""Versions of data."""

from __future__ import annotations

from shoal.core.payload_versions import at_version, from_id_on_node, id_on_node, pinned, with_new_data
from shoal.model.container_spec import ConfigReference, ContainerSpec, SecretReference
from shoal.model.objects import Secret
from shoal.model.specs import SecretSpec


def test_each_version_keeps_its_data_as_long_as_it_is_used() -> None:
    first = Secret(id="s", spec=SecretSpec(name="n", data=b"0"))
    second = with_new_data(first, b"1", [0])
    third = with_new_data(second, b"2", [0])
    assert (third.data_version, [each.version for each in third.earlier]) == (2, [0, 1])
    fourth = with_new_data(third, b"3", [1])
    assert [each.version for each in fourth.earlier] == [1, 2], "nobody uses 0; 2 is what one may go back to"
    told = at_version(fourth, 1)
    assert told is not None
    assert (told.id, told.spec.data, told.earlier) == ("s@1", b"1", ())
    assert at_version(fourth, 0) is None
    assert at_version(None, 0) is None


def test_names_on_nodes() -> None:
    assert id_on_node("s", 0) == "s", "as nodes know it that know no versions"
    assert [from_id_on_node(id_on_node("s", version)) for version in (0, 7)] == [("s", 0), ("s", 7)]


def test_references_are_pinned() -> None:
    spec = ContainerSpec(
        secrets=(SecretReference(secret_id="a"), SecretReference(secret_id="b", version=3)),
        configs=(ConfigReference(config_id="c"),),
    )
    done = pinned(spec, {"a": 1, "c": 2})
    assert [each.version for each in (*done.secrets, *done.configs)] == [1, 3, 2]
