from __future__ import annotations

import pytest

from shoal.api.decode import decode_body
from shoal.api.filters import matches_labels, parse_filters
from shoal.api.streams import details_text, frame
from shoal.api.views.container import human_duration
from shoal.errors import InvalidArgument
from shoal.model.specs import SecretSpec, ServiceSpec


def test_keys_in_any_case_nulls_and_unknown_keys() -> None:
    raw = b'{"NAME":"web","labels":null,"Bogus":1,"tasktemplate":{"containerspec":{"IMAGE":"b","env":null}}}'
    spec = decode_body(raw, ServiceSpec)
    assert spec.name == "web"
    assert spec.labels == {}
    assert spec.task_template.container_spec is not None
    assert spec.task_template.container_spec.image == "b"
    assert spec.task_template.container_spec.env == ()


def test_an_empty_body_is_an_empty_object() -> None:
    assert decode_body(b"", ServiceSpec) == ServiceSpec()
    assert decode_body(b"null", ServiceSpec) == ServiceSpec()


REFUSED = [
    (b'{"Name":', "invalid JSON: unexpected EOF"),
    (b"{", "invalid JSON: unexpected EOF"),
    (b"{} x", "invalid JSON: "),
    (b"[]", "cannot unmarshal array into the body of type object"),
    (b'{"Name":1}', "cannot unmarshal number into field Name of type string"),
    (b'{"TaskTemplate":{"ForceUpdate":"1"}}', "string into field TaskTemplate.ForceUpdate of type uint64"),
    (b'{"TaskTemplate":{"ForceUpdate":-1}}', "number -1 into field TaskTemplate.ForceUpdate of type uint64"),
    (b'{"TaskTemplate":{"ForceUpdate":1.5}}', "number into field TaskTemplate.ForceUpdate of type uint64"),
    (b'{"Mode":{"Replicated":{"Replicas":true}}}', "bool into field Mode.Replicated.Replicas of type uint64"),
    (b'{"UpdateConfig":{"Delay":99999999999999999999}}', "field UpdateConfig.Delay of type int64"),
    (
        b'{"EndpointSpec":{"Ports":[{"PublishedPort":5000000000}]}}',
        "EndpointSpec.Ports[0].PublishedPort of type uint32",
    ),
    (b'{"Labels":["a"]}', "array into field Labels of type object"),
    (b'{"Labels":{"a":1}}', "number into field Labels.a of type string"),
    (b'{"TaskTemplate":{"ContainerSpec":{"Env":"A=1"}}}', "string into field TaskTemplate.ContainerSpec.Env"),
    (b'{"TaskTemplate":{"ContainerSpec":{"TTY":1}}}', "number into field TaskTemplate.ContainerSpec.TTY of type bool"),
    (b"\xff\xfe", "invalid JSON"),
    (b'{"a":' * 5000, "invalid JSON"),
]


@pytest.mark.parametrize(("raw", "text"), REFUSED, ids=[str(number) for number in range(len(REFUSED))])
def test_refusals_name_the_field(raw: bytes, text: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        decode_body(raw, ServiceSpec)
    assert text in caught.value.message


def test_base64() -> None:
    assert decode_body(b'{"Data":"aHVudGVyMg=="}', SecretSpec).data == b"hunter2"
    for raw, position in ((b'{"Data":"###"}', 0), (b'{"Data":"ab#"}', 2), (b'{"Data":"abc"}', 3)):
        with pytest.raises(InvalidArgument, match=f"illegal base64 data at input byte {position}$"):
            decode_body(raw, SecretSpec)


def test_both_forms_of_filters() -> None:
    allowed = frozenset({"name", "label"})
    assert parse_filters('{"name":["a","b"]}', allowed) == {"name": ("a", "b")}
    assert parse_filters('{"name":{"a":true,"b":false}}', allowed) == {"name": ("a",)}
    assert parse_filters(None, allowed) == {}
    for text, message in (
        ("{", "invalid filter"),
        ("[]", "invalid filter"),
        ('{"name":"a"}', "invalid filter"),
        ('{"name":[1]}', "invalid filter"),
        ('{"nosuch":["x"]}', "invalid filter 'nosuch'"),
    ):
        with pytest.raises(InvalidArgument) as caught:
            parse_filters(text, allowed)
        assert caught.value.message == message


def test_labels_must_all_match() -> None:
    labels = {"a": "1", "b": ""}
    assert matches_labels(labels, ("a", "b="))
    assert matches_labels(labels, ())
    assert not matches_labels(labels, ("a=2",))
    assert not matches_labels(labels, ("a", "c"))


def test_frames_and_details() -> None:
    assert frame("stderr", b"ab") == b"\x02\0\0\0\0\0\0\x02ab"
    assert details_text({"b": "x y", "a": "1,2"}) == "a=1%2C2,b=x+y"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0, "Less than a second"), (1, "1 second"), (59, "59 seconds"), (70, "About a minute"), (180, "3 minutes"),
     (3700, "About an hour"), (7200, "2 hours"), (3 * 86400, "3 days"), (20 * 86400, "2 weeks")],
)  # fmt: skip
def test_durations_in_words(seconds: int, text: str) -> None:
    assert human_duration(seconds * 1_000_000_000) == text
