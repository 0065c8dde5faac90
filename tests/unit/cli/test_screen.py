import io

import pytest

from shoal.cli.screen import GREEN, RED, YELLOW, paint, share_colour, state_colour, takes_colour


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_colours_stand_on_a_terminal_only():
    assert takes_colour(Terminal(), {})
    assert takes_colour(Terminal(), {"NO_COLOR": "", "TERM": "xterm"})
    assert not takes_colour(io.StringIO(), {"TERM": "xterm"})
    assert not takes_colour(Terminal(), {"NO_COLOR": "1"})
    assert not takes_colour(Terminal(), {"TERM": "dumb"})


def test_what_has_no_colour_is_left_as_it_is(monkeypatch):
    monkeypatch.delenv("NO_COLOR", raising=False)
    monkeypatch.setenv("TERM", "xterm")
    assert paint("web", "", Terminal()) == "web"
    assert paint("", RED, Terminal()) == ""
    assert paint("web", RED, Terminal()) == "\x1b[31mweb\x1b[0m"
    assert paint("web", RED, io.StringIO()) == "web"


@pytest.mark.parametrize(
    ("text", "colour"),
    [
        ("Running 3 minutes ago", GREEN), ("Failed 2 seconds ago", RED), ("Rejected 2 seconds ago", RED), ("Down", RED),
        ("Pending 1 second ago", YELLOW), ("Pause", YELLOW), ("Drain", YELLOW), ("Ready", GREEN),
        ("Shutdown 3 hours ago", ""), ("Preparing 1 second ago", ""), ("Exited (1) 2 hours ago", ""), ("", ""),
        ("Up 3 minutes", GREEN), ("Up 3 minutes (unhealthy)", RED), ("Up 3 minutes (Paused)", YELLOW),
    ],
)  # fmt: skip
def test_states(text, colour):
    assert state_colour(text) == colour


def test_fewer_than_should_run():
    shares = ("2/3", "3/3", "0/0", "4/3", "1/2 (max 1 per node)", "0/3 (3/3 completed)", "none")
    assert [bool(share_colour(text)) for text in shares] == [True, False, False, False, True, True, False]
