"""Serving the API: on a unix socket (mode 0660, group of choice) and on TCP."""

from __future__ import annotations

import asyncio
import grp
import os
import socket
import ssl
from pathlib import Path
from urllib.parse import urlsplit

import structlog
from aiohttp import web

from shoal.daemon.settings import Settings
from shoal.daemon.tls_connection import TlsConnection
from shoal.errors import InvalidArgument

_log = structlog.get_logger(__name__)

SHUTDOWN_TIMEOUT_SECONDS = 2.0
DEFAULT_TCP_PORT = 2375
SOCKET_MODE = 0o660


class _TcpSite(web.TCPSite):
    """A TCP address that is listened on, by TLS if there is a context: with connections that can be half closed."""

    def __init__(self, runner: web.AppRunner, address: str, port: int, context: ssl.SSLContext | None) -> None:
        super().__init__(runner, address, port)
        self._context = context

    async def start(self) -> None:
        """Listen."""
        if self._context is None:
            await super().start()
            return
        await web.BaseSite.start(self)
        context, server = self._context, self._runner.server
        assert server is not None, "the runner was set up"
        self._server = await asyncio.get_running_loop().create_server(
            lambda: TlsConnection(server, context), self._host, self._port, backlog=self._backlog
        )


class Server:
    """The API's listeners, as the settings say."""

    def __init__(self, application: web.Application, settings: Settings) -> None:
        self._runner = web.AppRunner(
            application, handle_signals=False, access_log=None, shutdown_timeout=SHUTDOWN_TIMEOUT_SECONDS
        )
        self._settings = settings
        self._sockets: list[Path] = []

    async def start(self) -> None:
        """Listen on every host.

        Raises:
            InvalidArgument: a host of no known form, or an address that cannot be listened on.
        """
        await self._runner.setup()
        for host in self._settings.listen_on:
            await self._listen(host)
            _log.info("API listens", host=host)

    async def _listen(self, host: str) -> None:
        parts = urlsplit(host)
        try:
            if parts.scheme == "unix":
                await self._listen_unix(Path(parts.netloc + parts.path))
            elif parts.scheme == "tcp":
                address, port = parts.hostname or "127.0.0.1", DEFAULT_TCP_PORT if parts.port is None else parts.port
                await _TcpSite(self._runner, address, port, tls_context(self._settings)).start()
            else:
                raise InvalidArgument(f'--host "{host}": use unix:///path or tcp://address:port')
        except OSError as error:
            raise InvalidArgument(f'--host "{host}": {error.strerror or error}') from error

    async def _listen_unix(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Only a socket nobody answers on is taken away: it is a dead daemon's.
        if path.is_socket():
            if _is_answered(path):
                raise InvalidArgument(f'--host "unix://{path}": another daemon listens there')
            path.unlink()
        old_mask = os.umask(0o177)
        try:
            await web.UnixSite(self._runner, str(path)).start()
        finally:
            os.umask(old_mask)
        if self._settings.group:
            os.chown(path, 0, _group_id(self._settings.group))
        path.chmod(SOCKET_MODE)
        self._sockets.append(path)

    def tcp_ports(self) -> tuple[int, ...]:
        """Return the TCP ports listened on, also where the system chose them."""
        return tuple(address[1] for address in self._runner.addresses if isinstance(address, tuple))

    async def stop(self) -> None:
        """Stop listening; requests under way get a moment to end."""
        await self._runner.cleanup()
        for path in self._sockets:
            path.unlink(missing_ok=True)


def check_listening(settings: Settings) -> None:
    """Refuse, before anything is started, hosts, certificates and a group that cannot be. Raises InvalidArgument."""
    for host in settings.listen_on:
        if urlsplit(host).scheme not in ("unix", "tcp"):
            raise InvalidArgument(f'--host "{host}": use unix:///path or tcp://address:port')
    if any(host.startswith("tcp:") for host in settings.listen_on):
        tls_context(settings)
    if settings.group:
        _group_id(settings.group)


def _group_id(name: str) -> int:
    try:
        return grp.getgrnam(name).gr_gid
    except KeyError:
        raise InvalidArgument(f'--group "{name}": there is no such group') from None


def tls_context(settings: Settings) -> ssl.SSLContext | None:
    """Return how tcp:// hosts are served: None in plain text, else TLS, with `tls_verify` to known clients only.

    Raises:
        InvalidArgument: a file that cannot be read or is none; the flag is named.
    """
    if not settings.tls and not settings.tls_verify:
        return None
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    try:
        context.load_cert_chain(settings.tls_certificate, settings.tls_key)
    except (OSError, ssl.SSLError) as error:
        files = f"--tlscert {settings.tls_certificate} --tlskey {settings.tls_key}"
        raise InvalidArgument(f"{files}: {error.strerror or error}") from error
    if settings.tls_verify:
        try:
            context.load_verify_locations(settings.tls_ca_certificate)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"--tlscacert {settings.tls_ca_certificate}: {error.strerror or error}") from error
        context.verify_mode = ssl.CERT_REQUIRED
    return context


def _is_answered(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True
