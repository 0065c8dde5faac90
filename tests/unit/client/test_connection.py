import http.server
import json
import socketserver
import threading
from contextlib import contextmanager

import pytest

from shoal.client.connection import Client, NoDaemon, RemoteError
from shoal.errors import InvalidArgument


class Handler(http.server.BaseHTTPRequestHandler):
    """Answers with what it was asked; /refuse, /plain and /cut misbehave."""

    protocol_version = "HTTP/1.1"

    def answer(self):
        size = int(self.headers.get("Content-Length") or 0)
        body = self.rfile.read(size).decode()
        if "/refuse" in self.path:
            self.send(409, json.dumps({"message": "name conflicts"}))
        elif "/plain" in self.path:
            self.send(500, "it broke")
        elif "/cut" in self.path:
            self.send_response(200)
            self.send_header("Content-Length", "100")
            self.end_headers()
            self.wfile.write(b"{")
            self.close_connection = True
        elif "/empty" in self.path:
            self.send(200, "")
        else:
            kind = self.headers.get("Content-Type")
            self.send(200, json.dumps({"asked": f"{self.command} {self.path}", "body": body, "type": kind}))

    do_GET = do_POST = do_DELETE = answer  # noqa: N815 - the names http.server calls

    def send(self, status, text):
        self.send_response(status)
        self.send_header("Content-Length", str(len(text)))
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *arguments):
        pass

    def address_string(self):
        return "client"


class UnixServer(socketserver.ThreadingUnixStreamServer):
    daemon_threads = True


@contextmanager
def serving(server):
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def client(tmp_path):
    path = str(tmp_path / "shoal.sock")
    with serving(UnixServer(path, Handler)):
        yield Client(f"unix://{path}")


def test_requests_carry_version_query_and_body(client):
    assert client.get("/services", {"status": True, "filters": '{"a":1}', "left": None})["asked"] == (
        "GET /v1.50/services?status=1&filters=%7B%22a%22%3A1%7D"
    )
    answer = client.post("/swarm/init", {"ListenAddr": "0.0.0.0:2377"})
    assert answer["body"] == '{"ListenAddr": "0.0.0.0:2377"}'
    assert answer["type"] == "application/json"
    assert client.delete("/nodes/a b", {"force": False})["asked"] == "DELETE /v1.50/nodes/a%20b?force=0"
    assert client.post("/empty") is None


def test_refusal_carries_message_and_status(client):
    with pytest.raises(RemoteError, match=r"^name conflicts$") as caught:
        client.post("/refuse", {})
    assert caught.value.http_status == 409
    with pytest.raises(RemoteError, match="it broke"):
        client.get("/plain")
    with pytest.raises(RemoteError, match="name conflicts"), client.stream("GET", "/refuse"):
        pass


def test_answer_that_is_cut_is_no_answer(client):
    with pytest.raises(NoDaemon, match="went away"):
        client.get("/cut")


def test_tcp_host():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        assert Client(f"tcp://127.0.0.1:{server.server_address[1]}").get("/info")["asked"] == "GET /v1.50/info"


def test_nobody_listens(tmp_path):
    with pytest.raises(NoDaemon, match=r"Is shoald running\?"):
        Client(f"unix://{tmp_path}/none.sock").get("/info")


@pytest.mark.parametrize("host", ["shoal.sock", "unix://", "tcp://", "tcp://here:many", "tcp://a:99999"])
def test_bad_host_is_named(host):
    with pytest.raises(InvalidArgument, match=r"^host"):
        Client(host)
