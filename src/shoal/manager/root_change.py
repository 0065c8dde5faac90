"""Changing the root of a swarm: what an update of the swarm asks for, and when a rotation is over.

A rotation is over when every node of the swarm reports a certificate of the new root; then the old one is forgotten and
the join tokens name the new one. A node that is down holds it up until it comes back or is removed, as with Docker.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Sequence

import structlog
from cryptography import x509

from shoal.ca.external import check_external, sign_externally
from shoal.ca.root import Subject, create_root, issuer_of, make_request, sign_request
from shoal.ca.rotation import check_root, cross_sign
from shoal.core.validate.cluster import certificate_expiry_ns
from shoal.errors import InvalidArgument, NotBuilt, OutOfSequence, Unavailable
from shoal.lib.clock import Clock
from shoal.model.actions import Action, Replace
from shoal.model.base import replace
from shoal.model.objects import Cluster, JoinTokens, Node, RootCA, RootRotation
from shoal.model.specs import ClusterSpec, ExternalCA
from shoal.model.states import Role
from shoal.rpc.tls import ExternalContext
from shoal.store.store import Store
from shoal.store.view import View

_log = structlog.get_logger(__name__)

MakeJoinToken = Callable[[RootCA], str]


def active_root(cluster: Cluster) -> RootCA:
    """Return the root whose key signs now. Raises Unavailable."""
    if cluster.root_rotation is not None:
        return cluster.root_rotation.root
    if cluster.root_ca is None:
        raise Unavailable("the swarm has no certificate authority yet; try again in a moment")
    return cluster.root_ca


def externals_of(spec: ClusterSpec, root: RootCA, trusted: RootCA | None) -> tuple[ExternalCA, ...]:
    """Return the outside authorities that sign for `root`; one that names no root signs for the `trusted` one."""
    default = trusted.certificate if trusted is not None else ""
    return tuple(
        authority
        for authority in spec.ca_config.external_cas
        if (authority.ca_cert or default).strip() == root.certificate.strip()
    )


def sign_here(cluster: Cluster, request: str, subject: Subject, now_ns: int) -> str:
    """Return what `Signer.sign` does, by the key of the active root, which must be here. Raises InvalidArgument."""
    expiry_ns = certificate_expiry_ns(cluster.spec)
    return sign_request(active_root(cluster), request, subject, now_ns, expiry_ns) + _above(cluster)


def _above(cluster: Cluster) -> str:
    """Return what stands above a certificate while nodes still trust the old root only."""
    return cluster.root_rotation.cross_signed if cluster.root_rotation is not None else ""


class Signer:
    """Signs requests with the swarm's root, or has an outside authority do it.

    Args:
        clock: when certificates begin.
        external_context: how an outside authority is dialled, given the roots it is verified by.
    """

    def __init__(self, clock: Clock, external_context: ExternalContext | None) -> None:
        self._clock = clock
        self._external_context = external_context

    async def sign(self, cluster: Cluster, request: str, subject: Subject) -> str:
        """Return a certificate (PEM), with what it needs above it while the root is rotated.

        Raises:
            InvalidArgument: a bad request.
            Unavailable: nobody signs.
        """
        root = active_root(cluster)
        externals = externals_of(cluster.spec, root, cluster.root_ca)
        if externals:
            return await self._ask(externals, root, request, subject) + _above(cluster)
        if root.key:
            return await asyncio.to_thread(sign_here, cluster, request, subject, self._clock.now_ns())
        raise Unavailable("the swarm's root has no key here, and no external CA of this root is configured")

    async def _ask(self, authorities: Sequence[ExternalCA], root: RootCA, request: str, subject: Subject) -> str:
        if self._external_context is None:
            raise Unavailable("this manager has no certificate to show an external CA")
        last = Unavailable("no external CA is configured")
        for authority in authorities:
            try:
                context = self._external_context(authority.ca_cert or root.certificate)
                signed = await sign_externally(authority, request, subject, context)
                _check_signed(signed, root, request, subject)
                return signed
            except Unavailable as error:
                last = error
        raise last

    async def prepare(self, cluster: Cluster, spec: ClusterSpec) -> RootRotation | None:
        """Return the rotation that an update of the swarm to `spec` asks for: the present one if it asks for none.

        Raises:
            InvalidArgument: a root, key or outside authority that cannot be used.
            Unavailable: the outside authority does not sign.
            NotBuilt: the old root's key is not here to vouch for the new one.
        """
        for authority in spec.ca_config.external_cas:
            check_external(authority)
        trusted = cluster.root_ca
        if trusted is None:
            raise Unavailable("the swarm has no certificate authority yet; try again in a moment")
        wanted = self._wanted_root(cluster, spec)
        rotation = cluster.root_rotation
        if wanted is not None and wanted.certificate == trusted.certificate:
            rotation = None
        elif wanted is not None:
            if not trusted.key:
                raise NotBuilt("rotating away from a root whose key only an external CA has is not built")
            crossed = await asyncio.to_thread(cross_sign, trusted, wanted.certificate, self._clock.now_ns())
            rotation = RootRotation(root=wanted, cross_signed=crossed)
        root = rotation.root if rotation is not None else trusted
        externals = externals_of(spec, root, trusted)
        if not root.key and not externals:
            raise InvalidArgument("CAConfig: a root without CAConfig.SigningCAKey needs an external CA of that root")
        if spec.ca_config.external_cas != cluster.spec.ca_config.external_cas and externals:
            probe = await asyncio.to_thread(make_request)
            subject = Subject(node_id="probe", role=Role.WORKER, cluster_id=cluster.id)
            await self._ask(externals, root, probe.request, subject)
        return rotation

    def _wanted_root(self, cluster: Cluster, spec: ClusterSpec) -> RootCA | None:
        ca_config = spec.ca_config
        if ca_config.signing_ca_cert:
            brought = RootCA(certificate=ca_config.signing_ca_cert, key=ca_config.signing_ca_key)
            wanted = check_root(brought, self._clock.now_ns())
            return None if wanted.certificate == active_root(cluster).certificate else wanted
        if ca_config.force_rotate > cluster.spec.ca_config.force_rotate:
            return create_root(self._clock.now_ns())
        return None


def _check_signed(signed: str, root: RootCA, request: str, subject: Subject) -> None:
    """Refuse what an outside authority returned if it is not what was asked. Raises Unavailable."""
    try:
        leaf = x509.load_pem_x509_certificates(signed.encode())[0]
        leaf.verify_directly_issued_by(x509.load_pem_x509_certificate(root.certificate.encode()))
        names = {part.value for part in leaf.subject}
        fits = leaf.public_key() == x509.load_pem_x509_csr(request.encode()).public_key()
    except Exception as error:
        raise Unavailable(f"the external CA returned no certificate of the swarm's root: {error}") from error
    if not fits or subject.node_id not in names or subject.cluster_id not in names:
        raise Unavailable("the external CA returned a certificate for somebody else: look at its profile")


class RotationLoop:
    """Ends a rotation of the root when all nodes have moved over; runs on the leader."""

    def __init__(self, store: Store, make_join_token: MakeJoinToken) -> None:
        self._store = store
        self._make_join_token = make_join_token

    async def run(self) -> None:
        """Look after every change of a node or the swarm; never returns."""
        follower = self._store.follow("node", "cluster")
        while True:
            try:
                await self._store.update(self._plan)
            except OutOfSequence:
                continue
            await follower.wait()

    def _plan(self, view: View) -> Sequence[Action]:
        cluster = view.cluster()
        if cluster is None or cluster.root_rotation is None or not has_moved(cluster, view.find(Node)):
            return ()
        root = cluster.root_rotation.root
        tokens = JoinTokens(worker=self._make_join_token(root), manager=self._make_join_token(root))
        _log.info("the rotation of the root is over", cluster=cluster.id)
        done = replace(cluster, root_ca=root, root_rotation=None, join_tokens=tokens)
        return (Replace(object=done, expected_version=cluster.meta.version),)


def has_moved(cluster: Cluster, nodes: Iterable[Node]) -> bool:
    """Whether all nodes report a certificate of the root that signs now."""
    key = issuer_of(active_root(cluster).certificate).public_key
    return all(node.description.certificate_issuer_public_key == key for node in nodes)
