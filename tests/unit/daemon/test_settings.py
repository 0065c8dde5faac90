from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from shoal.daemon.logs import LEVELS
from shoal.daemon.machine import parse_generic_resources
from shoal.daemon.main import main
from shoal.daemon.prerequisites import find_missing
from shoal.daemon.settings import FILE_KEYS, LOG_LEVELS, Settings, read_file
from shoal.errors import InvalidArgument


def written(tmp_path: Path, content: object) -> Path:
    path = tmp_path / "shoald.json"
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


def test_the_file_says_what_flags_say(tmp_path: Path) -> None:
    content = {
        "data-root": "/d",
        "hosts": ["unix:///x"],
        "log-level": "warn",
        "labels": ["a=b"],
        "wireguard-port": 7000,
    }
    path = written(tmp_path, content)
    settings = read_file(path, Settings())
    assert (settings.data_root, settings.images) == (Path("/d"), Path("/d/images"))
    assert (settings.listen_on, settings.log_level, settings.labels) == (("unix:///x",), "warn", ("a=b",))
    assert (settings.wireguard_port, Settings().wireguard_port) == (7000, 51820)
    assert Settings().listen_on == ("unix:///run/shoal/shoal.sock",)


@pytest.mark.parametrize(
    ("content", "text"),
    [
        ("{", "not a JSON object"),
        ("[]", "not a JSON object"),
        ({"colour": 1}, "unknown key 'colour'; known are "),
        ({"hosts": "unix:///x"}, "hosts: "),
        ({"data-root": 7}, "data-root: "),
        ({"wireguard-port": "51820"}, "wireguard-port: "),
        ({"wireguard-port": 65_536}, "wireguard-port: "),
        ({"log-level": "loud"}, "log-level: 'loud'; known are debug, info, warn, error, fatal"),
    ],
)
def test_what_is_wrong_in_the_file_is_named(tmp_path: Path, content: object, text: str) -> None:
    path = written(tmp_path, content)
    with pytest.raises(InvalidArgument) as caught:
        read_file(path, Settings())
    assert caught.value.message.startswith(f"--config-file {path}: ")
    assert text in caught.value.message


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(InvalidArgument, match="No such file or directory"):
        read_file(tmp_path / "none", Settings())


def test_every_key_sets_a_field() -> None:
    assert set(FILE_KEYS.values()) <= set(Settings.__struct_fields__)
    assert set(LOG_LEVELS) == set(LEVELS)


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--label", "novalue"], '--label "novalue": write KEY=VALUE'),
        (["--node-generic-resource", "=5"], '--node-generic-resource "=5": write KEY=VALUE'),
        (["--metrics-addr", "x"], "--metrics-addr: metrics are not built yet"),
        (["--config-file", "/nosuch"], "--config-file /nosuch: No such file or directory"),
    ],
)
def test_wrong_flags_end_the_daemon_with_one_line(arguments: list[str], text: str) -> None:
    result = CliRunner().invoke(main, arguments)
    assert result.exit_code == 1
    assert result.output.startswith("shoald: ")
    assert text in result.output
    assert len(result.output.splitlines()) == 1


def test_what_is_missing_is_said_in_one_line_with_its_remedy() -> None:
    assert find_missing(lambda name: f"/bin/{name}", lambda: 0) == ""
    assert find_missing(lambda _name: None, lambda: 1000).startswith("shoald must run as root")
    text = find_missing(lambda name: None if name in ("runc", "nft") else name, lambda: 0)
    assert text == "shoald needs runc, nft: install with `apt-get install --no-install-recommends runc nftables`"


def test_generic_resources() -> None:
    counted, named = parse_generic_resources(("ssd=5", "gpu=a"))
    assert counted.discrete_resource_spec == {"Kind": "ssd", "Value": 5}
    assert named.named_resource_spec == {"Kind": "gpu", "Value": "a"}
