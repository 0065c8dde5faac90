"""`shoal` beyond the swarm's nouns: inside containers, over ssh, events, inspect, and what a shell completes."""

import json
import os
import re
import sys
import tarfile
from pathlib import Path

import pytest

from tests.conformance.terminal import check_shell, on_terminal
from tests.system.daemon import REPOSITORY, running_daemon, wait_for, write_shoal_program

pytestmark = pytest.mark.root

SHOAL = (sys.executable, "-m", "shoal.cli.main")


@pytest.fixture(scope="module")
def daemon():
    with running_daemon() as daemon:
        daemon.import_busybox()
        daemon.shoal("swarm", "init", "--advertise-addr", "127.0.0.1")
        daemon.shoal(
            "service", "create", "--quiet", "--name", "web", "--env", "COLOUR=red", "--stop-grace-period", "0s",
            "--no-resolve-image", "--update-monitor", "100ms", "busybox", "sleep", "1000",
        )  # fmt: skip
        yield daemon


@pytest.fixture
def web(daemon):
    """The name of the one container of web."""
    return daemon.shoal("ps", "--filter", "name=web", "--format", "{{.Names}}").stdout.strip()


def environment(daemon):
    return {"DOCKER_HOST": daemon.host, "PYTHONPATH": str(REPOSITORY / "src")}


def test_exec_hands_on_streams_and_exit_code(daemon, web):
    done = daemon.shoal("exec", web, "sh", "-c", "echo $COLOUR; echo wrong >&2; exit 7", check=False)
    assert (done.stdout, done.stderr, done.returncode) == ("red\n", "wrong\n", 7)
    done = daemon.shoal("exec", "-i", "-w", "/tmp", "-e", "A=b", web, "sh", "-c", "cat; pwd; echo $A", input="typed\n")
    assert done.stdout == "typed\n/tmp\nb\n"
    assert daemon.shoal("exec", "-it", web, "sh", check=False).stderr == "the input device is not a TTY\n"


def test_exec_on_a_terminal(daemon, web):
    with on_terminal(*SHOAL, "exec", "-it", web, "sh", environment=environment(daemon)) as terminal:
        check_shell(terminal)


def on_narrow_terminal(daemon, *words, more=None):
    """Return what a command prints on a terminal of 70 columns, by lines."""
    told = environment(daemon) | {"TERM": "xterm", "NO_COLOR": ""} | (more or {})
    with on_terminal(*SHOAL, *words, environment=told, size=(30, 70)) as terminal:
        assert terminal.wait() == 0
        return terminal.said.split("\r\n")[:-1]


def test_a_table_fits_the_terminal_it_is_on(daemon):
    whole = daemon.shoal("service", "ps", "--no-trunc", "web").stdout
    assert max(map(len, whole.splitlines())) > 70
    shown = on_narrow_terminal(daemon, "service", "ps", "web", more={"NO_COLOR": "1"})
    assert max(map(len, shown)) <= 70
    assert shown[0].startswith("ID            NAME   ")
    assert "  DESIRE…  " in shown[0]
    assert shown[1].startswith(f"{whole.splitlines()[1][:12]}  web.1  ")
    longer = on_narrow_terminal(daemon, "service", "ps", "--no-trunc", "web", more={"NO_COLOR": "1"})
    # the time in CURRENT STATE goes on, and widens its column
    assert longer[0].split() == whole.splitlines()[0].split()
    assert max(map(len, longer)) > 70
    template = "{{.ID}} {{.Image}} {{.Name}} {{.CurrentState}} {{.Node}} {{.DesiredState}} {{.Image}} end"
    assert on_narrow_terminal(daemon, "service", "ps", "--format", template, "web")[0].endswith(" end")


def test_colours_on_a_terminal(daemon):
    green, red, plain = "\x1b[32m", "\x1b[31m", "\x1b[0m"
    assert f"{green}Ready{plain} " in on_narrow_terminal(daemon, "node", "ls")[1]
    for no_colour in ({"NO_COLOR": "1"}, {"TERM": "dumb"}):
        assert "\x1b[" not in "".join(on_narrow_terminal(daemon, "node", "ls", more=no_colour))
    told = environment(daemon) | {"TERM": "xterm", "NO_COLOR": ""}
    with on_terminal(*SHOAL, "service", "update", "none", environment=told) as terminal:
        terminal.wait_for(f"{red}Error response from daemon:{plain} ")
        assert terminal.wait() == 1


