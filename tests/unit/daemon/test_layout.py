from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from shoal.daemon.addresses import choose_advertise_address, resolve, split_address
from shoal.daemon.layout import DISK_FORMAT, Layout, SwarmMembership
from shoal.errors import Conflict, InvalidArgument
from shoal.lib.files import write_atomically
from shoal.lib.ids import Ids


def make(tmp_path: Path) -> Layout:
    return Layout(tmp_path / "data", tmp_path / "exec")


def test_the_id_of_a_daemon_stays(tmp_path: Path) -> None:
    layout = make(tmp_path)
    first = layout.open(Ids())
    layout.close()
    assert layout.open(Ids()) == first
    layout.close()
    assert (tmp_path / "data" / "FORMAT").read_text() == f"{DISK_FORMAT}\n"


def test_a_second_daemon_is_kept_out_until_the_first_has_gone(tmp_path: Path) -> None:
    first, second = make(tmp_path), make(tmp_path)
    first.open(Ids())
    with pytest.raises(Conflict, match=r"another shoald uses .*: give this one another --data-root"):
        second.open(Ids())
    first.close()
    second.open(Ids())
    second.close()


def test_a_newer_layout_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "FORMAT").write_text(f"{DISK_FORMAT + 1}\n")
    layout = make(tmp_path)
    with pytest.raises(Conflict, match=f"newer shoald \\(format {DISK_FORMAT + 1}, this knows {DISK_FORMAT}\\)"):
        layout.open(Ids())
    assert not (tmp_path / "data" / "daemon-id").exists()
    layout.close()


def test_membership_is_remembered(tmp_path: Path) -> None:
    layout = make(tmp_path)
    assert layout.read_membership() is None
    membership = SwarmMembership(node_id="n", cluster_id="c", raft_id=1, advertise_address="a:1", listen_address="b:2")
    layout.swarm.mkdir(parents=True)
    layout.write_membership(membership)
    assert make(tmp_path).read_membership() == membership


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"first")
    assert path.stat().st_mode & 0o777 == 0o600

    def broken(_descriptor: int) -> None:
        raise OSError(5, "Input/output error")

    monkeypatch.setattr("shoal.daemon.layout.os.fsync", broken)
    with pytest.raises(OSError, match="Input/output"):
        write_atomically(path, b"second")
    assert path.read_bytes() == b"first"
    monkeypatch.undo()
    write_atomically(path, b"third")
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
    assert path.read_bytes() == b"third"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("10.0.0.1", ("10.0.0.1", 2377)),
        ("10.0.0.1:4000", ("10.0.0.1", 4000)),
        ("eth0:4000", ("eth0", 4000)),
        ("eth0", ("eth0", 2377)),
        ("10.0.0.1:0", ("10.0.0.1", 2377)),
        ("[::1]:4000", ("::1", 4000)),
        ("::1", ("::1", 2377)),
        ("[::1]", ("::1", 2377)),
    ],
)
def test_addresses_are_split(text: str, expected: tuple[str, int]) -> None:
    assert split_address(text) == expected


@pytest.mark.parametrize("text", ["", "10.0.0.1:", "10.0.0.1:port", "10.0.0.1:65536", "10.0.0.1:-1"])
def test_bad_addresses_are_refused(text: str) -> None:
    with pytest.raises(InvalidArgument):
        split_address(text)


def test_interfaces_are_resolved() -> None:
    assert resolve("10.1.2.3") == "10.1.2.3"
    assert resolve("lo") == "127.0.0.1"
    with pytest.raises(InvalidArgument, match='could not find an address of "nosuch0"'):
        resolve("nosuch0")


def test_the_address_to_advertise_is_the_only_one(monkeypatch: pytest.MonkeyPatch) -> None:
    addresses = {
        "lo": "127.0.0.1",
        "eth0": "10.0.0.5",
        "docker_gwbridge": "172.18.0.1",
        "eth1": "10.9.0.5",
        "tun0": None,
    }

    def present(*names: str) -> None:
        monkeypatch.setattr("shoal.daemon.addresses.socket.if_nameindex", lambda: list(enumerate(names)))

    monkeypatch.setattr("shoal.daemon.addresses.interface_address", addresses.get)
    present("lo", "eth0", "docker_gwbridge", "tun0")
    assert choose_advertise_address() == "10.0.0.5"
    present("lo", "eth0", "eth1")
    with pytest.raises(InvalidArgument, match=r"multiple addresses on different interfaces \(10.0.0.5 on eth0 and 10"):
        choose_advertise_address()
    present("lo")
    with pytest.raises(InvalidArgument, match="could not find the system's IP address"):
        choose_advertise_address()


MEMBERSHIP = SwarmMembership(
    node_id="n", cluster_id="c", raft_id=1, advertise_address="127.0.0.1:2377", listen_address="127.0.0.1:2377"
)


def test_a_swarm_that_is_being_erased_is_not_taken_up_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    layout = Layout(tmp_path / "data", tmp_path / "exec")
    layout.write_membership(MEMBERSHIP)
    layout.raft.mkdir()
    assert layout.read_membership() == MEMBERSHIP

    def killed(*_: object, **__: object) -> None:
        shutil.rmtree(layout.raft)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr("shoal.daemon.layout.erase", killed)
        with pytest.raises(KeyboardInterrupt):
            layout.erase_swarm()
    assert layout.read_membership() is None
    layout.erase_swarm()
    assert not layout.swarm.exists()
    layout.erase_swarm()
