"""What a daemon has on the machine: for tests that it leaves nothing, and nothing twice."""

import os
from pathlib import Path


def left_on_machine(daemon_id, root):
    """Return cgroups, mounts and processes that carry a daemon's id or the path of its roots."""
    # walked, not globbed: cgroups of others may go meanwhile
    cgroups = [
        f"{parent}/{name}"
        for parent, names, _ in os.walk("/sys/fs/cgroup")
        for name in names
        if name.startswith("shoal") and daemon_id in name
    ]
    mounts = [line for line in Path("/proc/self/mountinfo").read_text().splitlines() if str(root) in line]
    return [*cgroups, *mounts, *processes_with(str(root))]


def processes_with(text):
    """Return the processes that have `text` on their command line."""
    found = []
    for entry in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            words = entry.read_bytes()
        except OSError:
            continue
        if text.encode() in words:
            found.append(f"{entry.parent.name}: {words.replace(bytes(1), b' ').decode(errors='replace')}")
    return found
