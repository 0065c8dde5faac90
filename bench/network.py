"""Times of a node's network: attach and detach of 100 tasks, and updates of the mesh. Needs root; leaves nothing.

Run: `unshare -n python bench/network.py`, so that "the host" is an empty namespace.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog

from shoal.model.netstate import Backend, IngressPort, IngressState, SandboxRequest
from shoal.network.node import NodeNetwork
from shoal.network.settings import NetworkSettings

TASKS = 100
UPDATES = 30


async def timed(awaitable):
    begin = time.perf_counter()
    await awaitable
    return 1e3 * (time.perf_counter() - begin)


def report(name, milliseconds):
    ordered = sorted(milliseconds)
    print(f"{name:42} median {statistics.median(ordered):7.2f} ms  p95 {ordered[int(len(ordered) * 0.95)]:7.2f} ms")


def mesh(version, ports, backends):
    def backend(number):
        return Backend(task_id=f"t{number}", address=f"10.1.{number // 250}.{number % 250 + 1}", node_number=1)

    return IngressState(
        version=version,
        ports=tuple(
            IngressPort(
                protocol="tcp",
                published_port=1000 + number,
                target_port=80,
                service_id="s",
                backends=tuple(backend(position + version % 2) for position in range(backends)),
            )
            for number in range(ports)
        ),
    )


async def main():
    with tempfile.TemporaryDirectory(prefix="shoal-bench-") as root:
        network = NodeNetwork(Path(root), "bench", NetworkSettings())
        print(f"start_up                                   {await timed(network.start_up()):14.2f} ms")
        try:
            for name, in_mesh in (("in the mesh", True), ("outside the mesh", False)):
                requests = [
                    SandboxRequest(
                        task_id=f"{number:012d}", ingress_address=f"10.0.0.{number + 1}" if in_mesh else None
                    )
                    for number in range(TASKS)
                ]
                report(f"attach, one by one, {name}", [await timed(network.attach(request)) for request in requests])
                report(f"detach, one by one, {name}", [await timed(network.detach(r.task_id)) for r in requests])
            version = 0
            for ports, backends in ((1, 10), (1, 100), (1, 1000), (100, 10)):
                version += 2
                await network.set_ingress(mesh(version, ports, backends))
                taken = []
                for _ in range(UPDATES):
                    version += 1
                    taken.append(await timed(network.set_ingress(mesh(version, ports, backends))))
                report(f"set_ingress, {ports} ports of {backends} backends", taken)
        finally:
            await network.close(remove=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main())