def test_progress_on_a_terminal(daemon):
    shown = on_narrow_terminal(daemon, "service", "update", "--force", "web", more={"NO_COLOR": "1"})
    assert any(line.endswith(f"1/1: running   [{'=' * 24}>]") for line in shown)
    assert "\x1b[2K" in "".join(shown)
    shown = on_narrow_terminal(daemon, "service", "update", "--force", "web", more={"TERM": "dumb"})
    assert "1/1: running" in shown
    assert "\x1b" not in "".join(shown)


def test_what_goes_on_in_a_container(daemon, web):
    assert "sleep 1000" in daemon.shoal("top", web).stdout
    shown = daemon.shoal("stats", "--no-stream", "--format", "{{.Name}} {{.PIDs}} {{.MemUsage}}", web).stdout
    assert re.fullmatch(rf"{web} \d+ [\d.]+KiB / [\d.]+GiB\n", shown)


def test_inspect_finds_what_has_the_name(daemon, web):
    assert daemon.shoal("inspect", "--format", "{{.State.Status}}", web).stdout == "running\n"
    assert json.loads(daemon.shoal("inspect", "web").stdout)[0]["Spec"]["Name"] == "web"
    assert daemon.shoal("inspect", "--format", "{{.Driver}}", "ingress").stdout == "overlay\n"
    assert daemon.shoal("inspect", "nothing", check=False).stderr.endswith("No such object: nothing\n")
    assert "use one of container, image" in daemon.shoal("inspect", "--type", "odd", "web", check=False).stderr


def test_events_are_remembered(daemon):
    shown = daemon.shoal(
        "events", "--since", "1h", "--until", "0s", "--filter", "type=service", "--format",
        "{{.Action}} {{.Actor.Attributes.name}}",
    ).stdout  # fmt: skip
    assert "create web\n" in shown
    assert "--since" in daemon.shoal("events", "--since", "soon", check=False).stderr


def test_formats_are_gos_templates(daemon):
    words = ("service", "ls", "--format", '{{if eq .Mode "replicated"}}{{upper .Name}}{{end}}')
    assert daemon.shoal(*words).stdout == "WEB\n"
    words = ("node", "inspect", "self", "--format", "{{range .Description.Engine.Plugins}}{{println .Type}}{{end}}")
    assert "Network" in daemon.shoal(*words).stdout


@pytest.fixture
def programs(tmp_path):
    """A directory for the PATH with a `shoal`, and an `ssh` that runs on this machine what it should run on another."""
    write_shoal_program(tmp_path)
    ssh = tmp_path / "ssh"
    skips_to_the_command = 'while [ "$1" != -- ]; do shift; done; shift 2; exec "$@"'
    ssh.write_text(f'#!/bin/sh\necho "$@" >>{tmp_path}/asked\n{skips_to_the_command}\n')
    ssh.chmod(0o755)
    return tmp_path


def run_with(daemon, programs: Path, *command: str, **keywords):
    path = f"{programs}:{os.environ['PATH']}"
    return daemon.execute("env", f"PATH={path}", *command, **keywords)


def test_a_daemon_is_reached_over_ssh(daemon, programs, web):
    over_ssh = ("-H", f"ssh://ann@host.test:2222{daemon.socket_path}")
    assert run_with(daemon, programs, "shoal", *over_ssh, "service", "ls", "--format", "{{.Name}}").stdout == "web\n"
    done = run_with(daemon, programs, "shoal", *over_ssh, "exec", "-i", web, "cat", input="through\n")
    assert done.stdout == "through\n"
    asked = (programs / "asked").read_text().splitlines()[0]
    assert asked == f"-l ann -p 2222 -- host.test shoal -H unix://{daemon.socket_path} system dial-stdio"


def offered(daemon, programs, *words):
    """Return what a shell is offered for the last word."""
    asked = {"_SHOAL_COMPLETE": "bash_complete", "COMP_WORDS": " ".join(words), "COMP_CWORD": str(len(words) - 1)}
    settings = [f"{key}={value}" for key, value in asked.items()]
    shown = run_with(daemon, programs, "env", *settings, "shoal").stdout
    return [line.partition(",")[2] for line in shown.splitlines()]


