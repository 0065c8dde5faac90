"""Which image a task gets: tried once a revision at the registry, else the local one (docker-swarm.md 4.1).

Docker tries a pull before every task and goes on with the local image if it fails. Here the tasks of one revision
share one try, and a registry that does not answer holds up a node that has the image for a second at most.
"""

from __future__ import annotations

import asyncio

import structlog

from shoal.engine.images.credentials import decode_credentials
from shoal.engine.protocol import Engine
from shoal.errors import NotFound, ShoalError
from shoal.model.objects import Revision

_log = structlog.get_logger(__name__)

PULL_WITH_LOCAL_IMAGE_TIMEOUT_SECONDS = 1.0
PULL_TIMEOUT_SECONDS = 600.0
REVISIONS_REMEMBERED_MOST = 1000


class ImageSource:
    """Finds or pulls the images of tasks."""

    def __init__(self, engine: Engine, prefer_local: bool) -> None:
        self._engine = engine
        self._prefer_local = prefer_local
        self._pulls: dict[str, asyncio.Task[None]] = {}

    async def find(self, revision: Revision) -> str:
        """Return the id of the image for a revision's tasks.

        Raises:
            ShoalError: there is no such image here, and it could not be pulled: why.
        """
        spec = revision.spec.task_template.container_spec
        assert spec is not None, "only revisions with a container come to a node"
        local = self._local(spec.image)
        if local is not None and (self._prefer_local or "@sha256:" in spec.image or spec.image.startswith("sha256:")):
            return local
        pull = self._pulls.get(revision.id)
        if pull is None or (pull.done() and local is None):
            while len(self._pulls) >= REVISIONS_REMEMBERED_MOST:
                self._pulls.pop(next(iter(self._pulls)))
            auth = spec.pull_options.registry_auth if spec.pull_options else ""
            timeout = PULL_TIMEOUT_SECONDS if local is None else PULL_WITH_LOCAL_IMAGE_TIMEOUT_SECONDS
            pull = asyncio.create_task(self._pull(spec.image, auth, timeout), name=f"pull {spec.image}")
            self._pulls[revision.id] = pull
        try:
            await asyncio.shield(pull)
        except (ShoalError, TimeoutError) as error:
            local = self._local(spec.image)
            if local is None:
                # Docker's text first, which people search for; Docker leaves the reason to the daemon's log
                reason = f": {error.message}" if isinstance(error, ShoalError) and _says_more(error) else ""
                raise NotFound(f"No such image: {spec.image}{reason}") from error
            return local
        found = self._local(spec.image)
        if found is None:
            raise NotFound(f"No such image: {spec.image}")
        return found

    def _local(self, reference: str) -> str | None:
        try:
            return self._engine.images.get(reference).id
        except ShoalError:
            return None

    async def _pull(self, reference: str, registry_auth: str, timeout_seconds: float) -> None:
        try:
            async with asyncio.timeout(timeout_seconds):
                async for _ in self._engine.images.pull(reference, decode_credentials(registry_auth)):
                    pass
        except (ShoalError, TimeoutError) as error:
            reason = getattr(error, "message", f"no answer within {timeout_seconds} s")
            _log.info("image not pulled", image=reference, reason=reason)
            raise


def _says_more(error: ShoalError) -> bool:
    return not isinstance(error, NotFound)
