"""Bodies of requests that are no specs."""

from __future__ import annotations

from shoal.model.base import Spec
from shoal.model.specs import ServiceSpec


class JoinRequest(Spec):
    """Body of `POST /swarm/join`; only the first of `remote_addrs` needs to answer."""

    listen_addr: str = ""
    advertise_addr: str = ""
    data_path_addr: str = ""
    remote_addrs: tuple[str, ...] = ()
    join_token: str = ""
    availability: str = ""


class BackupRequest(Spec):
    """Body of `POST /shoal/swarm/backup`; without a passphrase the unlock key seals the file."""

    passphrase: str = ""


class RestoreRequest(Spec):
    """What comes with the file of `POST /shoal/swarm/restore`, in the header X-Shoal-Restore (base64 of JSON)."""

    passphrase: str = ""
    listen_addr: str = ""
    advertise_addr: str = ""


class UnlockRequest(Spec):
    """Body of `POST /swarm/unlock`."""

    unlock_key: str = ""


class FitRequest(Spec):
    """Body of `POST /shoal/services/fit`: services as they are to be."""

    services: tuple[ServiceSpec, ...] = ()
