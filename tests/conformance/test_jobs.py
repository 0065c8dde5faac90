"""Jobs under the stock docker command and under shoal, with real containers."""

import json
import re

import pytest

from tests.system.daemon import wait_for

pytestmark = pytest.mark.root

LOCAL = ("--no-resolve-image", "--stop-grace-period", "0s")
LISTED = ("service", "ls", "--format", "{{.Name}}|{{.Mode}}|{{.Replicas}}")
COUNTS = ("--mode", "replicated-job", "--replicas", "5", "--max-concurrent", "2")


def states(docker, service):
    lines = docker("service", "ps", "--format", "{{.Name}}|{{.DesiredState}}|{{.CurrentState}}", service)
    return [line.split("|") for line in lines.splitlines()]


def test_a_replicated_job_is_waited_for_until_it_is_complete(daemon, docker):
    done = daemon.docker("service", "create", *LOCAL, *COUNTS, "--name", "count", "busybox", "true")
    assert done.returncode == 0
    assert "job complete" in done.stdout
    assert docker(*LISTED) == "count|replicated job|0/2 (5/5 completed)\n"
    tasks = states(docker, "count")
    assert len(tasks) == 5
    assert all(desired == "Complete" and state.startswith("Complete") for _, desired, state in tasks)
    again = daemon.docker("service", "update", "--force", "count")
    assert "job complete" in again.stdout
    status = json.loads(docker("service", "inspect", "count"))[0]["JobStatus"]
    assert status["JobIteration"] == {"Index": 1}
    assert len(states(docker, "count")) == 5, "the first run is forgotten"


def test_a_job_that_fails_is_tried_again_until_its_attempts_are_used_up(docker):
    policy = ("--restart-delay", "0s", "--restart-max-attempts", "1")
    docker("service", "create", "-d", *LOCAL, *policy, "--mode", "replicated-job", "--name", "bad", "busybox", "false")
    wait_for(
        lambda: [state[2].split()[0] for state in states(docker, "bad")] == ["Failed", "Failed"], "two attempts failed"
    )
    assert docker(*LISTED) == "bad|replicated job|0/1 (0/1 completed)\n"


def test_a_global_job_runs_once_a_node(daemon, docker):
    done = daemon.docker("service", "create", *LOCAL, "--mode", "global-job", "--name", "each", "busybox", "true")
    assert "job complete" in done.stdout
    assert docker(*LISTED) == "each|global job|0/0 (1/1 completed)\n"
    assert re.fullmatch(r"Complete .* ago", states(docker, "each")[0][2])


def test_shoal_waits_for_a_job(daemon, docker):
    done = daemon.shoal("service", "create", *LOCAL, *COUNTS, "--name", "count", "busybox", "true")
    assert done.returncode == 0, done.stderr
    assert "job progress: 5 out of 5 complete" in done.stdout
    assert "job complete" in done.stdout


def test_a_job_runs_at_its_times(docker):
    times = ("--label", "swarm.cronjob.enable=true", "--label", "swarm.cronjob.schedule=* * * * * *")
    kept = ("--label", "shoal.cron.history=1", "--mode", "replicated-job")
    docker("service", "create", "-d", *LOCAL, *times, *kept, "--name", "often", "busybox", "true")

    def runs():
        status = json.loads(docker("service", "inspect", "often"))[0]["JobStatus"]
        return status["JobIteration"].get("Index", 0)

    wait_for(lambda: runs() >= 2, "two runs after the first")
    complete = ("service", "ps", "--format", "{{.CurrentState}}", "often")
    wait_for(lambda: docker(*complete).count("Complete") == 2, "two runs are kept")
    # a replicated service, made with no task, is run as swarm-cronjob runs it
    once = ("--replicas", "0", "--restart-condition", "none")
    docker("service", "create", "-d", *LOCAL, *times, *once, "--name", "tick", "busybox", "true")
    wait_for(lambda: any(state.startswith("Complete") for _, _, state in states(docker, "tick")), "a run of a service")
    refused = docker("service", "update", "--label-add", "swarm.cronjob.schedule=never", "often", check=False)
    assert 'service label swarm.cronjob.schedule: "never"' in refused
