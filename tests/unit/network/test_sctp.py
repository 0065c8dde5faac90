import socket

import pytest

from shoal.errors import Unavailable
from shoal.network.sctp import require_sctp, sctp_is_supported


def test_a_kernel_with_sctp(monkeypatch):
    pair = socket.socketpair()
    monkeypatch.setattr(socket, "socket", lambda *arguments: pair[0])
    assert sctp_is_supported()
    require_sctp()
    assert pair[0].fileno() == -1, "the descriptor is given back"
    pair[1].close()


def test_a_kernel_without_sctp(monkeypatch):
    def refuse(*arguments):
        assert arguments[2] == 132
        raise OSError(93, "Protocol not supported")

    monkeypatch.setattr(socket, "socket", refuse)
    with pytest.raises(Unavailable, match=r"no SCTP.*modprobe sctp"):
        require_sctp()
