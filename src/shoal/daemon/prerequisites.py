"""What a node needs besides Python, found missing before anything is started: one line that says what to install."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable

PROGRAMS: dict[str, str] = {"runc": "runc", "skopeo": "skopeo", "nft": "nftables"}


def find_missing(
    which: Callable[[str], str | None] = shutil.which, effective_user_id: Callable[[], int] = os.geteuid
) -> str:
    """Return what stops shoald from starting on this machine, empty if nothing does."""
    if effective_user_id() != 0:
        return "shoald must run as root: it makes namespaces, mounts and cgroups"
    missing = [program for program in PROGRAMS if which(program) is None]
    if not missing:
        return ""
    packages = " ".join(PROGRAMS[program] for program in missing)
    return f"shoald needs {', '.join(missing)}: install with `apt-get install --no-install-recommends {packages}`"
