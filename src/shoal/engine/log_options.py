"""Log drivers and their options. Pure.

Those that send lines on keep the last of them on disk, too, so that `docker logs` can read them.
"""

from __future__ import annotations

import re

from shoal.errors import InvalidArgument
from shoal.model.base import Struct
from shoal.model.container import ContainerConfig

DRIVERS = ("json-file", "local", "none", "syslog", "journald")
KEEPS_LAST = ("local", "syslog", "journald")
_SIZE = re.compile(r"(\d+(?:\.\d+)?)\s*([bkmgt]?)(?:i?b)?", re.IGNORECASE)
_FACTORS = {"": 1, "b": 1, "k": 1 << 10, "m": 1 << 20, "g": 1 << 30, "t": 1 << 40}
_LOCAL_DEFAULTS = (20 << 20, 5)
# taken and of no meaning here: they tag or compress
_OTHER_OPTIONS = frozenset({"compress", "labels", "labels-regex", "env", "env-regex", "tag", "mode", "max-buffer-size"})


_SYSLOG_OPTIONS = frozenset({"syslog-address", "syslog-facility", "syslog-format"})


class LogSettings(Struct):
    """Where the keeper writes a log; `max_bytes` 0 never rotates, an empty path keeps nothing."""

    path: str
    max_bytes: int = 0
    max_files: int = 1


def log_settings(config: ContainerConfig, path: str) -> LogSettings:
    """Read log driver and options of a container. Raises InvalidArgument naming what is wrong."""
    driver = config.log_driver or "json-file"
    if driver not in DRIVERS:
        raise InvalidArgument(
            f"logger: no log driver named '{driver}' is registered: this node has {', '.join(DRIVERS)}"
        )
    options = config.log_options
    if driver == "none":
        return LogSettings(path="")
    for name in ("labels-regex", "env-regex"):
        try:
            re.compile(options.get(name, ""))
        except re.error as error:
            raise InvalidArgument(f"log opt {name} {options[name]!r}: {error}") from None
    known = _OTHER_OPTIONS | (_SYSLOG_OPTIONS if driver == "syslog" else {"max-size", "max-file"})
    for name in options:
        if name not in known:
            raise InvalidArgument(f"unknown log opt '{name}' for {driver} log driver")
    max_bytes, max_files = _LOCAL_DEFAULTS if driver in KEEPS_LAST else (0, 1)
    if "max-size" in options:
        max_bytes = _size(options["max-size"])
    if "max-file" in options:
        text = options["max-file"]
        if not text.isdigit() or int(text) < 1:
            raise InvalidArgument(f"max-file {text!r}: must be a number from 1")
        max_files = int(text)
        if not max_bytes and max_files > 1:
            raise InvalidArgument("max-file > 1 needs max-size: set how large a file may grow, such as max-size=10m")
    return LogSettings(path=path, max_bytes=max_bytes, max_files=max_files)


def log_details(config: ContainerConfig) -> dict[str, str]:
    """Return what `--details` shows of each line: labels and variables that the log options name."""
    options = config.log_options
    variables = {name: value for name, _, value in (entry.partition("=") for entry in config.env)}
    found: dict[str, str] = {}
    for option, values in (("labels", config.labels), ("env", variables)):
        for name in options.get(option, "").split(","):
            if name in values:
                found[name] = values[name]
        pattern = options.get(f"{option}-regex", "")
        if pattern:
            found |= {name: value for name, value in values.items() if re.search(pattern, name)}
    return found


def _size(text: str) -> int:
    if text == "-1":
        return 0
    match = _SIZE.fullmatch(text.strip())
    if match is None or float(match[1]) <= 0:
        raise InvalidArgument(f"max-size {text!r}: must be a size such as 10m")
    return max(1, int(float(match[1]) * _FACTORS[match[2].lower()]))
