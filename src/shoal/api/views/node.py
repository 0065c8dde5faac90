"""Nodes as Docker's JSON."""

from __future__ import annotations

import base64

from shoal.api.views.shared import Json, meta_view, plain, with_labels
from shoal.model.objects import Node, NodeDescription


def node_view(node: Node, *, is_leader: bool = False, reachability: str = "") -> Json:
    """Return a node; `is_leader` and `reachability` (for managers) are what raft says now."""
    view = meta_view(node.id, node.meta)
    spec = with_labels(plain(node.spec), named=False)
    view["Spec"] = spec | {"Role": str(node.spec.role), "Availability": str(node.spec.availability)}
    view["Description"] = _description_view(node.description)
    status: Json = {"State": str(node.status.state)}
    if node.status.message:
        status["Message"] = node.status.message
    status["Addr"] = node.status.address
    view["Status"] = status
    if node.manager_status is not None:
        manager: Json = {"Leader": True} if is_leader else {}
        manager["Reachability"] = reachability or "unknown"
        manager["Addr"] = node.manager_status.address
        view["ManagerStatus"] = manager
    return view


def _description_view(description: NodeDescription) -> Json:
    view: Json = {}
    if description.hostname:
        view["Hostname"] = description.hostname
    view["Platform"] = plain(description.platform)
    view["Resources"] = plain(description.resources)
    engine: Json = {"EngineVersion": description.engine_version}
    if description.engine_labels:
        engine["Labels"] = description.engine_labels
    if description.plugins:
        engine["Plugins"] = [{"Type": plugin.type, "Name": plugin.name} for plugin in description.plugins]
    view["Engine"] = engine
    view["TLSInfo"] = tls_view(
        description.trust_root, description.certificate_issuer_subject, description.certificate_issuer_public_key
    )
    return view


def tls_view(trust_root: str, issuer_subject: bytes, issuer_public_key: bytes) -> Json:
    """Return what is said of a certificate's issuer; what is not known is left out."""
    view: Json = {}
    if trust_root:
        view["TrustRoot"] = trust_root
    if issuer_subject:
        view["CertIssuerSubject"] = base64.b64encode(issuer_subject).decode()
    if issuer_public_key:
        view["CertIssuerPublicKey"] = base64.b64encode(issuer_public_key).decode()
    return view
