"""Commands in containers as Docker's JSON."""

from __future__ import annotations

from shoal.api.views.shared import Json
from shoal.model.streams import ExecRecord


def exec_view(record: ExecRecord) -> Json:
    """Return a command as inspect shows it."""
    config = record.config
    process: Json = {
        "tty": config.tty,
        "entrypoint": config.arguments[0],
        "arguments": list(config.arguments[1:]),
        "privileged": config.privileged,
    }
    if config.user:
        process["user"] = config.user
    return {
        "ID": record.id,
        "Running": record.running,
        "ExitCode": record.exit_code,
        "ProcessConfig": process,
        "OpenStdin": config.attach_stdin,
        "OpenStderr": config.attach_stderr,
        "OpenStdout": config.attach_stdout,
        "CanRemove": False,
        "ContainerID": record.container_id,
        "DetachKeys": config.detach_keys,
        "Pid": record.pid,
    }
