import pytest

from shoal.errors import InvalidArgument
from shoal.language.tables import table_text
from shoal.language.templates import Row, fields_of, parse_template
from shoal.language.texts import age_text, duration_text, ellipsis, size_text

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
        ("{{range .List}}<{{.}}>{{end}}", "<1><2>"),
        ("{{range $name, $value := .Spec.Labels}}{{$name}}={{$value}} {{end}}", "a=1 b=2 "),
        ("{{if .On}}{{upper .ID}}{{else}}off{{end}}", "ABC"),
        ('{{index .Spec.Labels "a"}} {{len .List}} {{join .List ", "}}', "1 2 1, 2"),
        ('{{with .Spec}}{{.Name | title}}{{end}}{{range split "x,y" ","}}[{{.}}]{{end}}', "Web[x][y]"),
        ("{{println .ID}}{{pad .ID 1 2}}|{{truncate .Spec.Name 2}}|{{lower `AB`}}", "abc\n abc  |we|ab"),
        ('{{.ID}}{{"\t"}}{{printf "%-5s|" .ID}}', "abc\tabc  |"),
    ],
)
def test_templates(template, text):
    assert parse_template(template)(SERVICE) == text


def test_json_is_the_whole():
    assert parse_template("json")({"a": [1, None]}) == '{"a":[1,null]}'
    assert parse_template("{{json .}}")({"a": "ü"}) == '{"a":"ü"}'


def test_the_head_of_a_column_stays_as_it_is():
    heads = Row(Name="NAME", Labels="LABELS")
    assert parse_template(r"{{upper .Name}}\t{{json .Labels}}", is_heading=True)(heads) == "NAME\tLABELS"


def test_the_fields_a_row_shows():
    assert fields_of("{{.Name}} {{if eq .Mode `global`}}{{upper (slice .Image)}}{{end}}") == ("Name", "Mode", "Image")


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("{{.A", "unclosed action"),
        ("{{if .A}}", "without"),
        ("{{end}}", "unexpected"),
        ("{{nothing .A}}", "is not defined"),
        ("{{upper 3}}", "wrong number or kind of arguments for upper"),
    ],
)
def test_mistakes_in_templates_are_named(template, text):
    with pytest.raises(InvalidArgument, match=text):
        parse_template(template)({})


def test_a_field_that_a_row_lacks_is_a_mistake():
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
