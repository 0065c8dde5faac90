"""A daemon in small: a resolver's client driven by JSON lines on stdin, so that a test can kill it with -9."""

import json
import sys
from pathlib import Path

import msgspec
import structlog

from shoal.errors import ShoalError
from shoal.model.netstate import OverlayUpdate, SandboxRequest
from shoal.network.names.client import ResolverClient

structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))


def obey(client, call, argument):
    if call == "set_network":
        return client.set_network(msgspec.convert(argument, OverlayUpdate))
    if call == "add_container":
        return client.add_container(msgspec.convert(argument[0], SandboxRequest), Path(argument[1]))
    if call == "look":
        return msgspec.to_builtins(client.look())
    return getattr(client, call)(argument)


def main(exec_root, name, host_resolver_file):
    client = ResolverClient(Path(exec_root), name, Path(host_resolver_file))
    client.look()
    print(json.dumps({"ok": None}), flush=True)
    for line in sys.stdin:
        call, argument = json.loads(line)
        try:
            print(json.dumps({"ok": obey(client, call, argument)}), flush=True)
        except ShoalError as error:
            print(json.dumps({"error": error.message}), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
