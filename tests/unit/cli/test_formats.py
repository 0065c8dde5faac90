import pytest

from shoal.errors import InvalidArgument, NotBuilt
from shoal.language.templates import Row, parse_template
from shoal.language.texts import age_text, duration_text, ellipsis, size_text, table_text

SERVICE = {"ID": "abc", "Spec": {"Name": "web", "Labels": {"b": "2", "a": "1"}}, "List": [1, 2], "On": True}


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.ID}}", "abc"),
        (r"{{ .ID }}\t{{.Spec.Name}}", "abc\tweb"),
        ("{{json .Spec.Labels}}", '{"b":"2","a":"1"}'),
        ("{{.Spec.Labels}}", "map[a:1 b:2]"),
        ("{{.List}} {{.On}}", "[1 2] true"),
        ("{{.Missing}}", "<no value>"),
        ("{{json .Missing}}", "null"),
        ("plain", "plain"),
    ],
)
def test_templates(template, text):
    assert parse_template(template)(SERVICE) == text


def test_json_is_the_whole():
    assert parse_template("json")({"a": [1, None]}) == '{"a":[1,null]}'
    assert parse_template("{{json .}}")({"a": "ü"}) == '{"a":"ü"}'


@pytest.mark.parametrize("template", ["{{range .Items}}x{{end}}", "{{if .A}}", "{{.A | upper}}", "{{len .A}}"])
def test_what_is_not_built_of_templates_is_refused(template):
    with pytest.raises(NotBuilt, match="is not built"):
        parse_template(template)


def test_mistakes_in_templates_are_named():
    with pytest.raises(InvalidArgument, match="not closed"):
        parse_template("{{.A")
    with pytest.raises(InvalidArgument, match=r"there is no field \.Nmae"):
        parse_template("{{.Nmae}}")(Row(Name="web"))


def test_table_is_as_wide_as_docker_writes_it():
    rows = [["ID", "NAME", "PORTS"], ["tiofwuhrll76", "web", ""]]
    assert table_text(rows) == "ID             NAME      PORTS\ntiofwuhrll76   web       \n"


def test_ages():
    spans = {0.2: "Less than a second", 1: "1 second", 59: "59 seconds", 61: "About a minute", 125: "2 minutes",
             3600: "About an hour", 7200: "2 hours", 86400 * 3: "3 days", 86400 * 21: "3 weeks", 86400 * 90: "3 months",
             86400 * 365 * 3: "3 years"}  # fmt: skip
    assert {seconds: age_text(seconds) for seconds in spans} == spans


def test_sizes_and_durations():
    assert size_text(4_220_000) == "4.22MB"
    assert size_text(0) == "0B"
    assert size_text(999) == "999B"
    assert size_text(256 << 20, binary=True, digits=4) == "256MiB"
    assert [duration_text(ns) for ns in (0, 5_000_000_000, 90_000_000_000, 250_000_000, 7_776_000_000_000_000)] == [
        "0s", "5s", "1m30s", "250ms", "2160h0m0s",
    ]  # fmt: skip
    assert duration_text(1_500_000_000) == "1.5s"
    assert ellipsis("abcdef", 4) == "abc…"
    assert ellipsis("abcd", 4) == "abcd"
