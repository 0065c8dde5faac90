"""Changing the root: an outside authority signs, its answers are looked at, and a rotation ends when all have moved."""

from __future__ import annotations

import asyncio
import json
import ssl
import time
from collections.abc import Awaitable, Callable

import pytest
from aiohttp import web

from shoal.ca.root import Subject, create_root, issuer_of, issuer_of_chain, make_request, sign_request
from shoal.errors import InvalidArgument, NotBuilt, Unavailable
from shoal.lib.clock import SystemClock
from shoal.manager.root_change import Signer, has_moved
from shoal.model.base import replace
from shoal.model.objects import Cluster, JoinTokens, Node, NodeDescription, RootCA
from shoal.model.specs import CAConfig, ClusterSpec, ExternalCA
from shoal.model.states import Role

HOUR_NS = 3_600_000_000_000
OLD, NEW = create_root(time.time_ns()), create_root(time.time_ns())
SUBJECT = Subject(node_id="n", role=Role.WORKER, cluster_id="c")
CLUSTER = Cluster(id="c", root_ca=OLD, join_tokens=JoinTokens(worker="w", manager="m"))


def spec_of(**config: object) -> ClusterSpec:
    return ClusterSpec(ca_config=CAConfig(**config))  # type: ignore[arg-type]


def with_stand_in(signs_for: str, body: Callable[[Signer, str], Awaitable[None]]) -> None:
    """Run `body` beside a stand-in for cfssl, of the new root; it signs for who is asked for, or for another."""

    async def sign(request: web.Request) -> web.Response:
        asked = json.loads(await request.read())
        node_id = asked["subject"]["CN"] if signs_for == "asked" else signs_for
        subject = Subject(node_id=node_id, role=Role.WORKER, cluster_id=asked["subject"]["names"][0]["O"])
        certificate = sign_request(NEW, asked["certificate_request"], subject, time.time_ns(), HOUR_NS)
        return web.json_response({"success": True, "result": {"certificate": certificate}})

    async def scenario() -> None:
        application = web.Application()
        application.router.add_post("/sign", sign)
        runner = web.AppRunner(application)
        await runner.setup()
        made = make_request()
        listening = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        certificate = sign_request(NEW, made.request, SUBJECT, time.time_ns(), HOUR_NS)
        await asyncio.to_thread(load, listening, certificate, made.key)
        await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=listening).start()

        def dial(roots: str) -> ssl.SSLContext:
            context = ssl.create_default_context(cadata=roots)
            context.check_hostname = False
            return context

        try:
            await body(Signer(SystemClock(), dial), f"https://127.0.0.1:{runner.addresses[0][1]}/sign")
        finally:
            await runner.cleanup()

    asyncio.run(scenario())


def load(context: ssl.SSLContext, certificate: str, key: str) -> None:
    import tempfile
    from pathlib import Path

    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "pair").write_text(key + certificate)
        context.load_cert_chain(Path(folder) / "pair")


def test_rotation_to_a_root_whose_key_an_outside_authority_has():
    async def body(signer: Signer, url: str) -> None:
        external = ExternalCA(protocol="cfssl", url=url, ca_cert=NEW.certificate)
        spec = spec_of(signing_ca_cert=NEW.certificate, external_cas=(external,))
        rotation = await signer.prepare(CLUSTER, spec)
        assert rotation is not None
        assert rotation.root.key == ""
        moving = replace(CLUSTER, spec=spec, root_rotation=rotation)
        chain = await signer.sign(moving, make_request().request, SUBJECT)
        assert issuer_of_chain(chain, OLD.certificate) == issuer_of(NEW.certificate)

        old, new = (
            Node(id=name, description=NodeDescription(certificate_issuer_public_key=issuer_of(root).public_key))
            for name, root in (("a", OLD.certificate), ("b", NEW.certificate))
        )
        assert not has_moved(moving, [old, new])
        assert has_moved(moving, [new])
        # once over, there is no way back but by that authority
        done = replace(moving, root_ca=rotation.root, root_rotation=None)
        with pytest.raises(NotBuilt, match="only an external CA has"):
            await signer.prepare(
                done, replace(spec, ca_config=replace(spec.ca_config, force_rotate=1, signing_ca_cert=""))
            )

    with_stand_in("asked", body)


def test_an_authority_that_signs_for_somebody_else_is_refused():
    async def body(signer: Signer, url: str) -> None:
        external = ExternalCA(protocol="cfssl", url=url, ca_cert=NEW.certificate)
        with pytest.raises(Unavailable, match="for somebody else"):
            await signer.prepare(CLUSTER, spec_of(signing_ca_cert=NEW.certificate, external_cas=(external,)))

    with_stand_in("impostor", body)


def test_what_an_update_may_not_ask_for():
    signer = Signer(SystemClock(), None)
    without_key = RootCA(certificate=NEW.certificate, key="")

    async def refused(spec: ClusterSpec, kind: type[Exception], words: str) -> None:
        with pytest.raises(kind, match=words):
            await signer.prepare(CLUSTER, spec)

    async def scenario() -> None:
        external = ExternalCA(protocol="cfssl", url="https://127.0.0.1:1/sign", ca_cert=NEW.certificate)
        await refused(spec_of(signing_ca_cert=without_key.certificate), InvalidArgument, "needs an external CA")
        await refused(spec_of(signing_ca_cert=NEW.certificate, signing_ca_key=OLD.key), InvalidArgument, "not the key")
        await refused(spec_of(external_cas=(replace(external, protocol="acme"),)), InvalidArgument, "only cfssl")
        await refused(
            spec_of(signing_ca_cert=NEW.certificate, external_cas=(external,)), Unavailable, "no certificate to show"
        )
        # nothing asked for: nothing changes; the same root again: nothing either
        assert await signer.prepare(CLUSTER, ClusterSpec()) is None
        assert await signer.prepare(CLUSTER, spec_of(signing_ca_cert=OLD.certificate, signing_ca_key=OLD.key)) is None

    asyncio.run(scenario())
