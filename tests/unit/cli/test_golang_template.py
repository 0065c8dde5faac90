"""The language of templates, compared with what Go's text/template gives."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from shoal.language.golang_template import TemplateError, Values, render

DOT = {
    "Service": {"Name": "web", "Labels": {"tier": "front", "zone": "a"}},
    "Task": {"Slot": "3"},
}
FUNCTIONS = {"env": lambda name: {"HOME": "/root"}.get(name, ""), "secret": lambda name: f"<{name}>"}


def rendered(text: str) -> str:
    return render(text, Values(DOT, FUNCTIONS))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("plain } text {", "plain } text {"),
        ("{{.Service.Name}}-{{ .Task.Slot }}", "web-3"),
        ('{{env "HOME"}}|{{env "NONE"}}|{{secret "db"}}', "/root||<db>"),
        ("a {{- .Task.Slot -}} b", "a3b"),
        ("a\n{{- /* said\nto nobody */ -}}\nb", "ab"),
        ("{{/* c */}}x", "x"),
        ("{{if .Task.Slot}}yes{{else}}no{{end}}", "yes"),
        ('{{if eq .Task.Slot "1"}}one{{else if eq .Task.Slot "3"}}three{{else}}more{{end}}', "three"),
        ('{{if and (eq .Service.Name "web") (ne .Task.Slot "1")}}x{{end}}', "x"),
        ('{{if or "" .Task.Slot}}x{{end}}{{not true}}', "xfalse"),
        ("{{with .Service}}{{.Name}} {{$.Task.Slot}}{{end}}", "web 3"),
        ('{{with ""}}x{{else}}y{{end}}', "y"),
        ("{{range $key, $value := .Service.Labels}}{{$key}}={{$value}};{{end}}", "tier=front;zone=a;"),
        ("{{range .Service.Labels}}[{{.}}]{{end}}", "[front][a]"),
        ('{{$name := .Service.Name}}{{$name}}{{$name = "other"}}{{$name}}', "webother"),
        ('{{index .Service.Labels "tier"}}|{{index .Service.Labels "none"}}', "front|"),
        ('{{"a\\tb\\x41\\u00e9"}}{{`raw "}}`}}', 'a\tbAéraw "}}'),
        ('{{join "," "a" "b"}} {{len "four"}}', "a,b 4"),
        ('{{printf "%s:%05d:%q:%v" "a" 42 "q" true}}', 'a:00042:"q":true'),
        ('{{ .Service.Name | printf "%s-%s" "x" }}', "x-web"),
        ('{{print "a" 1 2 "b"}}', "a1 2b"),
        ("{{(.Service).Name}}", "web"),
        ("{{lt 1 2}} {{ge 1 2}}", "true false"),
        ("{{true}}{{.Service.Labels}}", "truemap[tier:front zone:a]"),
    ],
)  # fmt: skip
def test_it_says_what_go_says(text: str, expected: str) -> None:
    assert rendered(text) == expected


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("{{.Service.Nope}}", ".Service.Nope stands for nothing in {{.Service.Nope}}"),
        ("{{.Service.Name.More}}", "stands for nothing"),
        ("{{nope 1}}", 'function "nope" is not defined'),
        ('{{template "x"}}', 'function "template" is not supported'),
        ("{{.Service", "unclosed action"),
        ("{{}}", "missing value"),
        ("{{if true}}x", "{{if}} without {{end}}"),
        ("{{end}}", "unexpected {{end}}"),
        ("{{$x}}", "undefined variable $x"),
        ("{{env}}", "wrong number or kind of arguments for env"),
        ('{{.Service.Name "x"}}', "is no function"),
        ('{{eq 1 "1"}}', "incompatible types"),
        ("{{(1}}", "unclosed left paren"),
        ("{{1 | 2}}", "is no function"),
        ("{{range .Task.Slot}}{{end}}", "can't iterate"),
        ('{{printf "%9999d" 1}}', "a width above"),
        ("{{%}}", "unexpected '%'"),
        ('{{"\\q"}}', "unknown escape"),
        ("{{if 1}}" * 60, "nested more than"),
        ("{{" + "(" * 60 + "1" + ")" * 60 + "}}", "nested more than"),
    ],
)
def test_what_cannot_be_carried_out_is_named(text: str, reason: str) -> None:
    with pytest.raises(TemplateError) as refused:
        rendered(text)
    assert reason in str(refused.value)


def test_output_is_bounded() -> None:
    values = Values({"text": "x" * 100_000})
    with pytest.raises(TemplateError, match="longer than"):
        render("{{.text}}" * 50, values)


@given(st.text(alphabet='{}.$"`|()-/* :=%s abAB01\n', max_size=60))
def test_anything_is_rendered_or_refused(text: str) -> None:
    for candidate in (text, "{{" + text + "}}", "{{if " + text + "}}" + text + "{{end}}"):
        try:
            rendered(candidate)
        except TemplateError:
            continue
