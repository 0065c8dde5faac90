"""A swarm in a file: written while it runs, sealed, and a swarm again on a node that never saw it."""

from __future__ import annotations

import pytest

from tests.system.daemon import wait_for
from tests.system.lab import node_id, nodes
from tests.system.swarm import create, get, running
from tests.system.test_many_nodes import running_swarm

pytestmark = pytest.mark.root


def test_backup_and_restore(tmp_path):
    passphrase, wrong, file = tmp_path / "passphrase", tmp_path / "wrong", tmp_path / "swarm.backup"
    passphrase.write_text("correct horse\n")
    wrong.write_text("battery staple\n")
    with running_swarm(2, 1) as (first, second, worker):
        first.docker("swarm", "update", "--dispatcher-heartbeat", "1s")
        service = create(first, "web", ["sleep", "999"], replicas=3)
        wait_for(lambda: len(running(first, service)) == 3, "they run")
        refused = second.shoal("swarm", "backup", str(file), check=False)
        assert "--passphrase-file" in refused.stderr
        assert not file.exists()
        # the follower writes it, and what was written a moment before is in it
        create(first, "late", ["sleep", "999"], replicas=0)
        second.shoal("swarm", "backup", "--passphrase-file", str(passphrase), str(file))
        content = file.read_bytes()
        assert b"late" not in content
        assert b"PRIVATE KEY" not in content
        assert file.stat().st_mode & 0o77 == 0

        # both managers are lost for good; the host of the second begins anew with the file
        ids = {host.address: node_id(host) for host in (first, second, worker)}
        first.kill_daemon()
        second.docker("swarm", "leave", "--force")
        restore = ("swarm", "restore", str(file), "--passphrase-file")
        for options, words in (
            ((str(wrong),), "the passphrase does not open this backup"),
            ((str(tmp_path / "absent"),), "No such file"),
        ):
            assert words in second.shoal(*restore, *options, check=False).stderr
        for damage, words in (
            (content[:-100], "cut"),
            (content[:-200] + bytes(100) + content[-100:], "was changed"),
            (b"x" + content, "no backup"),
        ):
            file.write_bytes(damage)
            assert words in second.shoal(*restore, str(passphrase), check=False).stderr
            assert get(second, "/info")["Swarm"]["LocalNodeState"] == "inactive"
        file.write_bytes(content)
        elsewhere = second.shoal(*restore, str(passphrase), "--listen-addr", "192.0.2.1:2377", check=False)
        assert "cannot listen on 192.0.2.1:2377" in elsewhere.stderr
        second.restart()
        assert get(second, "/info")["Swarm"]["LocalNodeState"] == "inactive"
        assert "Swarm restored" in second.shoal(*restore, str(passphrase)).stdout
        assert node_id(second) == ids[second.address]
        assert {one["Spec"]["Name"] for one in get(second, "/services")} == {"web", "late"}
        # the worker finds it again, keeps its task, and takes new ones
        wait_for(lambda: nodes(second)[ids[worker.address]]["Status"]["State"] == "ready", "the worker is back")
        wait_for(lambda: nodes(second)[ids[first.address]]["Status"]["State"] == "down", "the other is missed")

        def runs_on_two() -> bool:
            now = running(second, service)
            return len(now) == 3 and {task["NodeID"] for task in now} == {ids[second.address], ids[worker.address]}

        wait_for(runs_on_two, "all run")
        second.restart()
        wait_for(runs_on_two, "all run after a restart")
        assert sum("ManagerStatus" in node for node in nodes(second).values()) == 1
