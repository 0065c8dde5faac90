"""Events as Docker's JSON."""

from __future__ import annotations

from shoal.api.views.shared import Json
from shoal.model.events import Event


def event_view(event: Event) -> Json:
    """Return an event; who asked for it stands among the attributes as `shoal.actor`, if anybody did."""
    attributes = dict(event.attributes)
    if event.actor:
        attributes["shoal.actor"] = event.actor
    return {
        "Type": event.kind,
        "Action": event.action,
        "Actor": {"ID": event.id, "Attributes": attributes},
        "scope": "swarm",
        "time": event.at_ns // 1_000_000_000,
        "timeNano": event.at_ns,
    }
