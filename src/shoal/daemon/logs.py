"""The daemon's own log: key-value lines on standard error."""

from __future__ import annotations

import logging
import sys

import structlog

from shoal.lib.lossy_stream import LossyStream

LEVELS = {"debug": 10, "info": 20, "warn": 30, "error": 40, "fatal": 50}


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
