"""Whether a text is an image reference: `[registry[:port]/]path[:tag][@digest]`, as Docker's grammar has it."""

from __future__ import annotations

import re

_COMPONENT = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*")
_DOMAIN = re.compile(
    r"(?:\[[0-9a-fA-F:]+\]|[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
    r"(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*)(?::[0-9]+)?"
)
_TAG = re.compile(r"\w[\w.-]{0,127}", re.ASCII)
_DIGEST = re.compile(r"[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}")
_BARE_ID = re.compile(r"[a-f0-9]{64}")
MAX_NAME = 255


def is_image_reference(text: str) -> bool:
    """Tell whether `text` names an image in a registry; 64 hexadecimal digits are an id, not a name."""
    if not text or len(text) > MAX_NAME + 128 + 200 or _BARE_ID.fullmatch(text):
        return False
    name, at, digest = text.partition("@")
    if at and _DIGEST.fullmatch(digest) is None:
        return False
    head, slash, last = name.rpartition("/")
    last, colon, tag = last.partition(":")
    if colon and _TAG.fullmatch(tag) is None:
        return False
    components = [*(head.split("/") if slash else []), last]
    if len("/".join(components)) > MAX_NAME:
        return False
    if len(components) > 1 and _is_domain(components[0]):
        components = components[1:]
    return all(_COMPONENT.fullmatch(component) for component in components)


def _is_domain(component: str) -> bool:
    """Tell a registry from the first part of a path, as Docker does: a dot, a colon, `localhost` or a capital."""
    looks_like_one = "." in component or ":" in component or component == "localhost" or component.lower() != component
    return looks_like_one and _DOMAIN.fullmatch(component) is not None
