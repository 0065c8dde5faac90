"""Times of a node's network: wiring of tasks, changes of the mesh and of an overlay. Needs root; leaves nothing.

Run: `unshare -n python bench/network.py`, so that "the host" is an empty namespace. Records are kept on a tmpfs, as
those of a node are.
"""

import asyncio
import statistics
import sys
import tempfile
import time
from pathlib import Path

import structlog

from shoal.model.base import replace
from shoal.model.netstate import (
    Backend,
    DataPath,
    IngressPort,
    IngressState,
    NetworkChange,
    Overlay,
    OverlayEndpoint,
    OverlayLink,
    OverlayService,
    OverlayUpdate,
    Peer,
    SandboxRequest,
)
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
    print(f"{name:52} median {statistics.median(ordered):7.2f} ms  p95 {ordered[int(len(ordered) * 0.95)]:7.2f} ms")


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


OVERLAY = Overlay(network_id="net", name="net", vni=5000, subnets=("10.9.0.0/16",), gateways=("10.9.0.1",))


def overlay_service(number, tasks, serving=True):
    def endpoint(position):
        address = number * tasks + position
        return OverlayEndpoint(
            task_id=f"s{number}t{position}",
            name=f"s{number}.{position}",
            addresses=(f"10.9.{64 + address // 250}.{address % 250 + 1}",),
            node_number=2,
            serving=serving or position > 0,
        )

    return OverlayService(
        service_id=f"s{number}",
        names=(f"s{number}",),
        virtual_ips=(f"10.9.{number // 250 + 1}.{number % 250 + 1}",),
        endpoints=tuple(map(endpoint, range(tasks))),
    )


async def overlays(network):
    services = tuple(overlay_service(number, 10) for number in range(1000))
    update = OverlayUpdate(overlay=OVERLAY, complete=True, services=services)
    peers = (Peer(node_number=1, address="127.0.0.1"), Peer(node_number=2, address="127.0.0.2"))
    await network.set_node_number(1)
    await network.change(NetworkChange(version=1, data_path=DataPath(port=4789, peers=peers), overlays=(update,)))
    requests = [
        SandboxRequest(
            task_id=f"{number:012d}",
            overlays=(OverlayLink(network_id="net", addresses=(f"10.9.0.{number + 2}/16",)),),
        )
        for number in range(TASKS)
    ]
    name = "attach to an overlay of 1,000 services"
    report(name, [await timed(network.attach(request)) for request in requests[:20]])
    version = 1
    for count in (20, 100):
        for request in requests[:count]:
            await network.attach(request)
        taken = []
        for turn in range(UPDATES):
            version += 1
            changed = replace(update, complete=False, services=(overlay_service(turn % 7, 10, bool(turn % 2)),))
            taken.append(await timed(network.change(NetworkChange(version=version, overlays=(changed,)))))
        report(f"one endpoint changes, {count} clients, 1,000 services", taken)
    report("detach from it", [await timed(network.detach(request.task_id)) for request in requests])


async def main():
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    with tempfile.TemporaryDirectory(prefix="shoal-bench-", dir="/dev/shm") as root:
        network = NodeNetwork(Path(root), "bench", NetworkSettings())
        print(f"start_up                                             {await timed(network.start_up()):14.2f} ms")
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
            for ports, backends in ((1, 10), (1, 100), (1, 1000), (100, 10), (1000, 10)):
                version += 2
                await network.set_ingress(mesh(version, ports, backends))
                taken = []
                for _ in range(UPDATES):
                    version += 1
                    taken.append(await timed(network.set_ingress(mesh(version, ports, backends))))
                report(f"set_ingress, {ports} ports of {backends} backends", taken)
            whole = mesh(version, 1000, 10)
            taken = []
            for turn in range(UPDATES):
                version += 1
                first = replace(whole.ports[turn], backends=whole.ports[turn].backends[1:])
                changed = replace(whole, version=version, ports=(*whole.ports[:turn], first, *whole.ports[turn + 1 :]))
                taken.append(await timed(network.set_ingress(changed)))
            report("set_ingress, one of 1,000 ports changes", taken)
            await overlays(network)
        finally:
            await network.close(remove=True)


if __name__ == "__main__":
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    asyncio.run(main())
