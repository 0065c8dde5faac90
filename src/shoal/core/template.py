"""Placeholders in a container's environment, hostname and mounts: `{{.Service.Name}}` (docker-swarm.md 4.12)."""

from __future__ import annotations

from typing import Any

from shoal.errors import InvalidArgument
from shoal.language.golang_template import TemplateError, Values, render
from shoal.model.base import Struct


class Context(Struct):
    """What placeholders stand for."""

    service_id: str
    service_name: str
    service_labels: dict[str, str]
    node_id: str
    node_hostname: str
    node_architecture: str
    node_os: str
    task_id: str
    task_name: str
    task_slot: str

    def tree(self) -> dict[str, Any]:
        """Return the values as templates name them."""
        return {
            "Service": {"ID": self.service_id, "Name": self.service_name, "Labels": self.service_labels},
            "Node": {
                "ID": self.node_id,
                "Hostname": self.node_hostname,
                "Platform": {"Architecture": self.node_architecture, "OS": self.node_os},
            },
            "Task": {"ID": self.task_id, "Name": self.task_name, "Slot": self.task_slot},
        }


def expand(text: str, context: Context, field: str) -> str:
    """Replace the placeholders of `text`.

    Args:
        text: what to expand.
        context: what placeholders stand for.
        field: of the spec, named in errors.

    Raises:
        InvalidArgument: a placeholder that stands for nothing, or no template at all.
    """
    if "{{" not in text:
        return text
    try:
        return render(text, Values(context.tree()))
    except TemplateError as error:
        raise InvalidArgument(f'{field}: invalid template "{text}": {error}') from None
