"""What the shell may offer for a word: names that the daemon knows, by what stands in a command's usage.

A daemon that does not answer offers nothing: nobody who types wants to read why.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

import click
from click.shell_completion import CompletionItem

from shoal.cli.daemon_address import chosen_host, chosen_tls
from shoal.cli.grammar import Value
from shoal.client.connection import Client
from shoal.compose.labels import NAMESPACE_LABEL
from shoal.errors import ShoalError

Json = Mapping[str, Any]
Offer = Callable[[click.Context, click.Parameter, str], list[CompletionItem]]


def _spec_name(item: Json) -> Iterable[str]:
    yield item["Spec"]["Name"]


def _stack(item: Json) -> Iterable[str]:
    if name := (item["Spec"].get("Labels") or {}).get(NAMESPACE_LABEL):
        yield name


# the word of a usage line → where its names are, and how they are read
SOURCES: dict[str, tuple[str, Callable[[Json], Iterable[str]]]] = {
    "SERVICE": ("/services", _spec_name),
    "STACK": ("/services", _stack),
    "NODE": ("/nodes", lambda item: [item["Description"]["Hostname"]]),
    "SECRET": ("/secrets", _spec_name),
    "CONFIG": ("/configs", _spec_name),
    "NETWORK": ("/networks", lambda item: [item["Name"]]),
    "VOLUME": ("/volumes", lambda item: [item["Name"]]),
    "CONTAINER": ("/containers/json", lambda item: [name.lstrip("/") for name in item["Names"]]),
    "IMAGE": ("/images/json", lambda item: item.get("RepoTags") or ()),
}
# commands that mean containers that run; the others are offered those that have ended, too
RUNNING_ONLY = frozenset({"connect", "exec", "kill", "pause", "stats", "stop", "top", "unpause"})
# flags whose value is such a name
FLAG_SOURCES = {
    "--network": "NETWORK",
    "--network-add": "NETWORK",
    "--network-rm": "NETWORK",
    "--secret": "SECRET",
    "--secret-add": "SECRET",
    "--secret-rm": "SECRET",
    "--config": "CONFIG",
    "--config-add": "CONFIG",
    "--config-rm": "CONFIG",
    "--image": "IMAGE",
    "--config-from": "NETWORK",
    "--network-trace": "SERVICE",
}
# words of flags that the daemon judges, in its own texts; those of the others stand with the flag (`grammar.OneOf`)
CHOICES = {
    "--availability": ("active", "pause", "drain"),
    "--role": ("worker", "manager"),
    "--driver": ("overlay", "bridge", "macvlan"),
}


def add_offers(command: click.Command) -> None:
    """Have the shell offer names for the arguments and flags of a command."""
    for param in command.params:
        offer = _offer_for(param)
        if offer is not None:
            param._custom_shell_complete = offer


def _offer_for(param: click.Parameter) -> Offer | None:
    if isinstance(param, click.Argument):
        words = (param.metavar or "").removesuffix("...").split("|")
        kinds = [word.partition("=")[0] for word in words]
        kinds = list(SOURCES) if kinds == ["NAME", "ID"] else [kind for kind in kinds if kind in SOURCES]
        return _names_of(kinds) if kinds else None
    name = max(param.opts, key=len)
    offered = param.type.allowed if isinstance(param.type, Value) else ()
    offered = offered or CHOICES.get(name, ())
    if offered:
        return lambda _context, _param, incomplete: [
            CompletionItem(word) for word in offered if word.startswith(incomplete)
        ]
    return _names_of([FLAG_SOURCES[name]]) if name in FLAG_SOURCES else None


def _names_of(kinds: list[str]) -> Offer:
    def offer(context: click.Context, _param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        given = context.find_root().params
        found: set[str] = set()
        try:
            client = Client(chosen_host(given), tls=chosen_tls(given))
            for kind in kinds:
                path, read = SOURCES[kind]
                ended_too = kind == "CONTAINER" and context.info_name not in RUNNING_ONLY
                answer = client.get(path, {"all": True} if ended_too else None)
                items = answer["Volumes"] or () if kind == "VOLUME" else answer
                found.update(name for item in items for name in read(item))
        except (ShoalError, OSError, KeyError, TypeError):
            return []
        return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]

    return offer
