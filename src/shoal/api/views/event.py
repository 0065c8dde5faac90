"""Events as Docker's JSON."""

from __future__ import annotations

from shoal.api.views.shared import Json
from shoal.model.events import Event

NODE_KINDS = frozenset({"container", "image", "volume"})


def scope_of(event: Event) -> str:
    """Return Docker's word for who knows of an event: the node alone, or the swarm."""
    return "local" if event.kind in NODE_KINDS else "swarm"


def event_view(event: Event) -> Json:
    """Return an event; who asked for it stands among the attributes as `shoal.actor`, if anybody did."""
    attributes = dict(event.attributes)
    if event.actor:
        attributes["shoal.actor"] = event.actor
    view: Json = {"status": event.action, "id": event.id} if event.kind in ("container", "image") else {}
    if event.kind == "container":
        view["from"] = attributes.get("image", "")
    return view | {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": attributes},
        "scope": scope_of(event),
        "time": event.at_ns // 1_000_000_000,
        "timeNano": event.at_ns,
    }
