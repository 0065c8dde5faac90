"""How a daemon is reached: a unix socket, TCP with or without TLS, or `ssh` to its host. Knows no path of the API."""

from __future__ import annotations

import http.client
import socket
import ssl
from typing import TYPE_CHECKING, NamedTuple, Protocol
from urllib.parse import SplitResult, urlsplit

from shoal.errors import InvalidArgument, ShoalError

if TYPE_CHECKING:
    import subprocess
    from pathlib import Path

TCP_PORT = 2375
TLS_PORT = 2376
# what ssh runs on the daemon's host: its standard streams become a connection
REMOTE_COMMAND = "dial-stdio"
REMOTE_PROGRAM = "shoal"
END_SECONDS = 5.0


class TlsFiles(NamedTuple):
    """Which certificates a connection over TLS uses, as docker's flags `--tls*` name them.

    `verifies`: the daemon's certificate must be of `authority` and for its name.
    """

    authority: Path
    certificate: Path
    key: Path
    verifies: bool


class Dialer(Protocol):
    """Makes connections to one daemon."""

    def connect(self, timeout_seconds: float | None) -> http.client.HTTPConnection:
        """Return a connection that is opened when it is first used."""


def make_dialer(host: str, tls: TlsFiles | None) -> Dialer:
    """Return what connects to a host as DOCKER_HOST names it.

    Args:
        host: `unix:///path`, `tcp://address:port` or `ssh://[user@]host[:port][/path of the socket]`.
        tls: for `tcp://`: None for a connection in the clear.

    Raises:
        InvalidArgument: it is none of these.
    """
    parts = urlsplit(host)
    try:
        port = parts.port
    except ValueError:
        raise InvalidArgument(f'host "{host}": the port is a number from 1 to 65535') from None
    if parts.scheme == "unix" and (parts.netloc + parts.path):
        return _UnixDialer(parts.netloc + parts.path)
    if parts.scheme in ("tcp", "http", "https") and parts.hostname:
        if tls is None and parts.scheme != "https":
            return _TcpDialer(parts.hostname, port or TCP_PORT, None)
        return _TcpDialer(parts.hostname, port or TLS_PORT, _tls_context(tls))
    if parts.scheme == "ssh" and parts.hostname:
        return _SshDialer(parts, port)
    raise InvalidArgument(f'host "{host}": use unix:///path, tcp://address:port or ssh://user@host')


def _tls_context(files: TlsFiles | None) -> ssl.SSLContext:
    """Return the settings of a client's side of TLS. Raises InvalidArgument, naming the file that cannot be used."""
    context = ssl.create_default_context()
    if files is None:
        return context
    if files.verifies:
        if not files.authority.is_file():
            raise InvalidArgument(f"--tlscacert: no file {files.authority}: name the daemon's authority")
        context = ssl.create_default_context(cafile=str(files.authority))
    else:
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    if files.certificate.is_file():
        try:
            context.load_cert_chain(files.certificate, files.key)
        except (OSError, ssl.SSLError) as error:
            raise InvalidArgument(f"--tlscert {files.certificate}, --tlskey {files.key}: {error}") from None
    return context


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: str, timeout: float | None) -> None:
        super().__init__("shoal", timeout=timeout)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(self._path)


class _UnixDialer:
    def __init__(self, path: str) -> None:
        self._path = path

    def connect(self, timeout_seconds: float | None) -> http.client.HTTPConnection:
        return _UnixConnection(self._path, timeout_seconds)


class _TcpDialer:
    def __init__(self, address: str, port: int, tls: ssl.SSLContext | None) -> None:
        self._address = address
        self._port = port
        self._tls = tls

    def connect(self, timeout_seconds: float | None) -> http.client.HTTPConnection:
        if self._tls is None:
            return http.client.HTTPConnection(self._address, self._port, timeout=timeout_seconds)
        return http.client.HTTPSConnection(self._address, self._port, timeout=timeout_seconds, context=self._tls)


class _SshConnection(http.client.HTTPConnection):
    """One end of a pair of sockets; the other is what an ssh process reads and writes."""

    def __init__(self, command: list[str], timeout: float | None) -> None:
        super().__init__("shoal", timeout=timeout)
        self._command = command
        self._process: subprocess.Popen[bytes] | None = None

    def connect(self) -> None:
        import subprocess

        ours, theirs = socket.socketpair()
        with theirs:
            self._process = subprocess.Popen(self._command, stdin=theirs.fileno(), stdout=theirs.fileno())
        ours.settimeout(self.timeout)
        self.sock = ours

    def close(self) -> None:
        super().close()
        if self._process is None:
            return
        import subprocess

        try:
            self._process.wait(END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process = None


class _SshDialer:
    def __init__(self, parts: SplitResult, port: int | None) -> None:
        if parts.password is not None:
            raise InvalidArgument("ssh://: a password in the address is not used: use a key, and ssh-agent")
        self._command = ["ssh"]
        if parts.username:
            self._command += ["-l", parts.username]
        if port is not None:
            self._command += ["-p", str(port)]
        socket_path = parts.path if parts.path not in ("", "/") else ""
        remote = [REMOTE_PROGRAM, *(["-H", f"unix://{socket_path}"] if socket_path else []), "system", REMOTE_COMMAND]
        self._command += ["--", str(parts.hostname), *remote]

    def connect(self, timeout_seconds: float | None) -> http.client.HTTPConnection:
        import shutil

        if shutil.which("ssh") is None:
            raise ShoalError("ssh:// needs the program ssh: install openssh-client")
        return _SshConnection(self._command, timeout_seconds)
