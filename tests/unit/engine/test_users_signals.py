from __future__ import annotations

import pytest

from shoal.engine.signals import parse_signal
from shoal.engine.users import Identity, resolve
from shoal.errors import InvalidArgument

PASSWD = "root:x:0:0:root:/root:/bin/sh\nbob:x:1000:1001::/home/bob:/bin/sh\n"
GROUP = "root:x:0:\nwheel:x:10:root,bob\nbob:x:1001:\nother:x:50:\n"


@pytest.mark.parametrize(
    ("user", "extra", "expected"),
    [
        ("", (), Identity(uid=0, gid=0, groups=(0, 10), home="/root")),
        ("bob", (), Identity(uid=1000, gid=1001, groups=(1001, 10), home="/home/bob")),
        ("1000", (), Identity(uid=1000, gid=1001, groups=(1001, 10), home="/home/bob")),
        ("bob:other", (), Identity(uid=1000, gid=50, groups=(50,), home="/home/bob")),
        ("4242:77", ("other", "88"), Identity(uid=4242, gid=77, groups=(77, 50, 88))),
        ("4242", (), Identity(uid=4242, gid=0, groups=(0,))),
    ],
)
def test_resolve(user: str, extra: tuple, expected: Identity) -> None:
    assert resolve(user, extra, PASSWD, GROUP) == expected


def test_resolve_refuses_unknown_names() -> None:
    with pytest.raises(InvalidArgument, match="unable to find user eve: no matching entries in passwd file"):
        resolve("eve", (), PASSWD, GROUP)
    with pytest.raises(InvalidArgument, match="unable to find group eve"):
        resolve("bob:eve", (), PASSWD, GROUP)


@pytest.mark.parametrize(
    ("text", "number"),
    [("TERM", 15), ("sigterm", 15), ("9", 9), ("SIGRTMIN+3", 37), ("RTMAX-1", 63), ("RTMIN", 34), ("SIGUSR1", 10)],
)
def test_signals(text: str, number: int) -> None:
    assert parse_signal(text) == number


@pytest.mark.parametrize("text", ["", "0", "65", "NOPE", "RTMIN+99", "-9"])
def test_signals_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="invalid signal"):
        parse_signal(text)
