"""The keys with which a client lets go of a terminal (`ctrl-p,ctrl-q`). Pure."""

from __future__ import annotations

from shoal.errors import InvalidArgument

DEFAULT_KEYS = bytes((16, 17))  # ctrl-p, ctrl-q
_CONTROL = "@abcdefghijklmnopqrstuvwxyz[\\]^_"


def parse_detach_keys(text: str) -> bytes:
    """Read keys in Docker's notation: single characters and `ctrl-x`, with commas between; empty is the default.

    Raises:
        InvalidArgument: what is no key.
    """
    if not text:
        return DEFAULT_KEYS
    found = bytearray()
    for key in text.split(","):
        control = key.lower().removeprefix("ctrl-")
        if len(key) == 1 and key.isascii():
            found.append(ord(key))
        elif key.lower().startswith("ctrl-") and len(control) == 1 and control in _CONTROL:
            found.append(_CONTROL.index(control))
        else:
            raise InvalidArgument(f"Invalid escape keys ({text}) provided")
    return bytes(found)


class DetachScanner:
    """Finds the keys in what is typed. Keys that may become the whole are held back until that is clear."""

    def __init__(self, keys: bytes) -> None:
        self._keys = keys
        self._matched = 0

    def feed(self, data: bytes) -> tuple[bytes, bool]:
        """Take what was typed; return what goes on to the process, and whether the keys were pressed."""
        passed = bytearray()
        for byte in data:
            if self._matched and byte != self._keys[self._matched]:
                passed += self._keys[: self._matched]
                self._matched = 0
            if byte != self._keys[self._matched]:
                passed.append(byte)
                continue
            self._matched += 1
            if self._matched == len(self._keys):
                return bytes(passed), True
        return bytes(passed), False
