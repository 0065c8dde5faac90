"""Secrets and configs in containers, as users of the docker command meet them."""

from __future__ import annotations

import base64
import json
import subprocess

import pytest

from tests.conformance.test_docker_command import LOCAL, container_of, create, states, wait_until_updated
from tests.system.daemon import running_daemon, wait_for

pytestmark = pytest.mark.root

SLEEP = ("busybox", "sleep", "1000")
# a word that is nowhere but in a secret
WORD = "xyzzy-geheim-4711"


@pytest.fixture
def payloads(daemon, docker):
    """Make secrets and configs; they are removed after the test, with the services that use them."""

    def made(kind, name, content, *flags):
        done = daemon.docker(kind, "create", *flags, name, "-", input=content)
        return done.stdout.strip()

    yield made
    services = docker("service", "ls", "-q").split()
    if services:
        docker("service", "rm", *services)
    for kind in ("secret", "config"):
        names = docker(kind, "ls", "-q").split()
        if names:
            docker(kind, "rm", *names)


def inside(docker, task_name, *words):
    return docker("exec", container_of(docker, task_name), *words, check=False)


def found_on_disk(root, word):
    """Return the files below `root` that hold `word`: not in mounts, such as a container's view of its own."""
    done = subprocess.run(
        ["find", str(root), "-xdev", "-type", "f", "-exec", "grep", "-l", "-a", "-F", word, "{}", "+"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    return done.stdout.split()


def test_secrets_become_files_as_asked(daemon, docker, payloads):
    payloads("secret", "plain", WORD)
    payloads("secret", "own", WORD + "2")
    payloads("config", "conf", "answer=42")
    create(
        docker, "user", "--secret", "plain", "--secret", "source=own,target=/etc/own/key,uid=33,gid=34,mode=0400",
        "--config", "conf", "--config", "source=conf,target=/etc/app/app.conf,mode=0440,gid=12",
        "--mount", "type=tmpfs,target=/run", "--read-only", *SLEEP,
    )  # fmt: skip
    assert inside(docker, "user.1", "cat", "/run/secrets/plain") == WORD
    assert inside(docker, "user.1", "stat", "-c", "%a %u %g", "/run/secrets/plain") == "444 0 0\n"
    assert inside(docker, "user.1", "stat", "-c", "%a %u %g %s", "/etc/own/key") == f"400 33 34 {len(WORD) + 1}\n"
    assert inside(docker, "user.1", "cat", "/conf", "/etc/app/app.conf") == "answer=42answer=42"
    assert inside(docker, "user.1", "stat", "-c", "%a %u %g", "/etc/app/app.conf") == "440 0 12\n"
    assert "Read-only file system" in inside(docker, "user.1", "sh", "-c", "echo x > /run/secrets/plain")
    mounts = inside(docker, "user.1", "grep", "/run/secrets/plain ", "/proc/mounts")
    assert mounts.split()[2] == "tmpfs"
    seen = daemon.docker("inspect", container_of(docker, "user.1")).stdout + docker("service", "inspect", "user")
    assert WORD not in seen + docker("secret", "inspect", "plain") + daemon.log()
    assert found_on_disk(daemon.data_root, WORD) == []
    refused = docker("secret", "rm", "plain", check=False)
    assert "secret 'plain' is in use by the following service: user" in refused


def test_a_secret_is_added_and_taken_away_by_updates(daemon, docker, payloads):
    payloads("secret", "old", "one")
    payloads("secret", "new", "two")
    create(docker, "changing", "--secret", "old", *SLEEP)
    docker(
        "service", "update", "-d", "--no-resolve-image", "--secret-rm", "old", "--secret-add", "source=new,target=old",
        "changing",
    )  # fmt: skip
    wait_until_updated(docker, "changing")
    assert inside(docker, "changing.1", "cat", "/run/secrets/old") == "two"
    docker("service", "update", "-d", "--no-resolve-image", "--secret-rm", "new", "changing")
    wait_until_updated(docker, "changing")
    assert "No such file" in inside(docker, "changing.1", "ls", "/run/secrets/old")
    assert docker("secret", "rm", "old", "new").split() == ["old", "new"]


def test_templates_are_filled_in_for_each_task(daemon, docker, payloads):
    payloads("secret", "db", "pa55")
    text = (
        '{{ .Service.Name }}.{{ .Task.Slot }} on {{ .Node.Hostname }} as {{ env "ROLE" }}: {{ secret "db" }}'
        '{{ range $k, $v := .Service.Labels }} {{ $k }}={{ $v }}{{ end }}{{ if eq .Task.Slot "1" }} first{{ end }}'
    )
    payloads("config", "text", text, "--template-driver", "golang")
    create(
        docker, "filled", "--replicas", "2", "--secret", "db", "--config", "source=text,target=/text", "-e",
        "ROLE={{.Service.Name}}-role", "--label", "tier=front", *SLEEP,
    )  # fmt: skip
    hostname = docker("node", "ls", "--format", "{{.Hostname}}").strip()
    # Docker's environment, too, is what was asked for, not what it became
    role = "{{.Service.Name}}-role"
    assert inside(docker, "filled.1", "cat", "/text") == f"filled.1 on {hostname} as {role}: pa55 tier=front first"
    assert inside(docker, "filled.2", "cat", "/text") == f"filled.2 on {hostname} as {role}: pa55 tier=front"


def test_a_bad_template_rejects_the_task_and_says_why(daemon, docker, payloads):
    payloads("config", "broken", '{{ secret "none" }}', "--template-driver", "golang")
    docker("service", "create", *LOCAL, "-d", "--name", "rejected", "--config", "broken", *SLEEP)
    wait_for(lambda: "Rejected" in str(states(docker, "rejected")), "the task is rejected")
    assert 'config broken: failed to expand its template: secret "none": the service has no' in str(
        states(docker, "rejected")
    )


def update_data(daemon, kind, name, data):
    """What `docker stack deploy` sends when the file of a secret or config has changed."""
    _, found = daemon.request("GET", f"/{kind}s/{name}")
    body = {**found["Spec"], "Data": base64.b64encode(data.encode()).decode()}
    return daemon.request("POST", f"/{kind}s/{found['ID']}/update?version={found['Version']['Index']}", body)


def test_other_data_rolls_the_services_that_use_it_and_a_rollback_leads_back(daemon, docker, payloads):
    payloads("secret", "turning", "one")
    payloads("config", "still", "same")
    create(docker, "rolls", "--secret", "turning", "--config", "still", *SLEEP)
    create(docker, "stays", "--config", "still", *SLEEP)
    stays = container_of(docker, "stays.1")
    assert update_data(daemon, "secret", "turning", "two")[0] == 200
    wait_until_updated(docker, "rolls")
    assert inside(docker, "rolls.1", "cat", "/run/secrets/turning", "/still") == "twosame"
    assert container_of(docker, "stays.1") == stays
    docker("service", "rollback", "-d", "rolls")
    wait_until_updated(docker, "rolls", "rollback_completed")
    assert inside(docker, "rolls.1", "cat", "/run/secrets/turning") == "one"
    docker("service", "update", "-d", "--no-resolve-image", "--force", "rolls")
    wait_until_updated(docker, "rolls")
    assert inside(docker, "rolls.1", "cat", "/run/secrets/turning") == "two", "an update takes what is there now"
    status, answer = update_data(daemon, "secret", "turning", "x" * 512_000)
    assert (status, "larger than 0 and less than" in answer["message"]) == (400, True)
    assert update_data(daemon, "config", "still", "other")[0] == 200
    wait_until_updated(docker, "rolls")
    wait_until_updated(docker, "stays")
    assert inside(docker, "stays.1", "cat", "/still") == inside(docker, "rolls.1", "cat", "/still") == "other"


def test_bad_templates_are_refused_at_once(daemon, docker):
    made = daemon.docker("config", "create", "--template-driver", "golang", "no", "-", input="{{ if }", check=False)
    assert "config no: its data is no template: unclosed action: {{ if }" in made.stderr
    refused = daemon.docker("service", "create", *LOCAL, "-d", "-e", "A={{.Service.Nope}}", *SLEEP, check=False)
    assert "ContainerSpec.Env: invalid template" in refused.stderr


def test_secrets_outlive_a_killed_daemon_and_leave_with_their_container():
    with running_daemon() as daemon:
        daemon.import_busybox()
        daemon.docker("swarm", "init", "--advertise-addr", "127.0.0.1")
        daemon.docker("secret", "create", "word", "-", input=WORD)
        daemon.docker("service", "create", *LOCAL, "-d", "--name", "keeps", "--secret", "word", *SLEEP)

        def running():
            return daemon.docker("ps", "-q", "--no-trunc", check=False).stdout.split()

        (before,) = wait_for(running, "the task runs")
        daemon.kill()
        assert found_on_disk(daemon.data_root, WORD) == []
        daemon.start()
        wait_for(lambda: running() == [before], "the container was taken up")
        assert daemon.docker("exec", before, "cat", "/run/secrets/word").stdout == WORD
        daemon.docker("kill", before)
        wait_for(lambda: running() not in ([], [before]), "the task was replaced", 40)
        (after,) = running()
        assert daemon.docker("exec", after, "cat", "/run/secrets/word").stdout == WORD
        daemon.docker("service", "rm", "keeps")
        secrets = daemon.exec_root / "secrets"
        wait_for(lambda: not list(secrets.iterdir()), "nothing is left in memory")
        assert found_on_disk(daemon.data_root, WORD) == []
        assert WORD not in json.dumps(daemon.request("GET", "/secrets")[1]) + daemon.log()
        daemon.docker("swarm", "leave", "--force")
        assert daemon.stop() == 0
