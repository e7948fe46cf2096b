"""Small servers on real sockets: prepared HTTP answers, a reverse proxy, and a name service."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from socketserver import BaseRequestHandler, BaseServer, UDPServer
from typing import Any, Final, TypeVar

import httpx
import orjson

PREFIX = "/apps/digits"

Server = TypeVar("Server", bound=BaseServer)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(server: Server) -> Iterator[Server]:
    """Gives the server, which serves in the block."""
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()


@dataclass
class Answer:
    status: int | None = 200
    """None: the connection is closed without an answer."""
    body: bytes = b'{"status":"ready"}'
    headers: dict[str, str] = field(default_factory=dict)
    after: threading.Event | None = None
    """What to wait for first."""


def problem(status: int, slug: str, headers: dict[str, str] | None = None, **more: object) -> Answer:
    document = {"type": f"/problems/{slug}", "title": slug, "status": status, "detail": "on purpose", **more}
    return Answer(status, orjson.dumps(document), {"Content-Type": "application/problem+json"} | (headers or {}))


class ScriptedServer(ThreadingHTTPServer):
    """Gives ``answers`` in turn, and the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ScriptedHandler)
        self.answers: list[Answer] = [Answer()]
        self.times: list[float] = []
        """When each request came, in seconds."""
        self.connections = 0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _ScriptedHandler(_Handler):
    server: ScriptedServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.times.append(time.monotonic())
        answers = self.server.answers
        answer = answers[0] if len(answers) == 1 else answers.pop(0)
        if answer.after:
            answer.after.wait(60)
        if answer.status is None:
            self.close_connection = True
            return
        self.send_response(answer.status)
        for name, value in ({"Content-Length": str(len(answer.body))} | answer.headers).items():
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.body)
        if int(answer.headers.get("Content-Length", 0)) > len(answer.body):
            self.close_connection = True

    do_POST = do_GET  # noqa: N815 - the name that http.server calls


@contextmanager
def stripping_proxy(target: str) -> Iterator[str]:
    """Gives the URL of the service at ``target`` below a path prefix, which the proxy strips, as nginx can."""

    class Handler(_Handler):
        def forward(self) -> None:
            if not self.path.startswith(f"{PREFIX}/"):
                self.send_error(404)
                return
            body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            url = target + self.path.removeprefix(PREFIX)
            headers = {name: value for name, value in self.headers.items() if name.lower() != "host"}
            answer = httpx.request(self.command, url, content=body, headers=headers, timeout=60)
            self.send_response(answer.status_code)
            for name, value in answer.headers.items():
                if name not in ("content-length", "content-encoding", "transfer-encoding", "connection"):
                    self.send_header(name, value)
            self.send_header("Content-Length", str(len(answer.content)))
            self.end_headers()
            with contextlib.suppress(ConnectionError):  # the browser went on to another page
                self.wfile.write(answer.content)

        do_GET = do_POST = forward  # noqa: N815

    with serving(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as server:
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}/"


TTL_S: Final = 5
"""CoreDNS's for Kubernetes' names, by default."""

_ADDRESS: Final = 1
_HEADER: Final = struct.Struct(">HHHHHH")
_ANSWER: Final = 0x8180  # flags: an answer, recursion wanted and had, no error


class HeadlessService(UDPServer):
    """A headless Service on this machine: answers every question for an IPv4 address with ``addresses`` (RFC 1035).

    A gateway uses it with ``DIGITGAN_MODEL_SERVER=dns://127.0.0.1:PORT/model-server:8500``. gRPC's client then does
    what it does in a cluster: it resolves the name again when a connection ends.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), BaseRequestHandler)
        self.addresses: list[str] = []
        self.questions = 0

    def target(self, port: int) -> str:
        """The address for a gRPC client: the port is the model servers'."""
        return f"dns://127.0.0.1:{self.server_address[1]}/model-server:{port}"

    def finish_request(self, request: Any, client_address: Any) -> None:
        asked, own_socket = request
        self.questions += 1
        number, *_ = _HEADER.unpack_from(asked)
        end = asked.index(0, _HEADER.size) + 5  # the name, and its type and class
        question = asked[_HEADER.size : end]
        found = list(self.addresses) if struct.unpack(">HH", question[-4:]) == (_ADDRESS, 1) else []
        records = b"".join(
            struct.pack(">HHHIH", 0xC00C, _ADDRESS, 1, TTL_S, 4) + socket.inet_aton(address) for address in found
        )
        answer = _HEADER.pack(number, _ANSWER, 1, len(found), 0, 0) + question + records
        own_socket.sendto(answer, client_address)
