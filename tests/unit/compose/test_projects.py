"""Variables, several files, extends, include and profiles."""

from __future__ import annotations

import pytest

from shoal.compose.interpolation import Variables, parse_env_file
from shoal.errors import InvalidArgument, NotFound
from tests.unit.compose.files import Files, values


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("$SET and ${SET}", "s and s"),
        ("${UNSET}", ""),
        ("${UNSET:-d} ${EMPTY:-d} ${EMPTY-d} ${SET:-d}", "d d  s"),
        ("${SET:+a} ${EMPTY:+a} ${EMPTY+a} ${UNSET+a}", "a  a "),
        ("${UNSET:-${SET}-${EMPTY:-x}}", "s-x"),
        ("$$SET $${SET}", "$SET ${SET}"),
        ("${SET:?no} costs", "s costs"),
        ("${UNSET-}", ""),
        ("${UNSET:-a:b}", "a:b"),
    ],
)
def test_every_form_of_a_variable(text: str, value: str) -> None:
    assert Variables({"SET": "s", "EMPTY": ""}).text(text) == value


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("${UNSET:?tell me}", "required variable UNSET is missing a value: tell me"),
        ("${UNSET?}", "required variable UNSET is missing a value"),
        ("${", "a brace is not closed"),
        ("${1}", "names no variable"),
        ("${SET*2}", "after the name stands one of"),
        ("5 $", "write $$ for a dollar"),
    ],
)
def test_what_is_no_variable(text: str, message: str) -> None:
    with pytest.raises(InvalidArgument) as caught:
        values(f"services:\n  a:\n    image: '{text}'\n")
    assert caught.value.message.startswith("/p/c.yml:3: services.a.image: ")
    assert message in caught.value.message


def test_an_env_file() -> None:
    text = "A=1\nexport B = two # comment\nC='raw $A'\nD=\"x\\ny $A\"\n# nothing\nE\nF=${A}0\nG=\n"
    assert parse_env_file(text, ".env", Variables({})) == {
        "A": "1", "B": "two", "C": "raw $A", "D": "x\ny 1", "E": None, "F": "10", "G": "",
    }  # fmt: skip
    with pytest.raises(InvalidArgument, match=r"\.env:1: .* is no NAME=VALUE"):
        parse_env_file("not a line\n", ".env")


def test_env_beside_the_file_and_the_environment_before_it() -> None:
    files = Files({"c.yml": "services: {a: {image: '$A-$B'}}", ".env": "A=file\nB=file\n"})
    assert files.project(environment={"B": "shell"}).values["services"]["a"]["image"] == "file-shell"


def test_a_later_file_says_more_or_otherwise() -> None:
    base = """
services:
  a:
    image: one
    command: [a, b]
    environment: {A: 1, B: 2}
    ports: ["80:80", "90:90"]
    volumes: ["x:/data", "y:/logs"]
    labels: [l=1]
"""
    later = """
services:
  a:
    command: [c]
    environment: [B=3, C=4]
    ports: ["80:80", "91:91"]
    volumes: ["z:/data"]
    labels: !reset []
    dns: !override [1.1.1.1]
"""
    merged = Files({"a.yml": base, "b.yml": later}).project("a.yml", "b.yml").values["services"]["a"]
    assert merged["image"] == "one"
    assert merged["command"] == ["c"]
    assert merged["environment"] == {"A": 1, "B": "3", "C": "4"}
    assert merged["ports"] == ["80:80", "90:90", "91:91"]
    assert merged["volumes"] == ["z:/data", "y:/logs"]
    assert "labels" not in merged
    assert merged["dns"] == ["1.1.1.1"]


def test_extends_takes_over_what_is_not_said_anew() -> None:
    files = {
        "c.yml": "services: {a: {extends: {file: base/b.yml, service: base}, environment: [A=2]}, b: {extends: a}}",
        "base/b.yml": "services: {base: {extends: {service: root}, command: run, volumes: ['./data:/d']},"
        " root: {image: i, environment: {A: 1, B: 1}, depends_on: [x]}}",
    }
    services = Files(files).project("c.yml").values["services"]
    for name in ("a", "b"):
        assert services[name]["image"] == "i"
        assert services[name]["environment"] == {"A": "2", "B": 1}
        assert services[name]["volumes"] == ["./base/data:/d"]
        assert "depends_on" not in services[name]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("services: {a: {extends: b}, b: {extends: a}}", "it extends itself"),
        ("services: {a: {extends: nosuch}}", 'c.yml:1: services.a.extends: /p/c.yml has no service "nosuch"'),
        ("services: {a: {extends: {file: x.yml}}}", "service is missing"),
        ("include: [other.yml]\nservices: {a: {image: i}}", "services.a is defined twice"),
        ("servces: {}", 'c.yml:1: servces: unknown key "servces"; known are configs'),
        ("services: [a]", "c.yml:1: services: must be a mapping"),
    ],
)
def test_projects_that_are_refused(text: str, message: str) -> None:
    if "include" in text:
        with pytest.raises(InvalidArgument) as caught:
            merged = Files({"c.yml": text, "other.yml": "services: {a: {image: j}}", "third.yml": ""})
            merged.project("third.yml", "c.yml")
            Files({"c.yml": "include: [o.yml, o.yml]", "o.yml": "services: {a: {image: j}}"}).project("c.yml")
        assert "is defined twice" in caught.value.message
        return
    with pytest.raises(InvalidArgument) as caught:
        values(text)
    assert message in caught.value.message


def test_includes_bring_their_own_directory_and_variables() -> None:
    files = {
        "c.yml": "include: [sub/c.yml]\nservices: {web: {image: i, depends_on: [db]}}",
        "sub/c.yml": "services: {db: {image: 'db:$TAG', volumes: ['./data:/d'], env_file: own.env}}\n"
        "secrets: {key: {file: ./key}}",
        "sub/.env": "TAG=7\n",
        "sub/own.env": "A=1\n",
        "sub/key": "k",
    }
    stack = Files(files).stack("c.yml")
    database = stack.services["st_db"]["TaskTemplate"]["ContainerSpec"]
    assert database["Image"] == "db:7"
    assert database["Mounts"][0]["Source"] == "/p/sub/data"
    assert database["Env"] == ["A=1"]
    assert stack.secrets["st_key"]["Data"] == "aw=="
    assert list(stack.services) == ["st_db", "st_web"]


def test_profiles() -> None:
    files = Files({"c.yml": "services: {a: {image: i}, b: {image: i, profiles: [debug]}}"})
    assert list(files.stack().services) == ["st_a"]
    assert list(files.stack(profiles=("debug",)).services) == ["st_a", "st_b"]
    assert list(files.stack(profiles=("*",)).services) == ["st_a", "st_b"]


def test_a_file_that_is_not_there() -> None:
    with pytest.raises(NotFound, match=r"/p/b\.yml: there is no such file"):
        Files({"a.yml": ""}).project("b.yml")