def test_a_shell_completes_commands_flags_and_names(daemon, programs):
    assert offered(daemon, programs, "shoal", "serv") == ["service"]
    assert offered(daemon, programs, "shoal", "service", "ro") == ["rollback"]
    assert offered(daemon, programs, "shoal", "service", "rm", "w") == ["web"]
    assert offered(daemon, programs, "shoal", "service", "create", "--update-or") == ["--update-order"]
    assert offered(daemon, programs, "shoal", "service", "create", "--update-order", "start") == ["start-first"]
    assert offered(daemon, programs, "shoal", "service", "create", "--network", "ing") == ["ingress"]
    assert not [word for word in offered(daemon, programs, "shoal", "service", "ls", "--") if word.startswith("--not-")]
    for shell in ("bash", "zsh", "fish"):
        assert "_SHOAL_COMPLETE" in run_with(daemon, programs, "shoal", "completion", shell).stdout


def test_a_shell_reads_the_script(daemon, programs):
    typed = "COMP_WORDS=(shoal service rm w); COMP_CWORD=3; _shoal_completion shoal"
    script = f'eval "$(shoal completion bash)"; {typed}; echo "$COMPREPLY"'
    assert run_with(daemon, programs, "bash", "-c", script).stdout == "web\n"


def test_a_container_joins_a_network_by_shoal(daemon):
    daemon.shoal("network", "create", "--attachable", "back")
    daemon.docker("run", "--detach", "--name", "toolbox", "busybox", "sleep", "1000")
    daemon.shoal("network", "connect", "--alias", "tools", "back", "toolbox")
    networks = json.loads(daemon.docker("inspect", "toolbox").stdout)[0]["NetworkSettings"]["Networks"]
    assert "tools" in networks["back"]["Aliases"]
    daemon.shoal("network", "disconnect", "back", "toolbox")
    daemon.docker("rm", "--force", "toolbox")
    wait_for(lambda: daemon.shoal("network", "rm", "back", check=False).returncode == 0, "the network can go")


def test_what_was_changed_and_what_takes_room(daemon):
    """As docker says it; an answer other than `y` removes nothing."""
    daemon.docker("run", "--name", "done", "busybox", "sh", "-c", "echo hi > /tmp/new; rm /etc/passwd")
    for words in (
        ("diff", "done"),
        ("history", "--human=false", "busybox"),
        ("history", "--format", "{{.ID}} {{.CreatedAt}} {{.CreatedBy}} {{.Size}} {{.Comment}}", "busybox"),
        ("system", "df"),
        ("system", "df", "--format", "json"),
        ("ps", "--all", "--format", "{{.Names}} {{.Size}} {{.Mounts}} {{.LocalVolumes}} {{.Networks}} {{.CreatedAt}}"),
    ):
        assert daemon.shoal(*words).stdout == daemon.docker(*words).stdout, words
    assert " done" in daemon.shoal("system", "df", "--verbose").stdout
    for kind in ("container", "image", "system"):
        asked = daemon.shoal(kind, "prune", input="no\n")
        told = daemon.docker(kind, "prune", input="no\n").stdout
        assert asked.stdout == told.replace("  - unused build cache\n", "")
    assert daemon.shoal("ps", "--all", "--quiet", "--filter", "name=done").stdout
    removed = daemon.shoal("container", "prune", input="y\n").stdout
    assert re.search(
        r"\nDeleted Containers:\n[0-9a-f]{64}\n\nTotal reclaimed space: 3B\n$", removed.replace("] ", "]\n")
    )


def test_images_by_name(daemon):
    daemon.shoal("tag", "busybox", "other:1")
    assert daemon.shoal("images", "--format", "{{.Repository}}:{{.Tag}}", "oth*").stdout == "other:1\n"
    fields = ("Repository", "Tag", "Digest", "VirtualSize", "Containers")
    words = ("images", "--format", "table " + r"\t".join(f"{{{{.{name}}}}}" for name in fields))
    ours, theirs = (command(*words).stdout.splitlines() for command in (daemon.shoal, daemon.docker))
    # docker takes the names of one image in any order, as they come out of a map
    assert (ours[0], sorted(ours)) == (theirs[0], sorted(theirs))
    for words in (
        ("images", "-q", "busybox:none"),
        ("volume", "ls", "--format", "json"),
        ("network", "ls", "--format", "json"),
        ("secret", "ls"),
    ):
        assert daemon.shoal(*words).stdout == daemon.docker(*words).stdout, words
    daemon.shoal("rmi", "other:1")


