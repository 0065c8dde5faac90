"""Where the API listens: TLS on tcp://, group and mode of the socket, connections of which one way is closed."""

from __future__ import annotations

import grp
import json
import os
import socket
import stat
import subprocess

import pytest

from tests.conformance.replies.vectors import frames
from tests.system.daemon import running_daemon

pytestmark = pytest.mark.root

GROUP = "nogroup"


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """A root, and certificates of it for the daemon (127.0.0.1) and a client; `stranger` has another root."""
    folder = tmp_path_factory.mktemp("tls")

    def openssl(*words):
        subprocess.run(["openssl", *words], cwd=folder, check=True, capture_output=True)

    for root, names in (("ca", ("server", "client")), ("other-ca", ("stranger",))):
        new = ("req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2")
        openssl(*new, "-subj", f"/CN={root}", "-keyout", f"{root}-key.pem", "-out", f"{root}.pem")
        for name in names:
            openssl(
                *(*new, "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-CA", f"{root}.pem"),
                *("-CAkey", f"{root}-key.pem", "-keyout", f"{name}-key.pem", "-out", f"{name}.pem"),
            )
    return folder


@pytest.fixture(scope="module")
def listening(certificates):
    flags = (
        *("-H", "unix://{root}/run/shoal.sock", "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--group", GROUP),
        *("--tlscacert", f"{certificates}/ca.pem", "--tlscert", f"{certificates}/server.pem"),
        *("--tlskey", f"{certificates}/server-key.pem"),
    )
    with running_daemon(*flags) as daemon:
        daemon.import_busybox()
        yield daemon


def ask(daemon, certificates, name, *words):
    tls = ("--tlscacert", f"{certificates}/ca.pem", "--tlsverify") if name else ()
    own = ("--tlscert", f"{certificates}/{name}.pem", "--tlskey", f"{certificates}/{name}-key.pem") if name else ()
    return daemon.execute("docker", "-H", "tcp://127.0.0.1:2376", *tls, *own, *words, check=False)


def test_tls(listening, certificates):
    done = ask(listening, certificates, "client", "run", "--rm", "busybox", "echo", "hi")
    assert (done.returncode, done.stdout) == (0, "hi\n")
    # streams, both ways and half closed, through TLS
    words = ("docker", "-H", "tcp://127.0.0.1:2376", "--tlsverify", "--tlscacert", f"{certificates}/ca.pem")
    own = ("--tlscert", f"{certificates}/client.pem", "--tlskey", f"{certificates}/client-key.pem")
    count = listening.execute(*words, *own, "run", "--rm", "-i", "busybox", "wc", "-c", input="x" * 300_000)
    assert count.stdout == "300000\n"
    stranger = ask(listening, certificates, "stranger", "version")
    assert stranger.returncode != 0
    assert any(word in stranger.stderr for word in ("unknown certificate authority", "bad certificate", "handshake"))
    plain = ask(listening, certificates, "", "version")
    assert plain.returncode != 0
    assert "shoal" not in plain.stdout.lower()


def test_the_socket_belongs_to_a_group(listening):
    found = listening.socket_path.stat()
    assert stat.S_IMODE(found.st_mode) == 0o660
    assert (found.st_uid, found.st_gid) == (os.getuid(), grp.getgrnam(GROUP).gr_gid)


def test_a_stream_that_is_half_closed(listening):
    name = "half"
    body = {"Image": "busybox", "Cmd": ["sh", "-c", "cat; echo end"], "OpenStdin": True, "StdinOnce": True}
    assert listening.request("POST", f"/containers/create?name={name}", body)[0] == 201
    with socket.socket(socket.AF_UNIX) as client:
        client.settimeout(20)
        client.connect(str(listening.socket_path))
        head = b"Host: docker\r\nConnection: Upgrade\r\nUpgrade: tcp\r\nContent-Length: 0\r\n\r\n"
        client.sendall(f"POST /v1.50/containers/{name}/attach?stream=1&stdin=1&stdout=1 HTTP/1.1\r\n".encode() + head)
        answer = b""
        while b"\r\n\r\n" not in answer:
            answer += client.recv(1)
        assert answer.startswith(b"HTTP/1.1 101 ")
        assert b"application/vnd.docker.multiplexed-stream" in answer
        assert listening.request("POST", f"/containers/{name}/start")[0] == 204
        client.sendall(b"hello\n")
        client.shutdown(socket.SHUT_WR)
        said = b""
        while piece := client.recv(4096):
            said += piece
    assert b"".join(payload for _, payload in frames(said)) == b"hello\nend\n"
    assert listening.request("POST", f"/containers/{name}/wait")[1]["StatusCode"] == 0
    assert json.loads(listening.docker("inspect", name).stdout)[0]["State"]["ExitCode"] == 0
    listening.docker("rm", name)
