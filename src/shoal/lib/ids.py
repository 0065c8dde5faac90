"""Identifiers: 25 characters of base 36, as Docker Swarm writes them.

17 random bytes with the top bit forced to one are written in base 36; characters 1 to 25 are the id, about
129 bits of chance.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable

ID_LENGTH = 25
ID_RANDOM_BYTES = 17
_DIGITS = "0123456789abcdefghijklmnopqrstuvwxyz"

RandomBytes = Callable[[int], bytes]


def to_base36(number: int, width: int = 0) -> str:
    """Write a non-negative `number` in base 36, padded on the left with zeros to `width`."""
    if number < 0:
        raise ValueError("base 36 is for numbers from 0")
    digits: list[str] = []
    while number:
        number, remainder = divmod(number, 36)
        digits.append(_DIGITS[remainder])
    return "".join(reversed(digits)).rjust(width, "0")


class Ids:
    """A maker of ids over a source of random bytes (given, so that a simulation can repeat them)."""

    def __init__(self, random_bytes: RandomBytes = secrets.token_bytes) -> None:
        self._random_bytes = random_bytes

    def new(self) -> str:
        """Return a fresh id of 25 characters `[0-9a-z]`."""
        raw = bytearray(self._random_bytes(ID_RANDOM_BYTES))
        raw[0] |= 0x80
        return to_base36(int.from_bytes(raw, "big"))[1 : ID_LENGTH + 1]

    def new_hex(self, byte_count: int = 32) -> str:
        """Return `byte_count` random bytes as hexadecimal: container and image-store ids."""
        return self._random_bytes(byte_count).hex()

    def random_bytes(self, byte_count: int) -> bytes:
        """Return `byte_count` random bytes."""
        return self._random_bytes(byte_count)
