"""Placeholders in a container's environment, hostname and mounts: `{{.Service.Name}}` (docker-swarm.md 4.12)."""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument
from shoal.model.base import Struct

_PLACEHOLDER = re.compile(r"\{\{(.*?)\}\}")
_INDEX = re.compile(r'index\s+\.Service\.Labels\s+"([^"]*)"')


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

    def fields(self) -> dict[str, str]:
        """Return each placeholder's value."""
        return {
            ".Service.ID": self.service_id,
            ".Service.Name": self.service_name,
            ".Node.ID": self.node_id,
            ".Node.Hostname": self.node_hostname,
            ".Node.Platform.Architecture": self.node_architecture,
            ".Node.Platform.OS": self.node_os,
            ".Task.ID": self.task_id,
            ".Task.Name": self.task_name,
            ".Task.Slot": self.task_slot,
        } | {f".Service.Labels.{key}": value for key, value in self.service_labels.items()}


def expand(text: str, context: Context) -> str:
    """Replace the placeholders of `text`.

    Raises:
        InvalidArgument: a placeholder that stands for nothing; it is named.
    """
    if "{{" not in text:
        return text
    fields = context.fields()

    def value_of(match: re.Match[str]) -> str:
        expression = match[1].strip().strip("-").strip()
        index = _INDEX.fullmatch(expression)
        if index is not None:
            return context.service_labels.get(index[1], "")
        if expression not in fields:
            raise InvalidArgument(f'invalid template "{text}": {{{{{match[1]}}}}} stands for nothing here')
        return fields[expression]

    return _PLACEHOLDER.sub(value_of, text)
