from __future__ import annotations

import pytest

from shoal.engine.execs import make_process
from shoal.engine.log_options import log_details, log_settings
from shoal.engine.process_table import parse_ps
from shoal.engine.start_errors import exec_error_text, start_error_code
from shoal.engine.usage import machine_time_ns, parse_block_counters, parse_interfaces, parse_io_stat, parse_pairs
from shoal.errors import InvalidArgument, ShoalError
from shoal.model.container import ContainerConfig
from shoal.model.streams import BlockCounter, ExecConfig


def test_files_of_the_kernel() -> None:
    assert parse_pairs("cache 4096\nrss 0\nodd line here\nlow x\n") == {"cache": 4096, "rss": 0}
    stat = "cpu  10 1 10 100 5 2 2 9 0 0\ncpu0 5 0 5 50 2 1 1 0 0 0\ncpu1 5 1 5 50 3 1 1 0 0 0\nintr 5\n"
    total, online = machine_time_ns(stat)
    assert (total % 130, online) == (0, 2)
    counters = parse_block_counters("8:0 Read 10\n8:0 Write 20\nTotal 30\n")
    assert counters[1] == BlockCounter(major=8, minor=0, operation="write", value=20)
    assert len(counters) == 2
    sizes, operations = parse_io_stat("8:16 rbytes=1 wbytes=2 rios=3 wios=4 dbytes=5 dios=6\n")
    assert [(each.operation, each.value) for each in sizes] == [("read", 1), ("write", 2)]
    assert [(each.minor, each.operation, each.value) for each in operations] == [(16, "read", 3), (16, "write", 4)]
    interfaces = parse_interfaces(
        "Inter-|   Receive                                                |  Transmit\n"
        " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo\n"
        "    lo:     100       1    0    0    0     0          0         0      100       1    0    0    0\n"
        "  eth0:    1532      18    1    2    0     0          0         0       42       3    4    5    0\n"
    )
    assert [each.name for each in interfaces] == ["eth0"]
    assert (interfaces[0].received_bytes, interfaces[0].received_dropped, interfaces[0].sent_errors) == (1532, 2, 4)


def test_processes_of_one_container() -> None:
    head = "UID    PID  PPID C STIME TTY      TIME CMD\n"
    text = head + "root     7     1 0 10:00 ?    00:00:00 sh -c a  b\nx 8 1 0 - ? 0 y\n"
    table = parse_ps(text, frozenset({7}))
    assert table.titles[-1] == "CMD"
    assert table.processes == (("root", "7", "1", "0", "10:00", "?", "00:00:00", "sh -c a  b"),)
    with pytest.raises(ShoalError, match="Couldn't find PID field in ps output"):
        parse_ps("CMD\nsh\n", frozenset({7}))


def test_a_command_runs_as_its_container_does() -> None:
    container = {
        "args": ["sleep"], "env": ["PATH=/bin", "A=1", "B=2"], "cwd": "/srv", "terminal": True,
        "consoleSize": {"height": 1, "width": 2}, "user": {"uid": 0, "gid": 0}, "rlimits": [{"type": "RLIMIT_CORE"}],
        "capabilities": {"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"], "permitted": ["CAP_KILL"]},
    }  # fmt: skip
    process = make_process(container, ExecConfig(arguments=("id",), env=("A=3", "B", "C=")), None)
    assert process["args"] == ["id"]
    assert process["env"] == ["PATH=/bin", "A=3", "C="]
    assert (process["cwd"], process["terminal"], "consoleSize" in process) == ("/srv", False, False)
    assert process["rlimits"] == container["rlimits"]
    bob = {"uid": 1000, "gid": 1000, "additionalGids": [1000]}
    config = ExecConfig(arguments=("id",), tty=True, working_dir="/tmp", console_size=(10, 20))
    process = make_process(container, config, bob)
    assert process["consoleSize"] == {"height": 10, "width": 20}
    assert process["env"][-1] == "TERM=xterm"
    assert (process["user"], process["cwd"]) == (bob, "/tmp")
    assert process["capabilities"] == {"bounding": ["CAP_KILL"], "effective": [], "permitted": []}


def test_texts_and_codes_of_commands_that_do_not_start() -> None:
    missing = exec_error_text(
        'exec failed: unable to start container process: exec: "x": executable file not found in $PATH'
    )
    assert missing == (
        "OCI runtime exec failed: exec failed: unable to start container process: "
        'exec: "x": executable file not found in $PATH: unknown'
    )
    assert start_error_code(missing) == 127
    assert start_error_code(exec_error_text('exec: "/etc": is a directory')) == 126


def test_details_of_log_lines_are_those_asked_for() -> None:
    config = ContainerConfig(
        name="x", image="y", labels={"a": "1", "b": "2", "team.x": "3"}, env=("A=4", "B=5"),
        log_options={"labels": "a,none", "labels-regex": "^team", "env": "B"},
    )  # fmt: skip
    assert log_details(config) == {"a": "1", "team.x": "3", "B": "5"}
    assert log_details(ContainerConfig(name="x", image="y", labels={"a": "1"})) == {}
    with pytest.raises(InvalidArgument, match="log opt env-regex"):
        log_settings(ContainerConfig(name="x", image="y", log_options={"env-regex": "("}), "/x")
