"""Where the output of containers goes: files that are rotated, syslog, nowhere."""

from __future__ import annotations

import json
import re
import socket
from pathlib import Path

import pytest

from shoal.engine.keeper.forwarding import journal_entry

pytestmark = pytest.mark.root

SPEAK = ("busybox", "sh", "-c", "echo out; echo err >&2; printf tail")


@pytest.fixture
def receiver(tmp_path):
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listener:
        listener.bind(str(tmp_path / "log"))
        listener.settimeout(10)
        yield listener


def heard(receiver, count):
    return sorted(receiver.recv(4096).decode() for _ in range(count))


def test_syslog(daemon, docker, receiver):
    to = ("--log-driver", "syslog", "--log-opt", f"syslog-address=unixgram://{receiver.getsockname()}")
    docker("run", "--name", "speaker", *to, "--log-opt", "tag={{.Name}}/{{.ImageName}}", *SPEAK)
    lines = heard(receiver, 3)
    assert re.fullmatch(r"<27>\w{3} [ \d]\d \d\d:\d\d:\d\d speaker/busybox\[\d+\]: err", lines[0])
    assert [line.rpartition(": ")[2] for line in lines] == ["err", "out", "tail"]
    assert [line.partition(">")[0] for line in lines] == ["<27", "<30", "<30"]
    # docker logs reads what was kept besides
    assert daemon.docker("logs", "speaker").stdout == "out\ntail"
    shown = json.loads(docker("inspect", "speaker"))[0]["HostConfig"]["LogConfig"]
    assert (shown["Type"], shown["Config"]["tag"]) == ("syslog", "{{.Name}}/{{.ImageName}}")
    docker("rm", "speaker")
    newer = (*to, "--log-opt", "syslog-format=rfc5424", "--log-opt", "syslog-facility=local3")
    docker("run", "--rm", "-t", *newer, "busybox", "echo", "hi")
    (line,) = heard(receiver, 1)
    host = re.escape(socket.gethostname())
    assert re.fullmatch(rf"<158>1 \d{{4}}-\d\d-\d\dT\d\d:\d\d:\d\dZ {host} (\w{{12}}) \d+ \1 - hi\r", line)


@pytest.mark.parametrize(
    ("driver", "option", "text"),
    [
        ("syslog", "syslog-address=tcp://127.0.0.1:1", "only udp:// and unixgram:// are built"),
        ("syslog", "syslog-address=udp://:x", "syslog-address should be in form proto://address"),
        ("syslog", "syslog-facility=moon", "invalid syslog facility: moon"),
        ("syslog", "syslog-format=moon", "Invalid syslog format: moon"),
        ("syslog", "tag={{.Moon}}", "log opt tag: invalid template"),
        ("syslog", "max-size=1m", "unknown log opt 'max-size' for syslog log driver"),
        ("syslog", "syslog-address=unixgram:///nowhere", "failed to initialize logging driver: dial unixgram /nowhere"),
        ("json-file", "max-file=0", "max-file '0'"),
        ("moon", "a=b", "no log driver named 'moon' is registered"),
    ],
)  # fmt: skip
def test_what_is_refused(daemon, driver, option, text):
    done = daemon.docker("run", "--rm", "--log-driver", driver, "--log-opt", option, *SPEAK, check=False)
    assert done.returncode == 125
    assert text in done.stderr
    assert daemon.docker("ps", "-aq").stdout == ""


@pytest.mark.skipif(Path("/run/systemd/journal/socket").exists(), reason="this host has a journal")
def test_a_host_without_a_journal(daemon):
    done = daemon.docker("run", "--rm", "--log-driver", "journald", *SPEAK, check=False)
    assert "failed to initialize logging driver: journald is not enabled on this host" in done.stderr


def test_entries_of_a_journal():
    settings = {"fields": {"CONTAINER_NAME": "web", "BAD": "a\nb"}, "priority": {"stderr": 3}}
    entry = journal_entry(settings, b"one\ntwo", "stderr", 0)
    assert entry == b"CONTAINER_NAME=web\nPRIORITY=3\nMESSAGE\n" + (7).to_bytes(8, "little") + b"one\ntwo\n"


def test_files(daemon, docker):
    rotated = ("--log-opt", "max-size=2k", "--log-opt", "max-file=3")
    docker("run", "--name", "loud", *rotated, "busybox", "seq", "1000")
    path = Path(docker("inspect", "loud", "--format", "{{.LogPath}}").strip())
    assert sorted(file.name[-2:] for file in path.parent.glob("*.log*")) == [".1", ".2", "og"]
    assert docker("logs", "--tail", "2", "loud") == "999\n1000\n"
    docker("run", "--name", "silent", "--log-driver", "none", *SPEAK)
    assert "configured logging driver does not support reading" in docker("logs", "silent", check=False)
    docker("run", "--name", "local", "--log-driver", "local", *SPEAK)
    assert daemon.docker("logs", "local").stdout == "out\ntail"
    docker("rm", "loud", "silent", "local")
