"""Another root for a swarm: checked if it was brought, made if not, vouched for by the old one (docker-swarm.md 4.9).

While nodes move over, certificates are signed by the new root's key, and come with the new root's key signed by the old
root: whoever trusts only the old root then trusts them too.
"""

from __future__ import annotations

import datetime as dt

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from shoal.ca.root import BACKDATED, signing_only
from shoal.errors import InvalidArgument
from shoal.model.objects import RootCA

LEAST_LIFE = dt.timedelta(days=365)


def check_root(root: RootCA, now_ns: int) -> RootCA:
    """Return a root that an operator brought, as it is kept; its key may be absent (an external authority has it).

    Raises:
        InvalidArgument: not one certificate, no authority, not signed by itself, short of life, or not of this key.
    """
    try:
        found = x509.load_pem_x509_certificates(root.certificate.encode())
    except ValueError as error:
        raise InvalidArgument(f"CAConfig.SigningCACert cannot be read: {error}") from error
    if len(found) != 1:
        raise InvalidArgument(f"CAConfig.SigningCACert holds {len(found)} certificates: give one root, no chain")
    (certificate,) = found
    try:
        certificate.verify_directly_issued_by(certificate)
        is_authority = certificate.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    except (ValueError, TypeError, InvalidSignature, x509.ExtensionNotFound) as error:
        raise InvalidArgument(f"CAConfig.SigningCACert is no root certificate: {error}") from error
    if not is_authority:
        raise InvalidArgument("CAConfig.SigningCACert is not marked as a certificate authority")
    now = dt.datetime.fromtimestamp(now_ns / 1e9, dt.UTC)
    if certificate.not_valid_after_utc - now < LEAST_LIFE:
        raise InvalidArgument(
            f"CAConfig.SigningCACert expires {certificate.not_valid_after_utc:%Y-%m-%d}: it must hold a year at least"
        )
    text = certificate.public_bytes(serialization.Encoding.PEM).decode()
    return RootCA(certificate=text, key=_check_key(root.key, certificate) if root.key else "")


def _check_key(key: str, certificate: x509.Certificate) -> str:
    try:
        private = serialization.load_pem_private_key(key.encode(), password=None)
    except (ValueError, TypeError) as error:
        raise InvalidArgument(f"CAConfig.SigningCAKey cannot be read (it must not be encrypted): {error}") from error
    if not isinstance(private, ec.EllipticCurvePrivateKey):
        raise InvalidArgument("CAConfig.SigningCAKey must be an ECDSA key")
    if private.public_key() != certificate.public_key():
        raise InvalidArgument("CAConfig.SigningCAKey is not the key of CAConfig.SigningCACert")
    return private.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    ).decode()


def cross_sign(old: RootCA, new_certificate: str, now_ns: int) -> str:
    """Return the key of the new root in a certificate signed by the old one (PEM). The old one needs its key."""
    new = x509.load_pem_x509_certificate(new_certificate.encode())
    issuer = x509.load_pem_x509_certificate(old.certificate.encode())
    issuer_key = serialization.load_pem_private_key(old.key.encode(), password=None)
    assert isinstance(issuer_key, ec.EllipticCurvePrivateKey), "roots have keys on curves"
    public_key = new.public_key()
    assert isinstance(public_key, ec.EllipticCurvePublicKey), "roots have keys on curves"
    certificate = (
        x509.CertificateBuilder()
        .subject_name(new.subject)
        .issuer_name(issuer.subject)
        .public_key(public_key)
        .serial_number(x509.random_serial_number())
        .not_valid_before(dt.datetime.fromtimestamp(now_ns / 1e9, dt.UTC) - BACKDATED)
        .not_valid_after(min(new.not_valid_after_utc, issuer.not_valid_after_utc))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public_key), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(issuer_key.public_key()), critical=False)
        .add_extension(signing_only(), critical=True)
        .sign(issuer_key, hashes.SHA256())
    )
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
