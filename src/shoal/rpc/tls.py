"""TLS between nodes: contexts of both sides, who the peer is, and why a handshake failed.

Mutual TLS 1.3; the listening side asks for a certificate but lets a node in that has none yet (it may only ask for the
root and for a certificate). A refused certificate looks like a bare disconnect to the dialling side, so that side
looks at its own certificate and at the peer's root and says what is wrong.
"""

from __future__ import annotations

import ssl
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from shoal.model.node_port import Identity
from shoal.model.states import Role

# stands in the certificate of every manager and of nobody else: what a dialling node asks for as the host's name
MANAGER_NAME = "swarm-manager"
# makes the context for dialling an outside authority that is verified by the given roots (PEM)
ExternalContext = Callable[[str], ssl.SSLContext]
ROLES = {"swarm-manager": Role.MANAGER, "swarm-worker": Role.WORKER}


@dataclass(frozen=True, slots=True)
class CertificateFiles:
    """Where a node keeps the roots it trusts, its certificate and its key (PEM)."""

    roots: Path
    certificate: Path
    key: Path


def server_context(files: CertificateFiles, password: str | None = None) -> ssl.SSLContext:
    """Return how the node port listens."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.load_cert_chain(files.certificate, files.key, password)
    context.load_verify_locations(files.roots)
    context.verify_mode = ssl.CERT_OPTIONAL
    return context


def client_context(files: CertificateFiles, password: str | None = None) -> ssl.SSLContext:
    """Return how a node dials others."""
    context = _verifying(files.roots.read_text())
    context.load_cert_chain(files.certificate, files.key, password)
    return context


def external_context(files: CertificateFiles, roots: str, password: str | None = None) -> ssl.SSLContext:
    """Return how a manager dials an outside authority: by that one's roots, showing its own certificate."""
    context = ssl.create_default_context(cadata=roots)
    context.load_cert_chain(files.certificate, files.key, password)
    return context


def joining_context(root: str) -> ssl.SSLContext:
    """Return how a node that has no certificate yet dials a manager of the swarm with this root (PEM)."""
    return _verifying(root)


def _verifying(roots: str) -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    # Nodes are known by their role, not by a host's name: callers ask for the name MANAGER_NAME.
    context.load_verify_locations(cadata=roots)
    return context


def unverified_context() -> ssl.SSLContext:
    """Return how to ask a stranger for its root; the answer is checked against a token's digest."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.minimum_version = ssl.TLSVersion.TLSv1_3
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def identity_of(certificate: Mapping[str, Any] | None) -> Identity | None:
    """Read who a peer is from its verified certificate (as `ssl` decodes it); None: it has none, or is no node."""
    if not certificate:
        return None
    subject = {name: value for part in certificate.get("subject", ()) for name, value in part}
    role = ROLES.get(subject.get("organizationalUnitName", ""))
    node_id, cluster_id = subject.get("commonName", ""), subject.get("organizationName", "")
    if role is None or not node_id or not cluster_id:
        return None
    return Identity(node_id=node_id, role=role, cluster_id=cluster_id)
