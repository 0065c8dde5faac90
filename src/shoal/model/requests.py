"""Bodies of requests that are no specs."""

from __future__ import annotations

from shoal.model.base import Spec


class JoinRequest(Spec):
    """Body of `POST /swarm/join`; only the first of `remote_addrs` needs to answer."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: tuple[str, ...] = ()
    join_token: str = ""
    availability: str = ""


class UnlockRequest(Spec):
    """Body of `POST /swarm/unlock`."""

    unlock_key: str = ""
