"""Times on the command line: `--since` and `--until`."""

from __future__ import annotations

from shoal.errors import InvalidArgument
from shoal.lib.units import NANOSECONDS, format_time, parse_duration_ns, parse_time_ns


def moment_text(flag_name: str, text: str, now_ns: int) -> str:
    """Return a time, or a span before now, as the API has it: seconds with nanoseconds.

    Raises:
        InvalidArgument: it is neither.
    """
    try:
        at_ns = now_ns - parse_duration_ns(text)
    except ValueError:
        try:
            at_ns = parse_time_ns(text)
        except ValueError:
            example = format_time(now_ns // NANOSECONDS["s"] * NANOSECONDS["s"])
            raise InvalidArgument(
                f'{flag_name} "{text}": write a time such as {example}, or a span such as 42m'
            ) from None
    seconds, rest = divmod(at_ns, NANOSECONDS["s"])
    return f"{seconds}.{rest:09d}"
