"""Small HTTP servers on real sockets: one that gives prepared answers, and a reverse proxy."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import httpx
import orjson

PREFIX = "/apps/digits"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serving(server: ThreadingHTTPServer) -> Iterator[None]:
    with server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
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
    lasts_s: float = 0
    """How long it is given again and again, from the first request on."""


def problem(status: int, slug: str, headers: dict[str, str] | None = None, **more: object) -> Answer:
    document = {"type": f"/problems/{slug}", "title": slug, "status": status, "detail": "on purpose", **more}
    return Answer(status, orjson.dumps(document), {"Content-Type": "application/problem+json"} | (headers or {}))


class ScriptedServer(ThreadingHTTPServer):
    """Gives ``answers`` in turn, and the last one again and again."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _ScriptedHandler)
        self.answers: list[Answer] = [Answer()]
        self.paths: list[str] = []
        self.connections = 0
        self.first_request = 0.0
        self.url = f"http://127.0.0.1:{self.server_port}"


class _ScriptedHandler(_Handler):
    server: ScriptedServer

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.first_request = self.server.first_request or time.monotonic()
        self.server.paths.append(self.path)
        answers = self.server.answers
        if answers[0].lasts_s and time.monotonic() >= self.server.first_request + answers[0].lasts_s:
            answers.pop(0)
        answer = answers[0] if len(answers) == 1 or answers[0].lasts_s else answers.pop(0)
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

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}{PREFIX}/"
