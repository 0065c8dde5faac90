"""What a deploy would change: the fields of each service, and whether its tasks are replaced. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from shoal.model.base import Struct

Json = Mapping[str, Any]
CREATE, UPDATE, KEEP, REMOVE = "create", "update", "keep", "remove"
# lists that are compared whole: what is there beside what is wanted goes
_WHOLE = frozenset(
    {"Env", "Args", "Command", "Mounts", "Secrets", "Configs", "Networks", "Ports", "Constraints", "Hosts", "Labels"}
)
# what the manager or an earlier deploy wrote, and no file says
_NOT_ASKED = frozenset({"ForceUpdate", "Runtime", "SecretID", "ConfigID"})


class Change(Struct):
    """What becomes of one thing: create, update, keep or remove; `fields` as `path: before -> after`.

    `replaces_tasks` says whether the tasks of a service are made anew.
    """

    kind: str
    name: str
    action: str
    fields: tuple[str, ...] = ()
    replaces_tasks: bool = False


def service_change(name: str, wanted: Json, present: Json | None) -> Change:
    """Return what becomes of a service.

    Args:
        name: its full name.
        wanted: the spec a file asks for.
        present: the spec there is; None if there is none.
    """
    if present is None:
        return Change(kind="service", name=name, action=CREATE)
    fields = differences(wanted, present)
    return Change(
        kind="service",
        name=name,
        action=UPDATE if fields else KEEP,
        fields=tuple(fields),
        replaces_tasks=any(field.startswith("TaskTemplate.") for field in fields),
    )


def differences(wanted: Any, present: Any, path: str = "") -> list[str]:
    """Return where `present` is not what is wanted; what only `present` has is a default, except in lists."""
    if isinstance(wanted, Mapping) and isinstance(present, Mapping):
        found = []
        for key, value in wanted.items():
            if key not in _NOT_ASKED:
                found += differences(value, present.get(key), f"{path}.{key}" if path else key)
        if path.rpartition(".")[2] in _WHOLE:
            found += [f"{path}.{key}: {_word(value)} -> nothing" for key, value in present.items() if key not in wanted]
        for key in present:
            if key in _WHOLE and key not in wanted and present[key] and key not in _NOT_ASKED:
                found.append(f"{path}.{key}: {_word(present[key])} -> nothing")
        return found
    if isinstance(wanted, list) and isinstance(present, list) and len(wanted) == len(present):
        found = []
        for number, (one, other) in enumerate(zip(wanted, present, strict=True)):
            found += differences(one, other, f"{path}[{number}]")
        return found
    if wanted == present or (not wanted and not present):
        return []
    return [f"{path}: {_word(present)} -> {_word(wanted)}"]


def _word(value: Any) -> str:
    if value is None:
        return "nothing"
    if isinstance(value, list):
        return f"[{', '.join(_word(each) for each in value)}]"
    if isinstance(value, Mapping):
        return f"{{{', '.join(f'{key}: {_word(each)}' for key, each in value.items())}}}"
    return str(value)
