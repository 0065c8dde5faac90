"""Roots, tokens and certificates (docker-swarm.md 3.1, 4.9)."""

from __future__ import annotations

import datetime as dt
import hashlib
import re

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from shoal.ca import tokens
from shoal.ca.root import Subject, create_root, issuer_of, make_request, sign_request
from shoal.lib.ids import Ids
from shoal.model.states import Role

NOW_NS = 1_700_000_000 * 1_000_000_000
DAY_NS = 86_400 * 1_000_000_000


def test_a_root() -> None:
    root = create_root(NOW_NS)
    certificate = x509.load_pem_x509_certificate(root.certificate.encode())
    assert certificate.subject.rfc4514_string() == "CN=swarm-ca"
    certificate.verify_directly_issued_by(certificate)
    assert isinstance(certificate.public_key(), ec.EllipticCurvePublicKey)
    life = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert life == dt.timedelta(days=20 * 365, hours=1)
    assert issuer_of(root.certificate).subject == certificate.subject.public_bytes()


@pytest.mark.parametrize(
    ("role", "unit", "names"),
    [
        (Role.MANAGER, "swarm-manager", ["nodeid", "swarm-manager", "swarm-ca"]),
        (Role.WORKER, "swarm-worker", ["nodeid", "swarm-worker"]),
    ],
)
def test_a_nodes_certificate_says_who_it_is(role: Role, unit: str, names: list[str]) -> None:
    root = create_root(NOW_NS)
    subject_wanted = Subject(node_id="nodeid", role=role, cluster_id="clusterid")
    issued = sign_request(root, make_request().request, subject_wanted, NOW_NS, 90 * DAY_NS)
    certificate = x509.load_pem_x509_certificate(issued.encode())
    certificate.verify_directly_issued_by(x509.load_pem_x509_certificate(root.certificate.encode()))
    subject = {
        attribute: certificate.subject.get_attributes_for_oid(attribute)[0].value
        for attribute in (NameOID.COMMON_NAME, NameOID.ORGANIZATIONAL_UNIT_NAME, NameOID.ORGANIZATION_NAME)
    }
    assert list(subject.values()) == ["nodeid", unit, "clusterid"]
    found = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert found.get_values_for_type(x509.DNSName) == names
    start = dt.datetime.fromtimestamp(NOW_NS / 1e9, dt.UTC)
    assert certificate.not_valid_before_utc <= start
    assert certificate.not_valid_after_utc == start + dt.timedelta(days=90)


def test_a_join_token_names_the_root_and_a_secret() -> None:
    root = create_root(NOW_NS)
    token = tokens.make_join_token(root, Ids())
    match = re.fullmatch(r"SWMTKN-1-([0-9a-z]{50})-([0-9a-z]{25})", token)
    assert match is not None
    assert int(match[1], 36) == int.from_bytes(hashlib.sha256(root.certificate.encode()).digest())
    assert int(match[2], 36) < 2**128
    assert tokens.make_join_token(root, Ids()) != token


def test_an_unlock_key() -> None:
    assert re.fullmatch(r"SWMKEY-1-[A-Za-z0-9+/]{43}", tokens.make_unlock_key(Ids()))
