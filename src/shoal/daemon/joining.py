"""Entering a swarm: as its founder, or by a token at one of its managers; ends with a certificate on disk."""

from __future__ import annotations

import asyncio

import structlog

from shoal.ca.root import Subject, create_root, make_request, sign_request
from shoal.ca.tokens import JoinToken, digest_of, make_join_token, make_unlock_key, parse_join_token
from shoal.core.bootstrap import first_actions
from shoal.core.validate.cluster import certificate_expiry_ns
from shoal.daemon.addresses import EVERYWHERE, choose_advertise_address, resolve, split_address
from shoal.daemon.credentials import Credentials
from shoal.daemon.layout import Layout, SwarmMembership
from shoal.daemon.node_port import CERTIFICATE_PATH
from shoal.daemon.raft import new_raft_id
from shoal.errors import InvalidArgument, ShoalError, Unavailable
from shoal.lib.clock import Clock
from shoal.lib.ids import Ids
from shoal.model.actions import Action
from shoal.model.base import replace
from shoal.model.node_port import CertificateAnswer, CertificateCall, ManagerAddress
from shoal.model.objects import JoinTokens
from shoal.model.requests import JoinRequest
from shoal.model.specs import InitRequest
from shoal.model.states import Role
from shoal.rpc.dialer import Dialer, fetch_root
from shoal.rpc.tls import joining_context

_log = structlog.get_logger(__name__)

DEFAULT_LISTEN_ADDRESS = "0.0.0.0:2377"
ROOT_TRIES = 5
ROOT_RETRY_SECONDS = 2.0


def prepare_founding(
    request: InitRequest, layout: Layout, clock: Clock, ids: Ids
) -> tuple[SwarmMembership, tuple[Action, ...]]:
    """Make what a new swarm begins with: its root, this node's certificate (on disk), its first objects.

    Raises:
        InvalidArgument: an address that is none, or none that can be chosen.
    """
    listen_host, listen_port = split_part("ListenAddr", request.listen_addr or DEFAULT_LISTEN_ADDRESS)
    advertise = advertise_address(request.advertise_addr, listen_host, listen_port)
    data_path_address = resolve(request.data_path_addr) if request.data_path_addr else ""
    cluster_id, node_id, network_id = ids.new(), ids.new(), ids.new()
    raft_id = new_raft_id(ids)
    root = create_root(clock.now_ns())
    locks = request.auto_lock_managers or request.spec.encryption_config.auto_lock_managers
    unlock_key = make_unlock_key(ids) if locks else ""
    tokens = JoinTokens(worker=make_join_token(root, ids), manager=make_join_token(root, ids))
    actions = first_actions(request, (cluster_id, node_id, network_id), root, tokens, raft_id, advertise, unlock_key)
    made = make_request()
    subject = Subject(node_id=node_id, role=Role.MANAGER, cluster_id=cluster_id)
    expiry_ns = certificate_expiry_ns(request.spec)
    certificate = sign_request(root, made.request, subject, clock.now_ns(), expiry_ns)
    Credentials(layout.certificate_files, clock).store(made.key, certificate, root.certificate)
    membership = SwarmMembership(
        node_id=node_id,
        cluster_id=cluster_id,
        raft_id=raft_id,
        advertise_address=advertise,
        listen_address=f"{listen_host}:{listen_port}",
        data_path_address=data_path_address,
        managers=(ManagerAddress(node_id=node_id, raft_id=raft_id, address=advertise),),
    )
    return membership, actions


class JoinPlan:
    """A join request that was read and found good.

    Raises (when made):
        InvalidArgument: a token or an address that is none; the field is named.
    """

    def __init__(self, request: JoinRequest) -> None:
        if not request.remote_addrs:
            raise InvalidArgument("at least 1 RemoteAddr is required to join")
        self.token_text = request.join_token
        self.token: JoinToken = parse_join_token(request.join_token)
        self.availability = request.availability
        self.listen_host, self.listen_port = split_part("ListenAddr", request.listen_addr or DEFAULT_LISTEN_ADDRESS)
        hosts = (split_part("RemoteAddrs", text) for text in request.remote_addrs)
        self.remotes = tuple(f"{host}:{port}" for host, port in hosts)
        self.data_path_address = resolve(request.data_path_addr) if request.data_path_addr else ""
        if request.advertise_addr:
            self.advertise = advertise_address(request.advertise_addr, self.listen_host, self.listen_port)
        else:
            # the leader sees where this node comes from
            self.advertise = f"{self.listen_host}:{self.listen_port}"


