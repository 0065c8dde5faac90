"""A swarm is upgraded node by node while clients write: no task restarts, no acknowledged write is lost.

From the newest release tag of this repository (`v*`, with a lab in it) to the code that is here; without such a tag
from this code to itself, which is a rolling restart.
"""

from __future__ import annotations

import subprocess
import threading
from pathlib import Path
from typing import Self

import pytest

from shoal.lab.node import LabNode
from shoal.model.base import replace
from tests.system.daemon import REPOSITORY, wait_for
from tests.system.lab import node_id, nodes, running_lab
from tests.system.swarm import create, get, running

pytestmark = pytest.mark.root


def git(*arguments: str) -> bytes:
    done = subprocess.run(["git", "-C", str(REPOSITORY), *arguments], capture_output=True, check=False)
    return done.stdout if done.returncode == 0 else b""


def old_source(folder: Path) -> Path:
    """Return the source of the version to upgrade from."""
    for tag in git("tag", "--list", "v*", "--sort=-creatordate").decode().split():
        if git("ls-tree", tag, "src/shoal/lab/"):
            subprocess.run(["tar", "-x", "-C", str(folder)], input=git("archive", tag, "src"), check=True)
            return folder / "src"
    return REPOSITORY / "src"


class Writer:
    """Creates services through one manager after the other, and remembers what was acknowledged."""

    def __init__(self, managers: list[LabNode]) -> None:
        self._managers = managers
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.acknowledged: set[str] = set()
        self.refused: list[tuple[int, object]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(60)

    def _run(self) -> None:
        number = 0
        while not self._stop.wait(0.02):
            number += 1
            name = f"written{number}"
            container = {"Image": "busybox", "Args": ["sleep", "999"]}
            spec = {
                "Name": name,
                "TaskTemplate": {"ContainerSpec": container},
                "Mode": {"Replicated": {"Replicas": 0}},
            }
            try:
                status, answer = self._managers[number % len(self._managers)].request("POST", "/services/create", spec)
            except Exception:
                # the manager that was asked is being restarted: nobody knows whether it was made
                continue
            if status == 201:
                self.acknowledged.add(name)
            else:
                self.refused.append((status, answer))


def test_upgrade_under_load(tmp_path):
    before_path, now_path = old_source(tmp_path), REPOSITORY / "src"
    with running_lab(3, 1, environment={"PYTHONPATH": str(before_path)}) as lab:
        managers = [lab.node(f"m{number}") for number in (1, 2, 3)]
        first = managers[0]
        service = create(first, "web", ["sleep", "999"], replicas=6)
        wait_for(lambda: len(running(first, service)) == 6, "they run")
        tasks = {task["ID"] for task in running(first, service)}
        started = {one["Id"]: one["Created"] for node in lab.nodes for one in get(node, "/containers/json")}

        first._file.change(lambda state: replace(state, environment={"PYTHONPATH": str(now_path)}))
        own = {node_id(node): node for node in lab.nodes}
        with Writer(managers) as writer:
            leader = next(own[id_] for id_, node in nodes(first).items() if node.get("ManagerStatus", {}).get("Leader"))
            followers = [node for node in managers if node is not leader]
            for node in (*followers, leader, lab.node("w1")):
                count = len(writer.acknowledged)
                node.restart()

                def is_well() -> bool:
                    return all(
                        n["Status"]["State"] == "ready"
                        and n.get("ManagerStatus", {}).get("Reachability") in (None, "reachable")
                        for n in nodes(managers[0]).values()
                    )

                wait_for(is_well, "all is well", 30)
                wait_for(lambda count=count: len(writer.acknowledged) > count + 5, "writes go on", 30)
        assert {task["ID"] for task in running(first, service)} == tasks
        assert {one["Id"]: one["Created"] for node in lab.nodes for one in get(node, "/containers/json")} == started
        for node in managers:
            assert writer.acknowledged <= {each["Spec"]["Name"] for each in get(node, "/services")}
        assert not [status for status, _ in writer.refused if status != 503], writer.refused
