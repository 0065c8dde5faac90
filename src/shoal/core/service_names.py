"""Names for services whose owner gave none: an adjective and a surname of the history of ships and oceans."""

from __future__ import annotations

ADJECTIVES = (
    "agile", "amber", "ardent", "azure", "balanced", "bold", "brave", "brisk", "bright", "calm", "candid", "careful",
    "cheerful", "clever", "coral", "curious", "daring", "deft", "eager", "earnest", "easy", "fair", "fleet", "fluent",
    "gentle", "glad", "golden", "graceful", "hardy", "honest", "humble", "jolly", "keen", "kind", "lively", "loyal",
    "lucid", "merry", "mild", "modest", "neat", "nimble", "noble", "patient", "placid", "polite", "proud", "quick",
    "quiet", "ready", "serene", "sharp", "silent", "silver", "sincere", "steady", "sturdy", "subtle", "sunny", "swift",
    "tidy", "tranquil", "vivid", "warm",
)  # fmt: skip
SURNAMES = (
    "amundsen", "baffin", "baret", "barents", "beaufort", "bering", "bougainville", "cabot", "carson", "cook",
    "cousteau", "dampier", "darwin", "davis", "earle", "elcano", "eriksson", "ferdinand", "fitzroy", "flinders",
    "franklin", "gama", "harrison", "heyerdahl", "hudson", "humboldt", "joyon", "knox", "lamarck", "lovelace",
    "magellan", "maury", "mercator", "moitessier", "nansen", "nelson", "parry", "piccard", "plimsoll", "polo",
    "rackham", "ross", "scott", "shackleton", "slocum", "solander", "sverdrup", "tabarly", "tasman",
    "vancouver", "vespucci", "weddell", "wegener", "wharton", "wilkes", "worsley", "wrangel", "yonge", "zheng", "zarco",
    "pytheas", "tharp", "zeno", "zubov",
)  # fmt: skip
RANDOM_BYTES_NEEDED = 3


def make_service_name(random: bytes, attempt: int = 0) -> str:
    """Return `adjective_surname` from two random bytes; from the second `attempt` on with a digit of the third."""
    name = f"{ADJECTIVES[random[0] % len(ADJECTIVES)]}_{SURNAMES[random[1] % len(SURNAMES)]}"
    return name if attempt == 0 else f"{name}{random[2] % 10}"
