"""A lab for tests: a whole swarm of real shoalds, each on a host of its own, taken away at the end whatever happens.

with running_lab(managers=3, workers=1) as lab:
    lab.node("m1").docker("node", "ls")
    lab.node("m1").kill()
"""

from __future__ import annotations

import contextlib
import secrets
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from shoal.lab.lab import Lab, take_down
from shoal.lab.node import LabNode
from tests.system.swarm import get

LAST_LINES = 25


@contextlib.contextmanager
def running_lab(managers: int, workers: int, environment: Mapping[str, str] | None = None) -> Iterator[Lab]:
    """Run a lab in which every node is in the swarm and has the image `busybox`.

    Args:
        managers: m1, which has made the swarm, m2, …
        workers: w1, w2, …
        environment: more variables of each shoald.
    """
    scratch = Path(tempfile.mkdtemp(prefix="shoal-lab-"))
    name = f"t{secrets.token_hex(4)}"
    try:
        lab = Lab.up(managers=managers, workers=workers, name=name, scratch=scratch, environment=environment)
        yield lab
    except BaseException:
        for log in sorted(scratch.glob("*/shoald.log")):
            lines = log.read_text(errors="replace").splitlines()[-LAST_LINES:]
            print(f"--- {log.parent.name}", *lines, sep="\n")
        raise
    finally:
        take_down(name)
        shutil.rmtree(scratch)


def node_id(node: LabNode) -> str:
    """Return the id of a node in its swarm, by its own word."""
    return str(get(node, "/info")["Swarm"]["NodeID"])


def nodes(manager: LabNode) -> dict[str, dict[str, Any]]:
    """Return the nodes by id, as this manager tells them."""
    return {node["ID"]: node for node in get(manager, "/nodes")}
