"""Replies against the shapes of Docker's own description of its API (vectors/docker-api)."""

from __future__ import annotations

import json
from typing import Any

import pytest
import yaml

from tests.conformance.replies.vectors import find_replies
from tests.system.daemon import wait_for

replies = find_replies()
description = replies.parent / "docker-api" / "v1.50.yaml" if replies is not None else None
pytestmark = [
    pytest.mark.root,
    pytest.mark.skipif(description is None, reason="no shared/vectors here, and no SHOAL_VECTORS"),
]

TYPES: dict[str, type | tuple[type, ...]] = {
    "string": str, "integer": int, "number": (int, float), "boolean": bool, "array": list, "object": dict,
}  # fmt: skip
# what the description leaves out, and why it is there
KNOWN = {
    "GET /info .RegistryConfig.AllowNondistributableArtifactsCIDRs": "a real Docker was recorded with it",
    "GET /info .RegistryConfig.AllowNondistributableArtifactsHostnames": "a real Docker was recorded with it",
    "GET /networks/{id} .Services": "of verbose=1, which is described in words only",
    "GET /tasks .NetworksAttachments": "a real Docker was recorded with it",
    "GET /tasks .Volumes": "a real Docker was recorded with it",
    "GET /tasks/{id} .NetworksAttachments": "a real Docker was recorded with it",
    "GET /tasks/{id} .Volumes": "a real Docker was recorded with it",
    "GET /events .status": "old clients read it",
    "GET /events .id": "old clients read it",
    "GET /events .from": "old clients read it",
}


class Shapes:
    """Docker's description; `complaints` compares a reply with it."""

    def __init__(self, document: dict[str, Any]) -> None:
        self._document = document

    def of(self, method: str, path: str, status: int) -> dict[str, Any]:
        answer: dict[str, Any] = self._document["paths"][path][method.lower()]["responses"][status]["schema"]
        return answer

    def _resolved(self, schema: dict[str, Any]) -> dict[str, Any]:
        while "$ref" in schema:
            schema = self._document["definitions"][schema["$ref"].rpartition("/")[2]]
        if "allOf" not in schema:
            return schema
        merged: dict[str, Any] = {"type": "object", "properties": {}}
        for part in (*schema["allOf"], {key: value for key, value in schema.items() if key != "allOf"}):
            resolved = self._resolved(part)
            merged["properties"] |= resolved.get("properties", {})
            merged |= {key: value for key, value in resolved.items() if key != "properties"}
        return merged

    def complaints(self, schema: dict[str, Any], value: Any, path: str = "") -> list[str]:
        """Say where a value has a key or a type that the description has not; null is what Go writes for empty."""
        schema = self._resolved(schema)
        kind = schema.get("type", "object" if "properties" in schema else "")
        if value is None or not kind:
            return []
        if not isinstance(value, TYPES[kind]) or (isinstance(value, bool) and kind != "boolean"):
            return [f"{path}: {kind} described, {type(value).__name__} found"]
        if "enum" in schema and value not in schema["enum"]:
            return [f"{path}: {value!r} is none of {schema['enum']}"]
        if kind == "array":
            return [text for item in value for text in self.complaints(schema.get("items", {}), item, f"{path}[]")]
        if kind != "object":
            return []
        found = []
        properties, more = schema.get("properties", {}), schema.get("additionalProperties")
        for key, item in value.items():
            if key in properties:
                found += self.complaints(properties[key], item, f"{path}.{key}")
            elif isinstance(more, dict):
                found += self.complaints(more, item, f"{path}.*")
            elif properties and more is None:
                found.append(f"{path}.{key}: not described")
        missing = set(schema.get("required", ())) - set(value)
        return [*found, *(f"{path}.{key}: missing" for key in sorted(missing))]


@pytest.fixture(scope="module")
def shapes():
    assert description is not None
    return Shapes(yaml.load(description.read_text(), Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))


