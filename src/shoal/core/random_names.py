"""Names for containers that were given none: an adjective and somebody worth remembering, as Docker does."""

from __future__ import annotations

from collections.abc import Callable

ADJECTIVES = (
    "amber", "brave", "calm", "clever", "curious", "eager", "fair", "gentle", "glad", "honest", "humble", "jolly",
    "keen", "kind", "lively", "lucid", "merry", "mild", "nimble", "patient", "placid", "proud", "quick", "quiet",
    "sharp", "sober", "stoic", "sunny", "swift", "tender", "upbeat", "witty",
)  # fmt: skip
SURNAMES = (
    "abel", "babbage", "bell", "bohr", "boole", "cantor", "cerf", "curie", "darwin", "dijkstra", "erdos", "euler",
    "faraday", "fermat", "galois", "gauss", "germain", "goedel", "hamming", "hopper", "kepler", "knuth", "lamport",
    "liskov", "lovelace", "meitner", "noether", "ramanujan", "ritchie", "shannon", "torvalds", "turing",
)  # fmt: skip
TRIES = 8
MOST_NUMBER = 1_000_000


def random_name(below: Callable[[int], int], is_taken: Callable[[str], bool]) -> str:
    """Return a name that is free.

    Args:
        below: gives a number from 0 to below its argument.
        is_taken: tells whether a name is another container's.
    """
    name = ""
    for _ in range(TRIES):
        name = f"{ADJECTIVES[below(len(ADJECTIVES))]}_{SURNAMES[below(len(SURNAMES))]}"
        if not is_taken(name):
            return name
    while is_taken(numbered := f"{name}{below(MOST_NUMBER)}"):
        pass
    return numbered
