"""Several daemons on one machine: each in its namespace, with one image store, none in another's way."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.system.daemon import REPOSITORY, RunningDaemon, running_daemon, wait_for
from tests.system.left import left_on_machine

pytestmark = pytest.mark.root

DAEMONS = 5
SERVING = 3


def serve(daemon: RunningDaemon, page: str) -> None:
    daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
    command = f"echo {page} > /www/index.html; exec httpd -f -p 80 -h /www"
    daemon.docker(
        *("service", "create", "--no-resolve-image", "--detach", "--name", "web", "--stop-grace-period", "1ms"),
        *("--replicas", "2", "-p", "8080:80", "-p", "mode=host,published=9090,target=80", "--replicas-max-per-node"),
        *("2", "busybox", "sh", "-c", command),
        check=False,
    )


def make_and_remove(daemon: RunningDaemon, number: int) -> None:
    for turn in range(2):
        name = f"mine-{number}"
        daemon.import_busybox(name, {"etc/number": f"{turn}"})
        assert daemon.docker("run", "--rm", name, "cat", "/etc/number").stdout == str(turn)
        daemon.docker("rmi", name)


def fetch(daemon: RunningDaemon, port: int) -> str:
    return daemon.execute("curl", "-sS", "--max-time", "5", f"http://127.0.0.1:{port}", check=False).stdout


def test_daemons_share_a_machine_and_an_image_store() -> None:
    with tempfile.TemporaryDirectory(prefix="shoal-images-") as images, ExitStack() as stack:
        daemons = [stack.enter_context(running_daemon("--image-root", images)) for _ in range(DAEMONS)]
        ids = [daemon.request("GET", "/info")[1]["ID"] for daemon in daemons]
        assert len(set(ids)) == DAEMONS
        # One makes the image, all have it.
        daemons[0].import_busybox()
        for daemon in daemons:
            assert "busybox" in daemon.docker("images", "--format", "{{.Repository}}").stdout
        # All make, run and remove images at once, some of the same layers.
        with ThreadPoolExecutor(DAEMONS) as pool:
            list(pool.map(make_and_remove, daemons, range(DAEMONS)))
        assert {path.name for path in (Path(images) / "l").iterdir()} == {"0", "1"}
        for idle in daemons[SERVING:]:
            assert idle.stop() == 0
        daemons = daemons[:SERVING]
        for number, daemon in enumerate(daemons):
            serve(daemon, f"page-{number}")
        for number, daemon in enumerate(daemons):
            wait_for(lambda daemon=daemon: fetch(daemon, 8080) or None, "the published port answers")  # type: ignore[misc]
            assert fetch(daemon, 8080) == f"page-{number}\n", "each daemon's port reaches its own tasks"
            assert fetch(daemon, 9090) == f"page-{number}\n"
        # One leaves and stops: the others go on.
        gone = daemons[0]
        gone.docker("swarm", "leave", "--force")
        gone.docker("image", "prune", "-af")
        refused = gone.docker("rmi", "-f", "busybox", check=False)
        assert "another daemon that shares this image root uses it" in refused.stderr
        assert gone.stop() == 0
        assert left_on_machine(ids[0], gone.root) == [], "a clean stop without containers leaves nothing"
        assert gone.log_path.read_text().count("level=error") == 0
        for number, daemon in enumerate(daemons[1:], start=1):
            assert fetch(daemon, 8080) == f"page-{number}\n"


def test_a_second_daemon_on_the_same_roots_is_refused_in_one_line() -> None:
    with running_daemon() as daemon:
        roots = ["--data-root", str(daemon.data_root), "--exec-root", str(daemon.exec_root)]
        second = subprocess.run(
            [sys.executable, "-m", "shoal.daemon.main", *roots, "-H", f"unix://{daemon.root}/other.sock"],
            capture_output=True,
            text=True,
            check=False,
            timeout=30,
            env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "PYTHONPATH": str(REPOSITORY / "src")},
        )
        assert second.returncode == 1
        assert second.stderr.strip().count("\n") == 0
        assert "another shoald uses" in second.stderr
        assert daemon.request("GET", "/_ping")[0] == 200


def test_a_missing_program_is_named_with_its_package(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "shoal.daemon.main", "--data-root", str(tmp_path / "d"), "--exec-root", str(tmp_path)],
        capture_output=True,
        text=True,
        check=False,
        timeout=30,
        env={"PATH": str(tmp_path), "PYTHONPATH": str(REPOSITORY / "src")},
    )
    assert done.returncode == 1
    assert done.stderr.strip().count("\n") == 0
    assert "runc, skopeo, nft" in done.stderr
    assert "apt-get install --no-install-recommends runc skopeo nftables" in done.stderr
