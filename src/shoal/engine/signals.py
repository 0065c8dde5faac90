"""Names of signals as Docker takes them: `TERM`, `SIGTERM`, `15`, `RTMIN+3`."""

from __future__ import annotations

import re
import signal

from shoal.errors import InvalidArgument

# as Docker writes the end by a signal: 128 and its number
SIGKILL_EXIT_CODE = 128 + signal.SIGKILL

_REAL_TIME = re.compile(r"RT(MIN|MAX)(?:([+-])(\d+))?")
_MOST = 64
# what the C library leaves to programs; Docker and the kernel count from here
_REAL_TIME_FIRST, _REAL_TIME_LAST = 34, 64


def parse_signal(text: str) -> int:
    """Return the number of a signal. Raises InvalidArgument (`invalid signal: …`)."""
    name = text.strip().upper().removeprefix("SIG")
    if name.isascii() and name.isdigit() and 1 <= int(name) <= _MOST:
        return int(name)
    match = _REAL_TIME.fullmatch(name)
    if match:
        base = _REAL_TIME_FIRST if match[1] == "MIN" else _REAL_TIME_LAST
        number = base + int(match[3] or 0) * (-1 if match[2] == "-" else 1)
        if _REAL_TIME_FIRST <= number <= _REAL_TIME_LAST:
            return number
    elif f"SIG{name}" in signal.Signals.__members__:
        return int(signal.Signals[f"SIG{name}"])
    raise InvalidArgument(f"invalid signal: {text}")
