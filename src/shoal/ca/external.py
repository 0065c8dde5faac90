"""A signing service outside the swarm, by cfssl's protocol: a request by HTTPS, with the manager's certificate."""

from __future__ import annotations

import asyncio
import ssl
from urllib.parse import urlsplit

import aiohttp
import msgspec

from shoal.ca.root import ORGANIZATIONAL_UNITS, ROOT_NAME, Subject
from shoal.errors import InvalidArgument, Unavailable
from shoal.model.specs import ExternalCA
from shoal.model.states import Role

PROTOCOL = "cfssl"
TIMEOUT_SECONDS = 5.0


class _Result(msgspec.Struct):
    certificate: str = ""


class _Fault(msgspec.Struct):
    code: int = 0
    message: str = ""


class _Answer(msgspec.Struct):
    success: bool = False
    result: _Result | None = None
    errors: tuple[_Fault, ...] = ()


def check_external(authority: ExternalCA) -> None:
    """Refuse what cannot be asked. Raises InvalidArgument."""
    if authority.protocol.lower() not in ("", PROTOCOL):
        raise InvalidArgument(f"ExternalCA protocol {authority.protocol!r}: only cfssl is known")
    parts = urlsplit(authority.url)
    if parts.scheme != "https" or not parts.netloc:
        raise InvalidArgument(f"ExternalCA URL {authority.url!r}: it must begin with https://")


async def sign_externally(authority: ExternalCA, request: str, subject: Subject, context: ssl.SSLContext) -> str:
    """Have a request (PEM) signed by the service; returns the certificate or chain (PEM).

    Raises:
        Unavailable: it is not reached in 5 s, or refuses.
    """
    names = [subject.node_id, ORGANIZATIONAL_UNITS[subject.role]]
    if subject.role == Role.MANAGER:
        names.append(ROOT_NAME)
    body = {
        "certificate_request": request,
        "hosts": names,
        "subject": {
            "CN": subject.node_id,
            "names": [{"OU": ORGANIZATIONAL_UNITS[subject.role], "O": subject.cluster_id}],
        },
    }
    try:
        async with (
            asyncio.timeout(TIMEOUT_SECONDS),
            aiohttp.ClientSession() as session,
            session.post(authority.url, data=msgspec.json.encode(body), ssl=context) as response,
        ):
            answer = msgspec.json.decode(await response.read(), type=_Answer)
    except (aiohttp.ClientError, OSError, TimeoutError, msgspec.DecodeError) as error:
        raise Unavailable(f"the external CA at {authority.url} does not sign: {_reason(error)}") from error
    if not answer.success or answer.result is None or not answer.result.certificate:
        reasons = "; ".join(fault.message for fault in answer.errors) or "no reason given"
        raise Unavailable(f"the external CA at {authority.url} refuses to sign: {reasons}")
    return answer.result.certificate


def _reason(error: Exception) -> str:
    if isinstance(error, aiohttp.ClientConnectorError):
        # its own text tells of objects in memory
        return f"cannot connect: {error.os_error.strerror or error.os_error}"
    return str(error) or "no answer in time"
