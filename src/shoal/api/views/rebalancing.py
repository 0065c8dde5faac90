"""What would move of a service, as JSON."""

from __future__ import annotations

from shoal.api.views.shared import Json
from shoal.manager.rebalancing import Proposal
from shoal.model.objects import Node, Service
from shoal.store.view import View


def proposal_view(view: View, service: Service, proposal: Proposal) -> Json:
    """Return the moves in order, nodes by id and host name, and why none can be made now (empty: they can)."""
    return {
        "Rebalancing": service.rebalancing,
        "Hindrance": proposal.hindrance,
        "Moves": [
            {
                "Task": move.task_id,
                "Slot": move.slot,
                "From": _node_view(view, move.from_node_id),
                "To": _node_view(view, move.to_node_id),
                "Why": move.why,
            }
            for move in proposal.moves
        ],
    }


def _node_view(view: View, node_id: str) -> Json:
    node = view.get(Node, node_id)
    return {"ID": node_id, "Hostname": node.description.hostname if node is not None else ""}
