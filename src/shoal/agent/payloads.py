"""The secrets and configs that this node was given: in memory only, for as long as the managers leave them here.

What a container uses of them lies in the engine's tmpfs for the container's life, so that it outlives this process.
Nothing here is written to a disk, logged or shown.
"""

from __future__ import annotations

import asyncio

from shoal.core.payload_files import Payloads, missing_payloads
from shoal.model.container_spec import ContainerSpec
from shoal.model.messages import Assignments


class NodePayloads:
    """What a node has of secrets and configs."""

    def __init__(self) -> None:
        self.held = Payloads()
        # set once a manager has said all that is for this node
        self._heard = asyncio.Event()

    def take(self, assignments: Assignments) -> None:
        """Take what comes with assignments, before their tasks."""
        secrets = {} if assignments.complete else dict(self.held.secrets)
        configs = {} if assignments.complete else dict(self.held.configs)
        secrets.update((each.id, each) for each in assignments.secrets)
        configs.update((each.id, each) for each in assignments.configs)
        for id_ in assignments.removed_secret_ids:
            secrets.pop(id_, None)
        for id_ in assignments.removed_config_ids:
            configs.pop(id_, None)
        self.held = Payloads(secrets=secrets, configs=configs)
        self._heard.set()

    async def for_container(self, spec: ContainerSpec | None) -> Payloads:
        """Return what a container may use; a daemon that has just started waits for a manager if something lacks."""
        if spec is not None and missing_payloads(spec, self.held):
            await self._heard.wait()
        return self.held
