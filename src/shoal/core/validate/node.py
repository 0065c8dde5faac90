"""A NodeSpec as it is stored."""

from __future__ import annotations

from shoal.errors import InvalidArgument
from shoal.model.base import replace
from shoal.model.specs import NodeSpec
from shoal.model.states import Availability, Role


def prepare_node(spec: NodeSpec) -> NodeSpec:
    """Return `spec` with its words in lower case. Raises InvalidArgument for a role or availability that is none."""
    role = spec.role.lower()
    if role not in set(Role):
        raise InvalidArgument(f'invalid Role: "{spec.role}"')
    return replace(spec, role=role, availability=parse_availability(spec.availability))


def parse_availability(text: str) -> Availability:
    """Read an availability in any case. Raises InvalidArgument."""
    try:
        return Availability(text.lower())
    except ValueError:
        raise InvalidArgument(f'invalid Availability: "{text}"') from None
