"""What runc says of a start that failed, in Docker's words and exit codes. Pure."""

from __future__ import annotations


def start_error_text(reason: str) -> str:
    """Return Docker's text for a start that runc refused with `reason`."""
    reason = reason.removeprefix("runc run failed: ").removeprefix("runc create failed: ")
    return (
        "failed to create task for container: failed to create shim task: OCI runtime create failed: "
        f"runc create failed: {reason}: unknown"
    )


def exec_error_text(reason: str) -> str:
    """Return Docker's text for a command in a container that runc refused with `reason`."""
    return f"OCI runtime exec failed: exec failed: {reason.removeprefix('exec failed: ')}: unknown"


def start_error_code(reason: str) -> int:
    """Return the exit code Docker gives a container that did not start: 127 not found, 126 not allowed, else 128."""
    low = reason.lower()
    if "executable file not found" in low or ("no such file or directory" in low and "exec" in low):
        return 127
    if "permission denied" in low or "is a directory" in low or "exec format error" in low:
        return 126
    return 128