@pytest.fixture(scope="module")
def world(daemon):
    """Something of each kind."""
    daemon.docker("volume", "create", "vol")
    ports = ("-p", "8095:80", "--health-cmd", "true", "--health-interval", "1s")
    daemon.docker("run", "-d", "--name", "box", "-v", "vol:/vol", *ports, "busybox", "sleep", "1000")
    daemon.docker("create", "--name", "fresh", "busybox", "sleep", "1000")
    daemon.docker("secret", "create", "hidden", "-", input="x")
    daemon.docker("config", "create", "shown", "-", input="x")
    daemon.docker("network", "create", "-d", "overlay", "--attachable", "wide")
    daemon.docker("network", "create", "near")
    create = ("service", "create", "-d", "--no-resolve-image", "--stop-grace-period", "0s", "--name", "web")
    daemon.docker(*create, "-p", "8096:80", "--network", "wide", "--secret", "hidden", "busybox", "sleep", "1000")
    wait_for(lambda: "1/1" in daemon.docker("service", "ls").stdout, "it runs")
    made = daemon.request("POST", "/containers/box/exec", {"Cmd": ["true"]})[1]["Id"]
    task = daemon.request("GET", "/tasks")[1][0]["ID"]
    yield {"{exec}": made, "{task}": task, "{node}": daemon.request("GET", "/nodes")[1][0]["ID"]}
    daemon.docker("service", "rm", "web")
    daemon.docker("rm", "-f", "box", "fresh")
    wait_for(lambda: daemon.docker("ps", "-aq").stdout == "", "the task has gone")


CASES = [
    ("GET", "/info", "/info"),
    ("GET", "/version", "/version"),
    ("GET", "/system/df", "/system/df"),
    ("GET", "/containers/json", "/containers/json?all=1&size=1"),
    ("GET", "/containers/{id}/json", "/containers/box/json?size=1"),
    ("GET", "/containers/{id}/json", "/containers/fresh/json"),
    ("GET", "/containers/{id}/top", "/containers/box/top"),
    ("GET", "/containers/{id}/changes", "/containers/box/changes"),
    ("GET", "/containers/{id}/stats", "/containers/box/stats?stream=0&one-shot=1"),
    ("GET", "/exec/{id}/json", "/exec/{exec}/json"),
    ("POST", "/containers/{id}/update", "/containers/box/update"),
    ("POST", "/containers/prune", '/containers/prune?filters={"label":["none"]}'),
    ("GET", "/images/json", "/images/json?shared-size=1"),
    ("GET", "/images/{name}/json", "/images/busybox/json"),
    ("GET", "/images/{name}/history", "/images/busybox/history"),
    ("POST", "/images/prune", "/images/prune"),
    ("GET", "/volumes", "/volumes"),
    ("GET", "/volumes/{name}", "/volumes/vol"),
    ("POST", "/volumes/prune", "/volumes/prune"),
    ("GET", "/networks", "/networks"),
    ("GET", "/networks/{id}", "/networks/near"),
    ("GET", "/networks/{id}", "/networks/wide?verbose=1"),
    ("GET", "/networks/{id}", "/networks/bridge"),
    ("GET", "/swarm", "/swarm"),
    ("GET", "/nodes", "/nodes"),
    ("GET", "/nodes/{id}", "/nodes/{node}"),
    ("GET", "/services", "/services?status=1"),
    ("GET", "/services/{id}", "/services/web"),
    ("GET", "/tasks", "/tasks"),
    ("GET", "/tasks/{id}", "/tasks/{task}"),
    ("GET", "/secrets", "/secrets"),
    ("GET", "/configs/{id}", "/configs/shown"),
]


@pytest.mark.parametrize(("method", "route", "path"), CASES, ids=[f"{case[0]} {case[2]}" for case in CASES])
def test_reply(daemon, shapes, world, method, route, path):
    for word, value in (*world.items(), ('"', "%22")):
        path = path.replace(word, value)
    status, body = daemon.request(method, path, {} if method == "POST" else None)
    assert status == 200, body
    found = shapes.complaints(shapes.of(method, route, 200), body)
    check(f"{method} {route}", found)


def check(what, complaints):
    unknown = {text for text in complaints if f"{what} {text.partition(':')[0]}".replace("[]", "") not in KNOWN}
    assert not unknown, "\n".join(sorted(unknown))


def test_events(daemon, shapes, world):
    until = daemon.request("GET", "/info")[1]["SystemTime"]
    status, body = daemon.request("GET", f"/events?since=0&until={until}")
    assert status == 200
    told = [json.loads(line) for line in body.splitlines()]
    kinds = {event["Type"] for event in told}
    assert {"container", "image", "volume", "network", "service", "node", "secret", "config"} <= kinds
    schema = shapes.of("GET", "/events", 200)
    check("GET /events", [text for event in told for text in shapes.complaints(schema, event)])
