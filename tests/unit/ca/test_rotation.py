"""Another root for a swarm: what is refused, and that both sides trust each other while nodes move over."""

from __future__ import annotations

import asyncio
import datetime as dt
import json
import ssl
import time
from pathlib import Path

import pytest
from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shoal.ca.external import check_external, sign_externally
from shoal.ca.root import Subject, create_root, issuer_of, issuer_of_chain, make_request, sign_request
from shoal.ca.rotation import check_root, cross_sign
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.objects import RootCA
from shoal.model.specs import ExternalCA
from shoal.model.states import Role
from shoal.rpc.tls import CertificateFiles, client_context, server_context

NOW_NS = time.time_ns()
HOUR_NS = 3_600_000_000_000
MANAGER = Subject(node_id="m", role=Role.MANAGER, cluster_id="c")


def make_files(folder: Path, roots: str, signer: RootCA, above: str = "") -> CertificateFiles:
    folder.mkdir()
    made = make_request()
    files = CertificateFiles(roots=folder / "roots", certificate=folder / "certificate", key=folder / "key")
    files.roots.write_text(roots)
    files.certificate.write_text(sign_request(signer, made.request, MANAGER, NOW_NS, HOUR_NS) + above)
    files.key.write_text(made.key)
    return files


def shake_hands(server: CertificateFiles, client: CertificateFiles) -> None:
    """Let both verify each other. Raises ssl.SSLError."""
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    listening = server_context(server)
    listening.verify_mode = ssl.CERT_REQUIRED
    ends = [
        client_context(client).wrap_bio(to_client, to_server, server_hostname="swarm-manager"),
        listening.wrap_bio(to_server, to_client, server_side=True),
    ]
    for _ in range(4):
        for end in ends:
            try:
                end.do_handshake()
            except ssl.SSLWantReadError:
                continue


def test_nodes_of_the_old_and_the_new_root_trust_each_other(tmp_path):
    old, new = create_root(NOW_NS), create_root(NOW_NS)
    crossed = cross_sign(old, new.certificate, NOW_NS)
    stages = {
        "before": make_files(tmp_path / "before", old.certificate, old),
        "moved": make_files(tmp_path / "moved", old.certificate, new, crossed),
        "done": make_files(tmp_path / "done", new.certificate, new, crossed),
    }
    for one, other in (("before", "moved"), ("moved", "before"), ("moved", "done"), ("done", "moved")):
        shake_hands(stages[one], stages[other])
    with pytest.raises(ssl.SSLError):
        shake_hands(stages["done"], stages["before"])
    moved = stages["moved"].certificate.read_text()
    assert issuer_of_chain(moved, old.certificate) == issuer_of(new.certificate)
    assert issuer_of_chain(stages["before"].certificate.read_text(), old.certificate) == issuer_of(old.certificate)


def signed_by_itself(days: int, is_authority: bool = True) -> RootCA:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "mine")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now)
        .not_valid_after(now + dt.timedelta(days=days))
        .add_extension(x509.BasicConstraints(ca=is_authority, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )
    return RootCA(certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(), key=pem.decode())


def test_roots_that_are_refused():
    good = signed_by_itself(1000)
    assert check_root(good, NOW_NS).certificate == good.certificate
    leaf = sign_request(good, make_request().request, MANAGER, NOW_NS, HOUR_NS)
    for root, text in (
        (RootCA(certificate="nonsense", key=""), "cannot be read"),
        (RootCA(certificate=good.certificate * 2, key=good.key), "holds 2 certificates"),
        (RootCA(certificate=leaf, key=good.key), "no root certificate"),
        (signed_by_itself(1000, is_authority=False), "not marked as a certificate authority"),
        (signed_by_itself(100), "hold a year at least"),
        (RootCA(certificate=good.certificate, key=create_root(NOW_NS).key), "is not the key of"),
        (RootCA(certificate=good.certificate, key="nonsense"), "SigningCAKey cannot be read"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            check_root(root, NOW_NS)


def test_outside_authorities_that_are_refused():
    for authority, text in (
        (ExternalCA(protocol="acme", url="https://ca"), "only cfssl"),
        (ExternalCA(protocol="cfssl", url="http://ca"), "https"),
        (ExternalCA(protocol="cfssl", url=""), "https"),
    ):
        with pytest.raises(InvalidArgument, match=text):
            check_external(authority)


def test_an_outside_authority_signs(tmp_path):
    """A stand-in for cfssl: HTTPS, asks for the manager's certificate, signs what the JSON says."""
    root = create_root(NOW_NS)
    files = make_files(tmp_path / "node", root.certificate, root)
    asked = []

    async def sign(request: web.Request) -> web.Response:
        body = json.loads(await request.read())
        asked.append(body)
        if body["subject"]["CN"] == "refused":
            return web.json_response({"success": False, "result": None, "errors": [{"code": 1, "message": "no"}]})
        role = {"swarm-manager": Role.MANAGER}.get(body["subject"]["names"][0]["OU"], Role.WORKER)
        subject = Subject(node_id=body["subject"]["CN"], role=role, cluster_id=body["subject"]["names"][0]["O"])
        certificate = sign_request(root, body["certificate_request"], subject, NOW_NS, HOUR_NS)
        return web.json_response({"success": True, "result": {"certificate": certificate}, "errors": []})

    async def scenario() -> None:
        application = web.Application()
        application.router.add_post("/sign", sign)
        runner = web.AppRunner(application)
        await runner.setup()
        listening = server_context(files)
        listening.verify_mode = ssl.CERT_REQUIRED
        site = web.TCPSite(runner, "127.0.0.1", 0, ssl_context=listening)
        await site.start()
        port = runner.addresses[0][1]
        context = client_context(files)
        context.check_hostname = False
        authority = ExternalCA(protocol="cfssl", url=f"https://127.0.0.1:{port}/sign")
        try:
            signed = await sign_externally(authority, make_request().request, MANAGER, context)
            names = {part.value for part in x509.load_pem_x509_certificate(signed.encode()).subject}
            assert names == {"m", "c", "swarm-manager"}
            assert asked[0]["hosts"] == ["m", "swarm-manager", "swarm-ca"]
            refused = Subject(node_id="refused", role=Role.WORKER, cluster_id="c")
            with pytest.raises(Unavailable, match="refuses to sign: no"):
                await sign_externally(authority, make_request().request, refused, context)
        finally:
            await runner.cleanup()
        with pytest.raises(Unavailable, match="does not sign"):
            await sign_externally(authority, make_request().request, MANAGER, context)

    asyncio.run(scenario())
