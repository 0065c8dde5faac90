"""The daemon's own log: key-value lines on standard error."""

from __future__ import annotations

import contextlib
import logging
import sys
from typing import TextIO

import structlog

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


class LossyStream:
    """A stream whose lines are lost when they cannot be written: a full disk or a closed pipe ends no part of a daemon.

    Args:
        stream: takes what can be written.
    """

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write, or lose it."""
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush, or lose it."""
        with contextlib.suppress(OSError):
            self._stream.flush()


def configure_logging(level: str) -> None:
    """Send structlog's lines, and warnings of the libraries, to standard error."""
    stream = LossyStream(sys.stderr)
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
            structlog.processors.format_exc_info,
            structlog.processors.LogfmtRenderer(key_order=["time", "level", "event"], bool_as_flag=False),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=structlog.PrintLoggerFactory(stream),  # type: ignore[arg-type]
        cache_logger_on_first_use=True,
    )
    logging.basicConfig(level=logging.WARNING, stream=stream, format="level=%(levelname)s event=%(message)s")
