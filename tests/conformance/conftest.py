"""One real daemon for all tests of a module: its busybox answers HTTP with its host name."""

import pytest

from tests.system.daemon import running_daemon
from tests.system.left import left_on_machine

SERVE_HOSTNAME = "hostname > /www/index.html; exec httpd -f -p 80 -h /www"


@pytest.fixture(scope="module")
def daemon():
    with running_daemon() as daemon:
        daemon_id = daemon.request("GET", "/info")[1]["ID"]
        daemon.import_busybox()
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        yield daemon
        daemon.docker("swarm", "leave", "--force")
        assert daemon.request("GET", "/containers/json?all=1")[1] == []
        assert daemon.stop() == 0
        assert left_on_machine(daemon_id, daemon.root) == []


@pytest.fixture
def docker(daemon):
    """Run the docker command and return what it printed; services made meanwhile are removed after the test."""

    def command(*words, **keywords):
        done = daemon.docker(*words, **keywords)
        return done.stdout if done.returncode == 0 else done.stderr

    yield command
    services = command("service", "ls", "-q").split()
    if services:
        command("service", "rm", *services)
