from __future__ import annotations

import asyncio
import base64
from collections.abc import AsyncIterator, Awaitable, Callable

import pytest

from shoal.agent import images as images_module
from shoal.agent.images import ImageSource
from shoal.engine.fake import FakeEngine
from shoal.engine.images.credentials import decode_credentials
from shoal.engine.protocol import PullProgress, RegistryCredentials
from shoal.errors import Forbidden, InvalidArgument, NotFound, ShoalError
from shoal.lib.clock import ManualClock
from shoal.lib.ids import Ids
from tests.unit.agent.bench import revision


class Registry:
    """A registry that counts and answers as it is told."""

    def __init__(self, engine: FakeEngine) -> None:
        self.engine = engine
        self.asked: list[str] = []
        self.error: Exception | None = None
        self.silent = False
        engine.images.pull = self.pull  # type: ignore[method-assign,assignment]

    async def pull(
        self, reference: str, _credentials: RegistryCredentials | None = None
    ) -> AsyncIterator[PullProgress]:
        self.asked.append(reference)
        if self.silent:
            await asyncio.Event().wait()
        if self.error is not None:
            raise self.error
        self.engine.images.tag("busybox:latest", reference)
        yield PullProgress(status="done")


def run(body: Callable[[FakeEngine, Registry], Awaitable[None]]) -> None:
    async def main() -> None:
        engine = FakeEngine(ManualClock(), Ids())
        await body(engine, Registry(engine))

    asyncio.run(main())


def test_the_tasks_of_a_revision_share_a_pull() -> None:
    async def body(engine: FakeEngine, registry: Registry) -> None:
        source = ImageSource(engine, prefer_local=False)
        found = await asyncio.gather(*(source.find(revision(image="new")) for _ in range(5)))
        assert len(set(found)) == 1
        assert registry.asked == ["new"]
        await source.find(revision(version=2, image="new"))
        assert registry.asked == ["new", "new"], "another revision asks again"

    run(body)


def test_a_registry_that_fails_leaves_the_local_image() -> None:
    async def body(engine: FakeEngine, registry: Registry) -> None:
        registry.error = ShoalError("connection refused")
        source = ImageSource(engine, prefer_local=False)
        assert await source.find(revision(image="busybox")) == engine.images.get("busybox").id
        with pytest.raises(NotFound, match="No such image: nosuch: connection refused"):
            await source.find(revision(image="nosuch"))
        registry.error = Forbidden("denied")
        with pytest.raises(NotFound, match="No such image: nosuch: denied"):
            await source.find(revision(version=2, image="nosuch"))
        registry.error = NotFound("manifest unknown")
        with pytest.raises(NotFound, match="No such image: nosuch"):
            await source.find(revision(version=3, image="nosuch"))
        registry.error = None
        assert await source.find(revision(version=3, image="nosuch")), "what failed without an image is tried again"

    run(body)


def test_a_registry_that_does_not_answer_holds_nothing_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(images_module, "PULL_WITH_LOCAL_IMAGE_TIMEOUT_SECONDS", 0.01)

    async def body(engine: FakeEngine, registry: Registry) -> None:
        registry.silent = True
        source = ImageSource(engine, prefer_local=False)
        assert await source.find(revision(image="busybox")) == engine.images.get("busybox").id
        assert await source.find(revision(image="busybox")) == engine.images.get("busybox").id
        assert registry.asked == ["busybox"], "asked once a revision"

    run(body)


def test_local_images_are_enough_where_they_are_preferred_or_fixed() -> None:
    async def body(engine: FakeEngine, registry: Registry) -> None:
        image = engine.images.get("busybox").id
        assert await ImageSource(engine, prefer_local=True).find(revision(image="busybox")) == image
        assert await ImageSource(engine, prefer_local=False).find(revision(image=image)) == image
        assert registry.asked == []

    run(body)


def test_credentials_are_read() -> None:
    header = base64.urlsafe_b64encode(b'{"username":"u","password":"p"}').rstrip(b"=").decode()
    assert decode_credentials(header) == RegistryCredentials(username="u", password="p", identity_token="")
    for nothing in ("", "e30=", "bnVsbA==", base64.b64encode(b'{"serveraddress":"r"}').decode()):
        assert decode_credentials(nothing) is None
    for broken in ("not base 64!", base64.b64encode(b"[]").decode()):
        with pytest.raises(InvalidArgument):
            decode_credentials(broken)