async def enter(plan: JoinPlan, layout: Layout, clock: Clock) -> SwarmMembership:
    """Get a certificate by the token; when this returns it is on disk, and the membership is not yet.

    Raises:
        Unavailable: no manager answers.
        InvalidArgument: the manager is of another swarm than the token, or refuses it.
    """
    last: ShoalError = Unavailable("no manager of the swarm answers")
    for attempt in range(ROOT_TRIES):
        for remote in plan.remotes:
            try:
                return await _enter_at(remote, plan, layout, clock)
            except Unavailable as error:
                last = error
        if attempt + 1 < ROOT_TRIES:
            await asyncio.sleep(ROOT_RETRY_SECONDS)
    raise last


async def _enter_at(remote: str, plan: JoinPlan, layout: Layout, clock: Clock) -> SwarmMembership:
    root = await fetch_root(remote)
    found = digest_of(root)
    if found != plan.token.digest:
        raise InvalidArgument(
            f"remote CA does not match fingerprint. Expected: {plan.token.digest}, {remote} has {found}: "
            "the token is of another swarm, or of before its root was rotated"
        )
    made = await asyncio.to_thread(make_request)
    dialer = Dialer(joining_context(root))
    try:
        call = CertificateCall(request=made.request, token=plan.token_text, availability=plan.availability)
        answer = await dialer.call(remote, CERTIFICATE_PATH, call, CertificateAnswer)
    finally:
        await dialer.close()
    Credentials(layout.certificate_files, clock).store(made.key, answer.certificate, answer.root)
    _log.info("let into a swarm", cluster=answer.cluster_id, node=answer.node_id, role=answer.role.value)
    return SwarmMembership(
        node_id=answer.node_id,
        cluster_id=answer.cluster_id,
        raft_id=0,
        advertise_address=plan.advertise,
        listen_address=f"{plan.listen_host}:{plan.listen_port}",
        data_path_address=plan.data_path_address,
        node_number=answer.node_number,
        managers=answer.managers,
    )


def revive(request: InitRequest, old: SwarmMembership) -> SwarmMembership:
    """Return the membership of a manager that goes on alone, at another address if one is asked for.

    Raises:
        InvalidArgument: an address that is none.
    """
    listen_host, listen_port = split_part("ListenAddr", old.listen_address)
    if request.listen_addr not in ("", DEFAULT_LISTEN_ADDRESS):
        listen_host, listen_port = split_part("ListenAddr", request.listen_addr)
    advertise = old.advertise_address
    if request.advertise_addr:
        advertise = advertise_address(request.advertise_addr, listen_host, listen_port)
    return replace(
        old,
        listen_address=f"{listen_host}:{listen_port}",
        advertise_address=advertise,
        data_path_address=resolve(request.data_path_addr) if request.data_path_addr else old.data_path_address,
        managers=(ManagerAddress(node_id=old.node_id, raft_id=old.raft_id, address=advertise),),
    )


def split_part(field: str, text: str) -> tuple[str, int]:
    """Split an address of a request. Raises InvalidArgument, which names the field."""
    try:
        return split_address(text)
    except InvalidArgument as error:
        raise InvalidArgument(f'invalid {field} "{text}": {error.message}') from None


def advertise_address(wanted: str, listen_host: str, listen_port: int) -> str:
    """Return host and port to advertise: what was asked for, the listen address, or the one address there is."""
    if wanted:
        host, port = split_part("AdvertiseAddr", wanted)
        if ":" not in wanted:
            port = listen_port
        return f"{resolve(host)}:{port}"
    if listen_host not in EVERYWHERE:
        return f"{resolve(listen_host)}:{listen_port}"
    return f"{choose_advertise_address()}:{listen_port}"
