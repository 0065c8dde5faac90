"""A daemon in small: a NodeNetwork driven by JSON lines on stdin, so that a test can kill it with -9."""

import asyncio
import json
import sys
from pathlib import Path

import msgspec
import structlog

from shoal.errors import ShoalError
from shoal.model.netstate import DataPath, IngressState, NetworkChange, SandboxRequest
from shoal.network.node import NodeNetwork
from shoal.network.settings import NetworkSettings

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


async def obey(network, call, argument):
    if call == "attach":
        sandbox = await network.attach(msgspec.convert(argument, SandboxRequest))
        return msgspec.to_builtins(sandbox) | {"path": sandbox.path}
    if call == "detach":
        return await network.detach(argument)
    if call == "set_ingress":
        return await network.set_ingress(msgspec.convert(argument, IngressState))
    if call == "set_data_path":
        return await network.set_data_path(msgspec.convert(argument, DataPath))
    if call == "change":
        return await network.change(msgspec.convert(argument, NetworkChange))
    if call == "set_node_number":
        return await network.set_node_number(argument)
    if call == "wireguard_key":
        return network.wireguard_key
    if call == "close":
        return await network.close(remove=argument)
    return {"sandboxes": network.sandboxes(), "ingress_version": network.ingress_version,
            "version": network.version}  # fmt: skip


async def main(exec_root, daemon_id, settings):
    network = NodeNetwork(Path(exec_root), daemon_id, msgspec.json.decode(settings, type=NetworkSettings))
    await network.start_up()
    print(json.dumps({"ok": None}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        call, argument = json.loads(line)
        try:
            print(json.dumps({"ok": await obey(network, call, argument)}), flush=True)
        except ShoalError as error:
            print(json.dumps({"error": error.message}), flush=True)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
