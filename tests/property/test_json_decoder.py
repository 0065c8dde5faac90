from __future__ import annotations

import json
from typing import Any

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from shoal.api.decode import decode_body, decode_value
from shoal.api.filters import parse_filters
from shoal.api.views.service import service_spec_view
from shoal.core.validate.service import normalise_service
from shoal.errors import InvalidArgument, ShoalError
from shoal.model.specs import ServiceSpec

KEYS = st.sampled_from(
    ["Name", "name", "LABELS", "Mode", "Replicated", "Replicas", "TaskTemplate", "tasktemplate", "ContainerSpec",
     "Image", "Env", "Mounts", "Target", "EndpointSpec", "Ports", "PublishedPort", "UpdateConfig", "MaxFailureRatio",
     "Healthcheck", "Interval", "Secrets", "File", "Init", "Unknown"]
)  # fmt: skip
SCALARS = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8)
VALUES = st.recursive(
    SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | st.text(max_size=4), inner, max_size=5)
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_any_json_is_read_or_refused(value: dict[str, Any]) -> None:
    try:
        spec = decode_body(json.dumps(value).encode(), ServiceSpec)
    except InvalidArgument:
        return
    # what was read can be written to the log and back
    assert msgspec.msgpack.decode(msgspec.msgpack.encode(spec), type=ServiceSpec) == spec


@settings(max_examples=120, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(raw: bytes) -> None:
    for read in (lambda: decode_body(raw, ServiceSpec), lambda: parse_filters(raw.decode("latin-1"), frozenset("x"))):
        try:
            read()
        except InvalidArgument:
            continue


@settings(max_examples=120, deadline=None)
@given(st.dictionaries(KEYS, VALUES, max_size=6))
def test_what_is_shown_reads_back_as_it_is_stored(value: dict[str, Any]) -> None:
    container = {"Image": "busybox", "Env": ["A=1"]}
    try:
        spec = normalise_service(decode_value({**value, "TaskTemplate": {"ContainerSpec": container}}, ServiceSpec))
    except ShoalError:
        return
    shown = msgspec.json.decode(msgspec.json.encode(service_spec_view(spec)))
    assert normalise_service(decode_value(shown, ServiceSpec)) == spec
