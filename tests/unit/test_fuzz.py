"""What scripts/fuzz calls wrong: an unknown 5xx, silence where an answer is due, and what has grown."""

from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

from tests.fuzz import EXECUTOR_THREADS, MOST_GROWTH_KILOBYTES, STATEFUL, exchanges, print_answers, print_state


def scenario(path: str, status: int, message: str) -> dict[str, Any]:
    content = {"$base64": base64.b64encode(json.dumps({"message": message}).encode()).decode()}
    return {
        "ScenarioFinished": {
            "recorder": {
                "label": f"GET {path}",
                "interactions": {
                    "a": {
                        "request": {"method": "GET", "uri": f"http://x{path}"},
                        "response": {"status_code": status, "content": content, "elapsed": 0.1},
                    }
                },
            }
        }
    }


def silence(operation: str, message: str) -> dict[str, Any]:
    return {"NonFatalError": {"label": operation, "value": {"type": "ConnectionError", "message": message}}}


def wrong_of(folder: Path, *events: dict[str, Any]) -> int:
    report = folder / "report"
    report.write_text("".join(json.dumps(event) + "\n" for event in ({"Initialize": {}}, *events)))
    return print_answers(list(exchanges(report)))


def test_answers(tmp_path: Path) -> None:
    assert wrong_of(tmp_path, scenario("/info", 200, ""), scenario("/info", 404, "no such thing")) == 0
    assert wrong_of(tmp_path, scenario("/a", 501, "not built"), scenario("/b", 500, "update out of sequence")) == 0
    assert wrong_of(tmp_path, scenario("/a", 500, "list index out of range")) == 1
    assert wrong_of(tmp_path, scenario("/a", 503, "the store is closed"), scenario("/b", 500, "x")) == 2


def test_a_scenario_of_several_operations_is_told_by_operation(tmp_path: Path) -> None:
    event = scenario("/info", 200, "")
    recorder = event["ScenarioFinished"]["recorder"]
    recorder |= {"label": STATEFUL, "cases": {"a": {"value": {"method": "POST", "path": "/auth"}}}}
    report = tmp_path / "report"
    report.write_text(json.dumps(event))
    assert [one.operation for one in exchanges(report)] == ["POST /auth"]


def test_silence(tmp_path: Path) -> None:
    assert wrong_of(tmp_path, silence("GET /events", "Read timed out.")) == 0
    assert wrong_of(tmp_path, silence("GET /info", "Read timed out.")) == 1
    assert wrong_of(tmp_path, silence("GET /events", "Connection reset by peer")) == 1


def test_growth() -> None:
    before = {"mounts": 2, "threads of the daemon": 10}
    assert print_state(before, before, (5, 5)) == 0
    assert print_state(before, before | {"mounts": 1, "threads of the daemon": 10 + EXECUTOR_THREADS}, (5, 5)) == 0
    assert print_state(before, before | {"mounts": 3}, (5, 6 + MOST_GROWTH_KILOBYTES)) == 2
