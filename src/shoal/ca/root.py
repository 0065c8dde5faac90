"""The certificate authority of a swarm: ECDSA P-256, common name swarm-ca, twenty years (docker-swarm.md 4.9).

Node certificates say who a node is: CN = node id, OU = its role, O = the swarm's id. A node makes its own key; of its
request only the public key is used.
"""

from __future__ import annotations

import datetime as dt
from functools import lru_cache

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from shoal.errors import InvalidArgument
from shoal.model.base import Struct
from shoal.model.objects import RootCA
from shoal.model.states import Role

ROOT_NAME = "swarm-ca"
ROOT_DAYS = 20 * 365
BACKDATED = dt.timedelta(hours=1)
ORGANIZATIONAL_UNITS = {Role.MANAGER: "swarm-manager", Role.WORKER: "swarm-worker"}


class CertificateRequest(Struct):
    """A node's new private key and its request for a certificate, PEM."""

    key: str
    request: str


class Subject(Struct):
    """What a node certificate is to say: who the node is, what it may be, in which swarm."""

    node_id: str
    role: Role
    cluster_id: str


class Issuer(Struct):
    """How a root names itself in `TLSInfo`: subject and public key, DER."""

    subject: bytes
    public_key: bytes


class Validity(Struct):
    """When a certificate holds, nanoseconds since the epoch."""

    not_before_ns: int
    not_after_ns: int


def _key_pem(key: ec.EllipticCurvePrivateKey) -> str:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def _moment(at_ns: int) -> dt.datetime:
    return dt.datetime.fromtimestamp(at_ns / 1e9, dt.UTC)


def signing_only() -> x509.KeyUsage:
    """Return what the key of an authority may be used for."""
    return x509.KeyUsage(
        digital_signature=False,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        key_cert_sign=True,
        crl_sign=True,
        encipher_only=False,
        decipher_only=False,
    )


def create_root(now_ns: int) -> RootCA:
    """Make a new root, valid from a little before `now_ns` (nanoseconds since the epoch)."""
    key = ec.generate_private_key(ec.SECP256R1())
    now = _moment(now_ns)
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, ROOT_NAME)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(days=ROOT_DAYS))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(
            signing_only(),
            critical=True,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key.public_key()), critical=False)
        .sign(key, hashes.SHA256())
    )
    return RootCA(certificate=certificate.public_bytes(serialization.Encoding.PEM).decode(), key=_key_pem(key))


@lru_cache(maxsize=16)
def issuer_of(root_certificate: str) -> Issuer:
    """Return subject and public key of a root (PEM)."""
    certificate = x509.load_pem_x509_certificate(root_certificate.encode())
    return Issuer(
        subject=certificate.subject.public_bytes(),
        public_key=certificate.public_key().public_bytes(
            serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        ),
    )


def issuer_of_chain(chain: str, roots: str) -> Issuer:
    """Return who signed the first certificate of a chain: the second, or the root that fits (PEM both)."""
    leaf, *above = x509.load_pem_x509_certificates(chain.encode())
    candidates = (*above, *x509.load_pem_x509_certificates(roots.encode()))
    for candidate in candidates:
        try:
            leaf.verify_directly_issued_by(candidate)
        except (ValueError, TypeError, InvalidSignature):
            continue
        return issuer_of(candidate.public_bytes(serialization.Encoding.PEM).decode())
    return issuer_of(roots)


def validity_of(certificate: str) -> Validity:
    """Return from when to when a certificate (PEM, the first of a chain) holds."""
    found = x509.load_pem_x509_certificate(certificate.encode())
    return Validity(
        not_before_ns=int(found.not_valid_before_utc.timestamp()) * 1_000_000_000,
        not_after_ns=int(found.not_valid_after_utc.timestamp()) * 1_000_000_000,
    )


def make_request() -> CertificateRequest:
    """Make a key for a node and the request that a manager signs."""
    key = ec.generate_private_key(ec.SECP256R1())
    request = x509.CertificateSigningRequestBuilder().subject_name(x509.Name([])).sign(key, hashes.SHA256())
    return CertificateRequest(key=_key_pem(key), request=request.public_bytes(serialization.Encoding.PEM).decode())


def sign_request(root: RootCA, request: str, subject: Subject, now_ns: int, expiry_ns: int) -> str:
    """Return a certificate (PEM) for the key of `request`, valid from an hour ago for `expiry_ns` from now.

    Raises:
        InvalidArgument: no request in PEM, not signed by its own key, or a key that is none on a curve.
    """
    try:
        found = x509.load_pem_x509_csr(request.encode())
        signed = found.is_signature_valid
    except (ValueError, InvalidSignature) as error:
        raise InvalidArgument(f"the certificate request cannot be read: {error}") from error
    public_key = found.public_key()
    if not signed or not isinstance(public_key, ec.EllipticCurvePublicKey):
        raise InvalidArgument("the certificate request must carry an ECDSA key and be signed by it")
    return _sign(root, public_key, subject, now_ns, expiry_ns)


def _sign(root: RootCA, key: ec.EllipticCurvePublicKey, subject: Subject, now_ns: int, expiry_ns: int) -> str:
    root_certificate = x509.load_pem_x509_certificate(root.certificate.encode())
    root_key = serialization.load_pem_private_key(root.key.encode(), password=None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey), "roots have keys on P-256"
    now = _moment(now_ns)
    unit = ORGANIZATIONAL_UNITS[subject.role]
    names = [subject.node_id, unit, *([ROOT_NAME] if subject.role == Role.MANAGER else [])]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(
            x509.Name(
                [
                    x509.NameAttribute(NameOID.ORGANIZATION_NAME, subject.cluster_id),
                    x509.NameAttribute(NameOID.ORGANIZATIONAL_UNIT_NAME, unit),
                    x509.NameAttribute(NameOID.COMMON_NAME, subject.node_id),
                ]
            )
        )
        .issuer_name(root_certificate.subject)
        .public_key(key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - BACKDATED)
        .not_valid_after(now + dt.timedelta(microseconds=expiry_ns / 1000))
        .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in names]), critical=False)
        # Python 3.13 and stricter clients refuse a certificate that does not name its issuer's key.
        .add_extension(
            x509.AuthorityKeyIdentifier.from_issuer_public_key(root_key.public_key()),
            critical=False,
        )
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(key), critical=False)
        .add_extension(
            x509.ExtendedKeyUsage([ExtendedKeyUsageOID.SERVER_AUTH, ExtendedKeyUsageOID.CLIENT_AUTH]), critical=False
        )
        .sign(root_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
