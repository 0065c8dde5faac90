"""What becomes of a plain container that has ended, and which of them a daemon that starts takes up again.

As Docker: the pause before a restart is 100 ms and doubles, up to a minute, while runs end within 10 s.
"""

from __future__ import annotations

from shoal.model.base import Struct
from shoal.model.container import Container
from shoal.model.plain import PlainConfig, RestartName

NANOSECONDS_PER_SECOND = 1_000_000_000
FIRST_PAUSE_NS = NANOSECONDS_PER_SECOND // 10
MOST_PAUSE_NS = 60 * NANOSECONDS_PER_SECOND
# a run this long was no failure to start: the pauses begin anew
LONG_RUN_NS = 10 * NANOSECONDS_PER_SECOND
KILL_SIGNALS = ("KILL", "9")


class Verdict(Struct):
    """What is to be done with a container that does not run: start it after a pause (None: not), or remove it."""

    why: str
    restart_after_ns: int | None = None
    removes: bool = False


def after_end(
    plain: PlainConfig, exit_code: int | None, ran_ns: int, restart_count: int, last_pause_ns: int
) -> Verdict:
    """Judge a container whose run has ended.

    Args:
        plain: what it was asked to be.
        exit_code: None if nobody saw it end.
        ran_ns: how long it ran.
        restart_count: how often it was started again since somebody started it.
        last_pause_ns: the pause before the last restart, 0 if there was none.
    """
    if plain.stopped_by_hand:
        return _stay(plain, "it was stopped by hand")
    reason = _restarts(plain, exit_code, restart_count)
    if reason is None:
        return _stay(plain, f"restart policy {plain.restart.name} after exit code {exit_code}")
    pause = FIRST_PAUSE_NS if ran_ns >= LONG_RUN_NS or not last_pause_ns else min(2 * last_pause_ns, MOST_PAUSE_NS)
    return Verdict(why=reason, restart_after_ns=pause)


def at_start_up(container: Container) -> Verdict:
    """Judge a container that does not run while the daemon starts.

    `always` starts what somebody had stopped, too: Docker's difference between it and `unless-stopped`.
    """
    plain = container.config.plain or PlainConfig()
    state = container.state
    if state.status != "exited":
        return Verdict(why="it was never started")
    if plain.stopped_by_hand and plain.restart.name != RestartName.ALWAYS:
        return _stay(plain, "it was stopped by hand")
    reason = _restarts(plain, state.exit_code, container.restart_count)
    return _stay(plain, "its restart policy") if reason is None else Verdict(why=reason, restart_after_ns=0)


def _restarts(plain: PlainConfig, exit_code: int | None, restart_count: int) -> str | None:
    """Return why a container is started again, None if it is not."""
    rule = plain.restart
    if rule.name in (RestartName.ALWAYS, RestartName.UNLESS_STOPPED):
        return f"restart policy {rule.name}"
    if rule.name == RestartName.ON_FAILURE and exit_code != 0:
        if not rule.most_retries:
            return "restart policy on-failure"
        if restart_count < rule.most_retries:
            return f"restart policy on-failure, restart {restart_count + 1} of {rule.most_retries}"
    return None


def _stay(plain: PlainConfig, why: str) -> Verdict:
    return Verdict(why=why, removes=plain.auto_remove)


def ends_restarts(signal: str, stop_signal: str) -> bool:
    """Tell whether a signal sent by hand means that the container is not to be started again.

    As Docker: any signal, but of a container with a stop signal of its own only that one and KILL.
    """
    name = _signal_name(signal)
    return not stop_signal or name in KILL_SIGNALS or name == _signal_name(stop_signal)


def _signal_name(signal: str) -> str:
    return signal.upper().removeprefix("SIG")
