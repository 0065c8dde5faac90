"""Whose something in the kernel is follows from its mark; a living daemon's is no leftover."""

from shoal.daemon.leftovers import Found, left_over
from shoal.network.settings import names_of

ALIVE, GONE = "a" * 25, "b" * 25


def test_only_what_is_nobodys_is_left_over():
    found = [
        Found("the link 1", "r1", mark=names_of(ALIVE).mark),
        Found("the link 2", "r2", mark=names_of(GONE).mark),
        Found("the cgroup 2", "r3", daemon_id=GONE),
        Found("the table 3", "r4", mark="0123ab"),
        Found("the cgroup 1", "r5", daemon_id=ALIVE),
    ]
    left = left_over(found, [ALIVE])
    assert [leftover.removal for leftover in left] == ["r2", "r3", "r4"]
    assert left[0].owner == left[1].owner == f"{GONE} (mark {names_of(GONE).mark})"
    assert left[2].owner == "of the mark 0123ab"
