from __future__ import annotations

import asyncio
import re
import ssl
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from shoal.ca.root import Subject, create_root, make_request, sign_request
from shoal.daemon.server import Server, check_listening, tls_context
from shoal.daemon.settings import Settings
from shoal.errors import InvalidArgument
from shoal.lib.clock import SystemClock
from shoal.model.base import replace
from shoal.model.states import Role

YEAR_NS = 365 * 24 * 3600 * 1_000_000_000
NAME = "daemon.example"


def make_settings(folder: Path) -> Settings:
    now_ns = SystemClock().now_ns()
    root = create_root(now_ns)
    made = make_request()
    subject = Subject(node_id=NAME, role=Role.MANAGER, cluster_id="cluster")
    certificate = sign_request(root, made.request, subject, now_ns, YEAR_NS)
    (folder / "ca.pem").write_text(root.certificate)
    (folder / "cert.pem").write_text(certificate)
    (folder / "key.pem").write_text(made.key)
    return Settings(
        hosts=("tcp://127.0.0.1:0",),
        tls_ca_certificate=folder / "ca.pem",
        tls_certificate=folder / "cert.pem",
        tls_key=folder / "key.pem",
    )


def client_context(folder: Path, with_certificate: bool) -> ssl.SSLContext:
    context = ssl.create_default_context(cafile=str(folder / "ca.pem"))
    if with_certificate:
        context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


async def ask(settings: Settings, context: ssl.SSLContext) -> str:
    application = web.Application()

    async def pong(_request: web.Request) -> web.Response:
        return web.Response(text="OK")

    application.router.add_get("/_ping", pong)
    server = Server(application, settings)
    await server.start()
    try:
        port = server.tcp_ports()[0]
        async with (
            aiohttp.ClientSession() as session,
            session.get(f"https://127.0.0.1:{port}/_ping", ssl=context, server_hostname=NAME) as response,
        ):
            return await response.text()
    finally:
        await server.stop()


def test_tcp_hosts_are_served_by_tls_and_with_tlsverify_to_known_clients_only(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    tls, verified = replace(settings, tls=True), replace(settings, tls_verify=True)
    assert asyncio.run(ask(tls, client_context(tmp_path, with_certificate=False))) == "OK"
    assert asyncio.run(ask(verified, client_context(tmp_path, with_certificate=True))) == "OK"
    with pytest.raises(aiohttp.ClientError):
        asyncio.run(ask(verified, client_context(tmp_path, with_certificate=False)))


def test_a_file_that_is_none_is_named_with_its_flag(tmp_path: Path) -> None:
    settings = make_settings(tmp_path)
    missing = tmp_path / "none.pem"
    with pytest.raises(InvalidArgument, match=r"--tlscert .*none\.pem"):
        tls_context(replace(settings, tls=True, tls_certificate=missing))
    with pytest.raises(InvalidArgument, match=r"--tlscacert .*none\.pem"):
        tls_context(replace(settings, tls_verify=True, tls_ca_certificate=missing))
    assert tls_context(settings) is None


def test_listening_that_cannot_be_is_refused_before_anything_starts() -> None:
    for settings, text in (
        (Settings(hosts=("tcp://127.0.0.1:0",), tls_verify=True), "--tlscert"),
        (Settings(group="nobodies"), '--group "nobodies": there is no such group'),
        (Settings(hosts=("moon://x",)), '--host "moon://x": use unix:///path or tcp://address:port'),
    ):
        with pytest.raises(InvalidArgument, match=re.escape(text)):
            check_listening(settings)
