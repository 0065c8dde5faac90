"""Entry of the keeper: `python -m shoal.engine.keeper --exec-root DIRECTORY --data-root DIRECTORY --name NAME`.

The engine starts it when none answers. A lock held for life makes it the only one of its exec root.
"""

from __future__ import annotations

import fcntl
import os
import sys

from shoal.engine.keeper.keeper import Keeper
from shoal.lib.cgroups import move_to_own, remove_own

LOCK_FILE = "keeper.lock"
SOCKET_FILE = "keeper.sock"


def _arguments(words: list[str]) -> dict[str, str]:
    values = dict(zip(words[0::2], words[1::2], strict=False))
    if len(words) % 2 or set(values) != {"--exec-root", "--data-root", "--name"}:
        sys.exit("usage: python -m shoal.engine.keeper --exec-root DIRECTORY --data-root DIRECTORY --name NAME")
    return values


def main() -> None:
    """Run the keeper until it is told to stop."""
    values = _arguments(sys.argv[1:])
    exec_root, data_root = values["--exec-root"], values["--data-root"]
    os.chdir("/")
    lock = os.open(f"{exec_root}/{LOCK_FILE}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        sys.exit("another keeper serves this exec root")
    move_to_own(values["--name"])
    Keeper(f"{exec_root}/{SOCKET_FILE}", f"{data_root}/containers").run()
    remove_own(values["--name"])


if __name__ == "__main__":
    main()
