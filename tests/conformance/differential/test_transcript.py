"""The script against Shoal: every answer as Docker's, or as `shoal.txt` has it, on purpose."""

import difflib

import pytest

from tests.conformance.differential.record import DIFFERENCES, RECORDING, read_transcript
from tests.conformance.differential.script import SCRIPT, mask, read_script, run_script
from tests.system.daemon import running_daemon

pytestmark = pytest.mark.root


def test_the_recording_is_of_this_script():
    commands = [step.command for step in read_script(SCRIPT.read_text()) if step.kind == "$"]
    assert [answer.command for answer in read_transcript(RECORDING)] == commands
    assert len(commands) >= 150


def test_each_difference_is_one_and_has_a_reason():
    recorded = {answer.command: answer.output for answer in read_transcript(RECORDING)}
    commands = [answer.command for answer in read_transcript(RECORDING)]
    for difference in read_transcript(DIFFERENCES):
        assert difference.reason, difference.command
        assert commands.count(difference.command) == 1, f"which of them: {difference.command}"
        assert difference.output != recorded[difference.command]


def test_what_no_two_runs_share_is_masked():
    text = "k3dcanra3v26tw1fgxtpirmmq  web.1  vm  Running 3 seconds ago  10.0.1.7 \n"
    assert mask(text, {"vm": "HOST"}) == "ID  web.1  HOST  Running SOME TIME ago  ADDRESS\n"
    assert mask("rpc error: code = NotFound desc = network n not found", {}) == "network n not found\n"


def test_shoal_answers_as_docker_does():
    differing = {answer.command: answer.output for answer in read_transcript(DIFFERENCES)}
    with running_daemon() as daemon:
        daemon.import_busybox()
        answers = [(step.command, str(outcome)) for step, outcome in run_script(daemon.host)]
    wrong = []
    for (command, answer), theirs in zip(answers, read_transcript(RECORDING), strict=True):
        expected = differing.get(command, theirs.output)
        if answer != expected:
            lines = difflib.unified_diff(expected.splitlines(), answer.splitlines(), "expected", "Shoal", lineterm="")
            wrong.append("\n".join([f"$ {command}", *lines]))
    assert not wrong, "\n".join(wrong)
