import pytest

from shoal.network.names import messages
from shoal.network.names.allowance import Allowance
from shoal.network.names.upstream import HostServers, read_servers


def test_an_allowance_fills_with_time():
    allowance = Allowance(0.0, rate=100, most=10)
    assert allowance.refill(0.0) == 10
    allowance.spend(30)
    assert allowance.refill(0.1) == -10
    assert allowance.wait_seconds() == pytest.approx(0.11)
    assert allowance.refill(0.21) == pytest.approx(1)
    assert allowance.wait_seconds() == pytest.approx(0.005), "not more often than is worth its while"
    assert allowance.refill(100.0) == 10


def test_servers_of_the_host(tmp_path):
    assert read_servers("search a\nnameserver 1.1.1.1 # x\nnameserver\nnameserver ::1\n") == ("1.1.1.1", "::1")
    assert read_servers("".join(f"nameserver 10.0.0.{n}\n" for n in range(9))) == ("10.0.0.0", "10.0.0.1", "10.0.0.2")
    file = tmp_path / "resolv.conf"
    host = HostServers(file)
    assert host.servers() == ("127.0.0.1",)
    file.write_text("nameserver 10.9.9.9\n")
    assert host.servers() == ("10.9.9.9",)
    file.write_text("nameserver 10.9.9.10\n")
    assert host.servers() == ("10.9.9.10",)
    file.unlink()
    assert host.servers() == ("127.0.0.1",)


def test_frames():
    request = messages.Stop(forgets=True)
    frame = messages.encode(request)
    assert messages.body_length(frame[:4]) == len(frame) - 4
    assert messages.decode_request(frame[4:]) == request
    with pytest.raises(ValueError, match="above the bound"):
        messages.body_length(b"\xff\xff\xff\xff")
