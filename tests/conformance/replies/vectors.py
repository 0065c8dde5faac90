"""Where the recorded replies of a real Docker are, and how two replies are compared."""

from __future__ import annotations

import base64
import json
import os
import re
from pathlib import Path
from typing import Any

ENVIRONMENT = "SHOAL_VECTORS"
PREFIX = re.compile(r"^rpc error: code = \w+ desc = ")


def find_replies() -> Path | None:
    """Return the folder of replies: from the environment, else `shared/vectors` beside or above the repository."""
    named = os.environ.get(ENVIRONMENT)
    roots = [Path(named)] if named else []
    roots += [parent / "shared" / "vectors" for parent in Path(__file__).resolve().parents]
    for root in roots:
        replies = root / "docker-replies"
        if replies.is_dir():
            return replies
    return None


class Vector:
    """One request and what Docker answered."""

    def __init__(self, path: Path) -> None:
        value = json.loads(path.read_text())
        self.name = path.stem
        request, response = value["request"], value["response"]
        self.node: str = request["node"]
        self.method: str = request["method"]
        self.path: str = request["path"]
        self.request_body: Any = request.get("body")
        self.request_raw: str | None = request.get("body_raw")
        self.status: int = response["status"]
        self.headers: dict[str, str] = response["headers"]
        self.body: Any = response.get("body")
        self.raw_body = response.get("body_text", "").encode()
        if "body_base64" in response:
            self.raw_body = base64.b64decode(response["body_base64"])

    @property
    def message(self) -> str | None:
        if isinstance(self.body, dict) and set(self.body) == {"message"}:
            return PREFIX.sub("", self.body["message"])
        return None


def load(name: str) -> Vector:
    folder = find_replies()
    assert folder is not None
    return Vector(folder / f"{name}.json")


def differences(expected: Any, actual: Any, path: str = "") -> list[str]:
    """Say where two JSON values differ in shape: keys and types; specs and counts are compared by value."""
    if isinstance(expected, dict) and isinstance(actual, dict):
        return _object_differences(expected, actual, path)
    if isinstance(expected, list) and isinstance(actual, list):
        return _list_differences(expected, actual, path)
    if _kind(expected) != _kind(actual):
        return [f"{path}: {_kind(expected)} expected, {_kind(actual)} found"]
    return []


BY_VALUE = {"Spec", "PreviousSpec", "ServiceStatus", "State", "DesiredState", "Slot", "Mode", "Labels", "JobIteration"}


def _object_differences(expected: dict[str, Any], actual: dict[str, Any], path: str) -> list[str]:
    found = [f"{path}.{key}: missing" for key in expected if key not in actual]
    found += [f"{path}.{key}: not in Docker's reply" for key in actual if key not in expected]
    for key, theirs in expected.items():
        if key not in actual:
            continue
        ours = actual[key]
        if _by_value(key, theirs) and _by_value(key, ours):
            if theirs != ours:
                inner = differences(theirs, ours, f"{path}.{key}") if "Spec" in key else []
                found += inner or [f"{path}.{key}: {theirs} expected, {ours} found"]
        else:
            found += differences(theirs, ours, f"{path}.{key}")
    return found


def _by_value(key: str, value: Any) -> bool:
    return key in BY_VALUE and (isinstance(value, str | int) or (isinstance(value, dict) and key != "State"))


def _list_differences(expected: list[Any], actual: list[Any], path: str) -> list[str]:
    if all(isinstance(item, dict) and _identity(item) for item in [*expected, *actual]):
        ours = {_identity(item): item for item in actual}
        theirs = {_identity(item): item for item in expected}
        found = [f"{path}[{key}]: missing" for key in theirs if key not in ours]
        found += [f"{path}[{key}]: not in Docker's reply" for key in ours if key not in theirs]
        for key, item in theirs.items():
            if key in ours:
                found += differences(item, ours[key], f"{path}[{key}]")
        return found
    if len(expected) != len(actual):
        return [f"{path}: {len(expected)} items expected, {len(actual)} found"]
    return [text for a, b in zip(expected, actual, strict=True) for text in differences(a, b, f"{path}[]")]


def _identity(item: dict[str, Any]) -> str:
    for key in ("ID", "Id", "NetworkID", "Destination"):
        if isinstance(item.get(key), str):
            return str(item[key])
    return ""


def _kind(value: Any) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    return type(value).__name__


def frames(raw: bytes) -> list[tuple[int, bytes]]:
    """Take a multiplexed stream apart."""
    found: list[tuple[int, bytes]] = []
    while raw:
        size = int.from_bytes(raw[4:8], "big")
        assert raw[1:4] == b"\0\0\0"
        found.append((raw[0], raw[8 : 8 + size]))
        raw = raw[8 + size :]
    return found