def test_archives_of_containers_and_images(daemon, web):
    exported, saved = daemon.root / "web.tar", daemon.root / "saved.tar"
    daemon.shoal("export", "--output", str(exported), web)
    with tarfile.open(exported) as archive:
        assert "bin/busybox" in archive.getnames()
    refused = daemon.shoal("export", "--output", str(saved), "nothing", check=False)
    assert (refused.returncode, saved.exists()) == (1, False)
    daemon.shoal("tag", "busybox", "other:1")
    daemon.shoal("save", "--output", str(saved), "other:1")
    daemon.shoal("rmi", "other:1")
    assert "Loaded image: other:1" in daemon.shoal("load", "--input", str(saved)).stdout
    daemon.shoal("rmi", "other:1")
    daemon.shoal("import", str(exported), "spare:1")
    assert "Deleted Images:\nuntagged: spare:1\ndeleted: sha256:" in daemon.shoal("image", "prune", "-af").stdout
    with on_terminal(*SHOAL, "save", "busybox", environment=environment(daemon)) as terminal:
        terminal.wait_for("cowardly refusing to save to a terminal")
        assert terminal.wait() == 1


def test_a_system_is_tidied(daemon):
    daemon.docker("run", "--name", "done", "busybox", "true")
    daemon.docker("volume", "create")
    daemon.docker("network", "create", "--driver", "bridge", "idle")
    done = daemon.shoal("system", "prune", "--force", "--volumes", "--filter", "label!=kept").stdout
    assert re.fullmatch(
        r"Deleted Containers:\n[0-9a-f]{64}\n\nDeleted Networks:\nidle\n\nDeleted Volumes:\n[0-9a-f]{64}\n\n"
        r"Total reclaimed space: \S+\n",
        done,
    )
    assert "until" in daemon.shoal("system", "prune", "--volumes", "--filter", "until=1h", check=False).stderr


def test_refusals_of_both_commands_are_alike(daemon):
    for words in (
        ("service", "inspect", "none"),
        ("service", "ps", "none", "web", "--format", "{{.Name}}"),
        ("service", "rm", "none", "neither"),
        ("service", "scale", "none=2"),
        ("volume", "inspect", "none"),
        ("rmi", "none"),
        ("swarm", "leave"),
    ):
        ours, theirs = daemon.shoal(*words, check=False), daemon.docker(*words, check=False)
        assert (ours.stdout, ours.stderr, ours.returncode) == (theirs.stdout, theirs.stderr, theirs.returncode), words
    for words in (("service", "creat"), ("service", "rm"), ("node", "ls", "x"), ("service", "ls", "-f", "bogus"),
                  ("info", "--format", "{{.Nope}}"), ("service",)):  # fmt: skip
        assert daemon.shoal(*words, check=False).returncode == daemon.docker(*words, check=False).returncode, words


def test_life_of_a_container_by_shoal(daemon, programs):
    daemon.docker("run", "--detach", "--name", "first", "busybox", "sleep", "1000")
    seen = []
    for words in (
        ("pause", "first"), ("unpause", "first"), ("rename", "first", "second"), ("restart", "-t", "0", "second"),
        ("kill", "--signal", "KILL", "second"), ("wait", "second"), ("start", "second"), ("rm", "second"),
        ("stop", "--timeout", "0", "nothing", "second"), ("rm", "second"), ("rm", "--force", "second"),
    ):  # fmt: skip
        done = daemon.shoal(*words, check=False)
        seen.append((done.stdout.strip(), done.returncode))
        if words[0] == "wait":
            assert offered(daemon, programs, "shoal", "start", "sec") == ["second"]
            assert "second" not in offered(daemon, programs, "shoal", "exec", "sec")
    assert seen == [
        ("first", 0), ("first", 0), ("", 0), ("second", 0), ("second", 0), ("137", 0), ("second", 0), ("", 1),
        ("second", 1), ("second", 0), ("", 0),
    ]  # fmt: skip
