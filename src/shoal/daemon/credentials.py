"""This node's certificate: where it lies, when it is to be made anew, and who is told when it was.

The node makes its own key; a manager signs. Files are written so that a crash leaves a pair that fits.
"""

from __future__ import annotations

import asyncio
import random
import ssl
from collections.abc import Awaitable, Callable

import structlog
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from shoal.ca.root import CertificateRequest, issuer_of_chain, make_request, validity_of
from shoal.errors import ShoalError, WrongUnlockKey
from shoal.lib.backoff import Backoff
from shoal.lib.clock import Clock
from shoal.lib.files import write_atomically
from shoal.model.node_port import Identity
from shoal.model.objects import NodeDescription
from shoal.model.states import Role
from shoal.rpc.tls import ROLES, CertificateFiles, client_context, external_context, server_context

_log = structlog.get_logger(__name__)

# renewed at a random moment in this part of its life (docker-swarm.md 4.9)
RENEW_FROM, RENEW_TO = 0.5, 0.8
RETRY_FIRST_SECONDS = 1.0
RETRY_MOST_SECONDS = 3600.0
ENCRYPTED_MARK = "ENCRYPTED PRIVATE KEY"
PENDING_SUFFIX = ".new"


def encrypt_key(key: str, password: str | None, new_password: str | None) -> str:
    """Return a private key (PEM) encrypted by `new_password`, or plain; `password` is what it is encrypted by now.

    Raises:
        WrongUnlockKey: that is not what it is encrypted by.
    """
    try:
        opened = serialization.load_pem_private_key(key.encode(), password.encode() if password else None)
    except (ValueError, TypeError) as error:
        raise WrongUnlockKey from error
    protection: serialization.KeySerializationEncryption = serialization.NoEncryption()
    if new_password:
        protection = serialization.BestAvailableEncryption(new_password.encode())
    return opened.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, protection).decode()


class Credentials:
    """The certificate, key and roots of this node."""

    def __init__(self, files: CertificateFiles, clock: Clock) -> None:
        self.files = files
        self._clock = clock
        # the unlock key that the private key is encrypted by, None: plain
        self._password: str | None = None
        self._wanted = asyncio.Event()

    @property
    def roots(self) -> str:
        """The roots this node trusts, PEM."""
        return self.files.roots.read_text()

    def store(self, key: str, certificate: str, roots: str) -> None:
        """Take a new certificate with its key; after a crash on the way `repair` ends what was begun."""
        self.files.key.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        pending = self.files.key.with_name(self.files.key.name + PENDING_SUFFIX)
        key = encrypt_key(key, None, self._password)
        write_atomically(pending, (key + certificate).encode())
        self.store_roots(roots)
        self._settle(key, certificate)

    def is_locked(self) -> bool:
        """Whether the unlock key is needed to read the private key."""
        return ENCRYPTED_MARK in self.files.key.read_text()

    def unlock(self, password: str) -> None:
        """Read the private key by the unlock key from now on. Raises WrongUnlockKey."""
        encrypt_key(self.files.key.read_text(), password, None)
        self._password = password

    def protect(self, password: str | None) -> None:
        """Encrypt the private key by another unlock key, or by none; on disk when this returns."""
        if password != self._password:
            key = encrypt_key(self.files.key.read_text(), self._password, password)
            write_atomically(self.files.key, key.encode())
            self._password = password

    def store_roots(self, roots: str) -> None:
        """Trust these roots from now on."""
        self.files.roots.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        write_atomically(self.files.roots, roots.encode(), 0o644)

    def repair(self) -> None:
        """End a `store` that a crash cut short."""
        pending = self.files.key.with_name(self.files.key.name + PENDING_SUFFIX)
        if not pending.exists():
            return
        key, mark, rest = pending.read_text().partition("-----BEGIN CERTIFICATE-----")
        self._settle(key, mark + rest)

    def _settle(self, key: str, certificate: str) -> None:
        write_atomically(self.files.key, key.encode())
        write_atomically(self.files.certificate, certificate.encode(), 0o644)
        self.files.key.with_name(self.files.key.name + PENDING_SUFFIX).unlink(missing_ok=True)

    def identity(self) -> Identity:
        """Return who this node is by its certificate."""
        subject = x509.load_pem_x509_certificate(self.files.certificate.read_bytes()).subject

        def part(oid: x509.ObjectIdentifier) -> str:
            return str(subject.get_attributes_for_oid(oid)[0].value)

        names = x509.oid.NameOID
        role = ROLES[part(names.ORGANIZATIONAL_UNIT_NAME)]
        return Identity(node_id=part(names.COMMON_NAME), role=Role(role), cluster_id=part(names.ORGANIZATION_NAME))

    def server_context(self) -> ssl.SSLContext:
        """Return how the node port listens."""
        return server_context(self.files, self._password)

    def client_context(self) -> ssl.SSLContext:
        """Return how this node dials managers."""
        return client_context(self.files, self._password)

    def external_context(self, roots: str) -> ssl.SSLContext:
        """Return how this manager dials an outside authority that is verified by `roots`."""
        return external_context(self.files, roots, self._password)

    def describe(self) -> NodeDescription:
        """Return what a node says of its trust: its roots, and who issued its certificate."""
        roots = self.roots
        issuer = issuer_of_chain(self.files.certificate.read_text(), roots)
        return NodeDescription(
            trust_root=roots,
            certificate_issuer_subject=issuer.subject,
            certificate_issuer_public_key=issuer.public_key,
        )

    def renew_soon(self) -> None:
        """Make the certificate anew now: the node's role or the swarm's root has changed."""
        self._wanted.set()

    async def keep_fresh(self, renew: Callable[[CertificateRequest], Awaitable[None]]) -> None:
        """Renew in the second half of the certificate's life, and whenever it is asked for; never returns.

        Args:
            renew: has a request signed, stores the answer and tells whoever uses the certificate.
        """
        backoff = Backoff(RETRY_FIRST_SECONDS, RETRY_MOST_SECONDS)
        wait_seconds = self._seconds_to_renewal()
        while True:
            try:
                async with asyncio.timeout(max(0.0, wait_seconds)):
                    await self._wanted.wait()
            except TimeoutError:
                pass
            self._wanted.clear()
            try:
                await renew(await asyncio.to_thread(make_request))
                backoff.reset()
                wait_seconds = self._seconds_to_renewal()
            except ShoalError as error:
                wait_seconds = backoff.next_delay_seconds()
                _log.warning("the certificate was not renewed", reason=error.message, retry_seconds=wait_seconds)

    def _seconds_to_renewal(self) -> float:
        validity = validity_of(self.files.certificate.read_text())
        now_ns = self._clock.now_ns()
        life_ns = validity.not_after_ns - max(validity.not_before_ns, 0)
        at_ns = validity.not_before_ns + life_ns * random.uniform(RENEW_FROM, RENEW_TO)  # noqa: S311
        return (at_ns - now_ns) / 1e9
