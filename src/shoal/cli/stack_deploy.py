"""Bringing the swarm to what a stack asks for: what there is, what is to be done, and doing it in order."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from typing import Any

import click

from shoal.cli.registry_logins import Logins
from shoal.cli.service_sending import print_warnings, with_digest
from shoal.cli.session import STATUS_NOT_FOUND
from shoal.cli.stack_objects import KINDS, found_by_stack, id_of
from shoal.client.connection import Client, RemoteError
from shoal.compose.labels import IMAGE_LABEL
from shoal.compose.plan import CREATE, KEEP, REMOVE, UPDATE, Change, differences, service_change
from shoal.compose.stack import Stack
from shoal.errors import ShoalError

Json = Mapping[str, Any]


class Present:
    """What there is of a stack, and how its names are known to the swarm."""

    def __init__(self, client: Client, stack: Stack) -> None:
        self.client = client
        self.by_kind = {kind: found_by_stack(client, kind, stack.name) for kind in KINDS}
        self._ids: dict[tuple[str, str], str] = {}
        for name in stack.external_networks:
            self._require_network(name)
        for kind, names in (("secret", stack.external_secrets), ("config", stack.external_configs)):
            for name in names:
                self._ids[(kind, name)] = self._require(kind, name)

    def _require_network(self, name: str) -> None:
        try:
            network = self.client.get(f"/networks/{name}")
        except RemoteError as error:
            if error.http_status != STATUS_NOT_FOUND:
                raise
            raise ShoalError(
                f'network "{name}" is declared as external, but could not be found. You need to create a '
                "swarm-scoped network before the stack is deployed"
            ) from None
        if network.get("Scope") != "swarm":
            raise ShoalError(
                f'network "{name}" is declared as external, but it is not in the right scope: "{network.get("Scope")}" '
                'instead of "swarm"'
            )

    def _require(self, kind: str, name: str) -> str:
        try:
            return str(self.client.get(f"/{kind}s/{name}")["ID"])
        except RemoteError as error:
            if error.http_status != STATUS_NOT_FOUND:
                raise
            raise ShoalError(f"{kind} not found: {name}; it is declared as external, make it first") from None

    def id_of_payload(self, kind: str, name: str) -> str:
        """Return the id of a secret or config of the stack; asks once."""
        key = (kind, name)
        if key not in self._ids:
            self._ids[key] = str(self.client.get(f"/{kind}s/{name}")["ID"])
        return self._ids[key]


def plan_deploy(present: Present, stack: Stack, *, prune: bool) -> list[Change]:
    """Return what a deploy would do, in its order."""
    changes = [
        Change(kind="service", name=name, action=REMOVE)
        for name in present.by_kind["service"]
        if prune and name not in stack.services
    ]
    for name in stack.networks:
        action = KEEP if name in present.by_kind["network"] else CREATE
        changes.append(Change(kind="network", name=name, action=action))
    for kind, wanted in (("secret", stack.secrets), ("config", stack.configs)):
        changes += [_payload_change(kind, name, body, present) for name, body in wanted.items()]
    networks = {item["Id"]: item["Name"] for item in present.client.get("/networks")}
    for name, spec in stack.services.items():
        item = present.by_kind["service"].get(name)
        changes.append(service_change(name, spec, None if item is None else _readable(item["Spec"], networks)))
    return changes


def _readable(spec: Json, networks: Mapping[str, str]) -> Json:
    """Return a spec with names of networks, as files have them, and the image without its digest."""
    template = dict(spec["TaskTemplate"])
    if template.get("Networks"):
        named = [{**each, "Target": networks.get(each["Target"], each["Target"])} for each in template["Networks"]]
        template["Networks"] = sorted(named, key=lambda each: str(each["Target"]))
    container = dict(template.get("ContainerSpec") or {})
    # what was asked for, before a registry was asked for its digest
    container["Image"] = (spec.get("Labels") or {}).get(IMAGE_LABEL, container.get("Image", ""))
    template["ContainerSpec"] = container
    return {**spec, "TaskTemplate": template}


def _payload_change(kind: str, name: str, body: Json, present: Present) -> Change:
    item = present.by_kind[kind].get(name)
    if item is None:
        return Change(kind=kind, name=name, action=CREATE)
    fields = differences(body["Labels"], item["Spec"].get("Labels") or {}, "Labels")
    if kind == "config" and body.get("Data") != item["Spec"].get("Data"):
        fields.append(f"Data: {_size(item['Spec'].get('Data'))} -> {_size(body.get('Data'))}")
    if kind == "secret" and "Data" in body:
        # its data is never told: the manager compares
        return Change(kind=kind, name=name, action=UPDATE, fields=(*fields, "Data: compared by the manager"))
    return Change(kind=kind, name=name, action=UPDATE if fields else KEEP, fields=tuple(fields))


def _size(data: str | None) -> str:
    return f"{len(base64.b64decode(data or ''))} bytes"


def carry_out(
    present: Present, stack: Stack, changes: list[Change], *, resolve: str, logins: Logins | None = None
) -> list[str]:
    """Do what was planned; says each step.

    Args:
        present: what there is.
        stack: what there is to be.
        changes: from one to the other.
        resolve: when a registry is asked for digests.
        logins: what nodes are sent to pull with; None to send nothing.

    Returns: the ids of the services made or updated.
    """
    client, touched = present.client, []
    for change in changes:
        if change.action == REMOVE:
            click.echo(f"Removing service {change.name}")
            client.delete(f"/services/{id_of('service', present.by_kind['service'][change.name])}")
        elif change.kind == "network" and change.action == CREATE:
            click.echo(f"Creating network {change.name}")
            client.post("/networks/create", stack.networks[change.name])
        elif change.kind in {"secret", "config"}:
            _write_payload(present, change, stack)
        elif change.kind == "service":
            touched.append(_write_service(present, change.name, stack.services[change.name], resolve, logins))
    return touched


def _write_payload(present: Present, change: Change, stack: Stack) -> None:
    kind, name = change.kind, change.name
    body = (stack.secrets if kind == "secret" else stack.configs)[name]
    if change.action == CREATE:
        click.echo(f"Creating {kind} {name}")
        present.client.post(f"/{kind}s/create", body)
    elif change.action == UPDATE:
        item = present.by_kind[kind][name]
        query = {"version": item["Version"]["Index"]}
        present.client.post(f"/{kind}s/{item['ID']}/update", body, query)


def _write_service(present: Present, name: str, wanted: Json, resolve: str, logins: Logins | None) -> str:
    client = present.client
    spec = _with_ids(present, wanted)
    item = present.by_kind["service"].get(name)
    container = spec["TaskTemplate"]["ContainerSpec"]
    asked = container["Image"]
    was = ((item or {}).get("Spec") or {}).get("Labels", {}).get(IMAGE_LABEL)
    headers = logins.headers(asked) if logins is not None else {}
    if resolve == "always" or (resolve == "changed" and was != asked):
        container["Image"] = with_digest(client, asked, headers)
    elif item is not None and was == asked:
        container["Image"] = item["Spec"]["TaskTemplate"]["ContainerSpec"]["Image"]
    if item is None:
        click.echo(f"Creating service {name}")
        made = client.post("/services/create", spec, headers=headers)
        print_warnings(made)
        return str(made["ID"])
    click.echo(f"Updating service {name} (id: {item['ID']})")
    spec["TaskTemplate"]["ForceUpdate"] = item["Spec"]["TaskTemplate"].get("ForceUpdate", 0)
    # its version may have moved on since it was listed: a payload that changed rolls it
    version = client.get(f"/services/{item['ID']}")["Version"]["Index"]
    print_warnings(client.post(f"/services/{item['ID']}/update", spec, {"version": version}, headers))
    return str(item["ID"])


def _with_ids(present: Present, spec: Json) -> dict[str, Any]:
    container = dict(spec["TaskTemplate"]["ContainerSpec"])
    for kind, field in (("secret", "Secrets"), ("config", "Configs")):
        if field in container:
            word = kind.capitalize()
            container[field] = [
                {f"{word}ID": present.id_of_payload(kind, each[f"{word}Name"]), **each} for each in container[field]
            ]
    return {**spec, "TaskTemplate": {**spec["TaskTemplate"], "ContainerSpec": container}}
