import pytest

from shoal.cli.main import COMMANDS, main, shoal
from tests.unit.cli.command_line import flags_of


def run(capsys, *words):
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    out, err = capsys.readouterr()
    return ended.value.code, out, err


def test_every_command_can_be_imported_and_shows_help(capsys):
    context = shoal.make_context("shoal", ["version"])
    for name in COMMANDS:
        command = shoal.get_command(context, name)
        subcommands = command.list_commands(context) if name in ("swarm", "node", "service", "lab") else [None]
        for subcommand in subcommands:
            words = [name, *([subcommand] if subcommand else []), "--help"]
            code, out, _ = run(capsys, *words)
            assert code == 0
            assert out.startswith(f"Usage:  shoal {' '.join(words[:-1])}")


def test_help_has_dockers_layout(capsys):
    _, out, _ = run(capsys, "service", "ls", "--help")
    assert out == (
        "Usage:  shoal service ls [OPTIONS]\n\n"
        "List services\n\n"
        "Aliases:\n  shoal service ls, shoal service list\n\n"
        "Options:\n"
        "  -f, --filter filter   Condition on what is listed\n"
        "      --format string   json, or a template such as {{.Name}}\n"
        "  -q, --quiet           Ids only\n\n"
        "Example:\n  shoal service ls --format '{{.Name}} {{.Replicas}}'\n"
    )


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["service", "ls", "--quite"], "unknown flag: --quite. Did you mean --quiet?\nSee 'shoal service ls --help'."),
        (
            ["service", "create", "--replicas", "many", "x"],
            """invalid argument "many" for "--replicas" flag: invalid syntax: use a whole number
See 'shoal service create --help'.""",
        ),
        (
            ["service", "ls", "--filter", "bogus"],
            """invalid argument "bogus" for "--filter" flag: invalid filter "bogus": write key=value
See 'shoal service ls --help'.""",
        ),
        (
            ["service", "create", "--detach=maybe", "x"],
            'invalid argument "maybe" for "--detach" flag: use true or false\nSee \'shoal service create --help\'.',
        ),
    ],
)
def test_what_is_not_understood_is_said_with_a_way_out(capsys, words, text):
    assert run(capsys, *words) == (125, "", f"{text}\n")


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["servise", "ls"], "unknown command: shoal servise. Did you mean service?\nSee 'shoal --help'."),
        (["service", "lss"], "unknown command: shoal service lss. Did you mean ls?\nSee 'shoal service --help'."),
        (["service", "create"], "'shoal service create' requires at least 1 argument\n\nUsage:  shoal service create"),
        (["network", "create", "a", "b"], "'shoal network create' requires 1 argument\n\nUsage:  shoal network"),
        (["volume", "create", "a", "b"], "'shoal volume create' requires at most 1 argument\n\nUsage:  shoal volume"),
        (["node", "ls", "x"], "'shoal node ls' accepts no arguments\n\nUsage:  shoal node ls [OPTIONS]\n\nSee 'shoal"),
        (["network", "connect", "a"], "'shoal network connect' requires 2 arguments\n\nUsage:  shoal network connect"),
    ],
)
def test_words_too_few_or_too_many_are_docker_s_other_code(capsys, words, text):
    code, out, err = run(capsys, *words)
    assert (code, out) == (1, "")
    assert err.startswith(text)


def test_a_group_by_itself_shows_its_commands(capsys):
    code, out, err = run(capsys, "service")
    assert (code, out) == (0, "")
    assert err.startswith("Usage:  shoal service COMMAND\n")


def test_the_lab_needs_root_and_shows_examples(capsys, monkeypatch):
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    for name in ("up", "status", "kill", "partition", "exec", "down"):
        code, out, _ = run(capsys, "lab", name, "--help")
        assert code == 0
        assert "\nExample:\n  " in out
    said = "shoal lab needs root: it makes network namespaces; try it with sudo\n"
    assert run(capsys, "lab", "up") == (1, "", said)
    assert run(capsys, "lab", "kill", "m1") == (1, "", said)


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (["up", "--name", "My Lab"], 1, '--name "My Lab": use a letter'),
        (["up", "--managers", "0"], 1, "--managers 0: a lab has one manager at least"),
        (["up", "--managers", "three"], 125, 'invalid argument "three" for "--managers" flag'),
        (["status"], 1, 'there is no lab "lab": make it with `shoal lab up`'),
        (["partition", "m1", "--one-way", "up"], 125, "use in (the node hears nothing) or out (the node is not heard)"),
        (["env"], 1, "NODE is missing: shoal lab env m1 (or --unset)"),
    ],
)
def test_what_the_lab_cannot_do(capsys, monkeypatch, tmp_path, words, code, said):
    monkeypatch.setattr("os.geteuid", lambda: 0)
    monkeypatch.setattr("shoal.lab.state.ROOT", tmp_path / "labs")
    monkeypatch.setattr("shoal.lab.kernel.networks_in_use", list)
    monkeypatch.delenv("SHOAL_LAB", raising=False)
    ended = run(capsys, "lab", *words)
    assert ended[0] == code
    assert said in ended[2]
    assert not list(tmp_path.iterdir())


def test_no_daemon(capsys, tmp_path):
    code, _, err = run(capsys, "-H", f"unix://{tmp_path}/no.sock", "service", "ls")
    assert code == 1
    assert "Is shoald running?" in err


def test_host_of_the_environment(capsys, tmp_path, monkeypatch):
    monkeypatch.setenv("DOCKER_HOST", "nonsense")
    refusal = 'host "{}": use unix:///path, tcp://address:port or ssh://user@host\n'
    assert run(capsys, "node", "ls") == (1, "", refusal.format("nonsense"))
    monkeypatch.setenv("SHOAL_HOST", "other")
    assert run(capsys, "node", "ls") == (1, "", refusal.format("other"))
    assert run(capsys, "-H", "third", "node", "ls") == (1, "", refusal.format("third"))


def test_switches_take_true_and_false():
    assert flags_of("create", "--detach=false", "-t", "x")[0]["detach"] is False
    assert flags_of("create", "--detach=true", "x")[0]["detach"] is True
    assert flags_of("create", "x")[0]["detach"] is None


def test_flags_of_create_end_at_the_image():
    given, image, arguments = flags_of(
        "create", "--name", "a", "-e", "A=--detach=1", "img", "cmd", "--detach=maybe", "-q"
    )
    assert (image, arguments) == ("img", ("cmd", "--detach=maybe", "-q"))
    assert given["detach"] is None
    assert given["env"] == ("A=--detach=1",)
    assert flags_of("update", "web", "--detach=true")[0]["detach"] is True
