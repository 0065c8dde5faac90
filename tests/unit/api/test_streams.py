from __future__ import annotations

import asyncio

import pytest

from shoal.api.detach_keys import DetachScanner, parse_detach_keys
from shoal.api.hijack import relay
from shoal.api.views.stats import stats_view
from shoal.errors import InvalidArgument
from shoal.model.streams import BlockCounter, ContainerStats, CpuUsage, InterfaceCounters, MemoryUsage, Output


@pytest.mark.parametrize(
    ("text", "keys"),
    [
        ("", b"\x10\x11"),
        ("ctrl-p,ctrl-q", b"\x10\x11"),
        ("a", b"a"),
        ("ctrl-a,z", b"\x01z"),
        ("ctrl-@,ctrl-[,ctrl-\\,ctrl-],ctrl-^,ctrl-_", b"\x00\x1b\x1c\x1d\x1e\x1f"),
    ],
)
def test_detach_keys_are_read(text: str, keys: bytes) -> None:
    assert parse_detach_keys(text) == keys


@pytest.mark.parametrize("text", ["ctrl-", "ctrl-pp", "ab", "a,", "ä", "ctrl-1", "alt-a"])
def test_what_is_no_key_is_refused(text: str) -> None:
    with pytest.raises(InvalidArgument, match="Invalid escape keys"):
        parse_detach_keys(text)


@pytest.mark.parametrize("step", [1, 2, 100])
@pytest.mark.parametrize(
    ("keys", "typed", "passed", "detached"),
    [
        (b"pq", b"abc", b"abc", False),
        (b"pq", b"abpqc", b"ab", True),
        (b"pq", b"pap", b"pa", False),
        (b"pq", b"ppq", b"p", True),
        (b"p", b"axp", b"ax", True),
    ],
)
def test_detach_keys_are_found(keys: bytes, typed: bytes, passed: bytes, detached: bool, step: int) -> None:
    scanner, found, was_detached = DetachScanner(keys), b"", False
    for start in range(0, len(typed), step):
        piece, was_detached = scanner.feed(typed[start : start + step])
        found += piece
        if was_detached:
            break
    assert (found, was_detached) == (passed, detached)


class Client:
    def __init__(self, *typed: bytes, stays: bool = True) -> None:
        self.typed = list(typed)
        self.received = b""
        self.gone = asyncio.Event()
        if not stays:
            self.gone.set()

    async def read(self) -> bytes:
        return self.typed.pop(0) if self.typed else b""

    async def write(self, data: bytes) -> None:
        self.received += data

    async def wait_until_gone(self) -> None:
        await self.gone.wait()


class Process:
    """Says back what it is told, and ends with its input (a terminal's: with `q`)."""

    def __init__(self) -> None:
        self.closed = False
        self._queue: asyncio.Queue[Output | None] = asyncio.Queue()

    async def read(self) -> Output | None:
        return await self._queue.get()

    async def write(self, data: bytes) -> None:
        await self._queue.put(Output(stream="stderr", data=data))

    async def close_input(self) -> None:
        await self._queue.put(None)

    async def close(self) -> None:
        self.closed = True


def test_bytes_are_relayed_until_the_process_ends() -> None:
    async def test() -> None:
        client, process = Client(b"one", b"two"), Process()
        assert not await relay(client, process, multiplexed=True, detach_keys=None)
        assert client.received == b"\2\0\0\0\0\0\0\3one\2\0\0\0\0\0\0\3two"
        assert process.closed

    asyncio.run(test())


def test_the_keys_let_go_of_the_process() -> None:
    async def test() -> None:
        client, process = Client(b"one\x10", b"\x11two"), Process()
        assert await relay(client, process, multiplexed=False, detach_keys=b"\x10\x11")
        assert client.typed == []
        assert process.closed

    asyncio.run(test())


def test_a_client_that_has_gone_lets_go_of_the_process() -> None:
    async def test() -> None:
        client, process = Client(stays=False), Process()
        assert not await relay(client, process, multiplexed=False, detach_keys=None)
        assert process.closed

    asyncio.run(test())


def test_statistics_as_docker_shows_them() -> None:
    earlier = ContainerStats(at_ns=10**9, cpu=CpuUsage(total_ns=5, machine_ns=100, online_cpus=2))
    stats = ContainerStats(
        at_ns=2 * 10**9,
        cpu=CpuUsage(total_ns=55, user_ns=30, kernel_ns=20, each_cpu_ns=(50, 5), machine_ns=200, online_cpus=2),
        memory=MemoryUsage(usage=1000, limit=4000, details={"inactive_file": 100}),
        block_bytes=(BlockCounter(major=8, minor=0, operation="read", value=7),),
        process_count=3,
        process_limit=10,
        interfaces=(InterfaceCounters(name="eth0", received_bytes=1, sent_bytes=2),),
    )
    view = stats_view(stats, earlier, "abc", "name")
    # the arithmetic of the docker command
    used = view["cpu_stats"]["cpu_usage"]["total_usage"] - view["precpu_stats"]["cpu_usage"]["total_usage"]
    passed = view["cpu_stats"]["system_cpu_usage"] - view["precpu_stats"]["system_cpu_usage"]
    assert used / passed * view["cpu_stats"]["online_cpus"] * 100 == 100.0
    assert view["memory_stats"] == {"usage": 1000, "stats": {"inactive_file": 100}, "limit": 4000}
    assert view["pids_stats"] == {"current": 3, "limit": 10}
    assert view["blkio_stats"]["io_service_bytes_recursive"] == [{"major": 8, "minor": 0, "op": "read", "value": 7}]
    assert view["networks"]["eth0"]["tx_bytes"] == 2
    empty = stats_view(ContainerStats(), ContainerStats(), "abc", "name")
    assert (empty["read"], empty["memory_stats"], empty["pids_stats"]) == ("0001-01-01T00:00:00Z", {}, {})
    assert "networks" not in empty
    assert empty["cpu_stats"] == empty["precpu_stats"]
