"""Whatever is typed, a flag's language answers with a value or with an error that can be shown."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.errors import ShoalError
from shoal.language import mounts, ports, templates, values
from shoal.language.texts import duration_text
from shoal.lib.units import parse_duration_ns

PARSERS = [
    mounts.parse_mount,
    ports.parse_ports,
    ports.parse_port_match,
    values.parse_bytes,
    values.parse_nano_cpus,
    values.parse_uint,
    values.parse_int,
    values.parse_ratio,
    values.parse_positive_duration,
    values.parse_command,
    values.parse_pair,
    values.parse_fields,
    values.parse_preference,
    values.parse_generic_resource,
    values.parse_ulimit,
    values.parse_scale,
    values.parse_node_address,
    templates.parse_template,
]
# words of the languages, so that more than their first character is tried
WORDS = st.lists(
    st.sampled_from(
        [
            "80",
            "8080",
            "-",
            ":",
            "/",
            "tcp",
            "udp",
            "=",
            ",",
            "target",
            "published",
            "mode",
            "host",
            "type",
            "bind",
            "src",
            "tmpfs-size",
            "ro",
            "{{",
            "}}",
            ".",
            "json",
            "Name",
            "1.5",
            "m",
            "k",
            '"',
            "'",
            "\\",
            "spread",
            "gpu",
            " ",
            "s",
            "0x",
            "nan",
            "inf",
        ]
    ),
    max_size=12,
).map("".join)


@pytest.mark.parametrize("parse", PARSERS, ids=lambda parse: parse.__name__)
@given(text=st.one_of(st.text(max_size=40), WORDS))
def test_parsers_never_crash(parse, text):
    try:
        value = parse(text)
    except (ValueError, ShoalError) as error:
        assert str(error)  # noqa: PT017 - either outcome is right
    else:
        if not callable(value):
            json.dumps(value, allow_nan=False)


@given(first=st.integers(1, 65000), count=st.integers(1, 50), published=st.integers(1, 65000))
def test_ranges_of_ports_pair_up(first, count, published):
    made = ports.parse_ports(f"{published}-{published + count - 1}:{first}-{first + count - 1}/udp")
    assert [port["PublishedPort"] - port["TargetPort"] for port in made] == [published - first] * count


@given(st.integers(0, 10**17))
def test_durations_are_read_back(nanoseconds):
    read = parse_duration_ns(duration_text(nanoseconds))
    # the reader goes through floating point: exact to a billionth
    assert abs(read - nanoseconds) <= max(1, nanoseconds // 10**9)
