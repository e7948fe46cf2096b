"""A real HTTP server that answers what a test tells it, and notes what it is asked."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import orjson

LIVE = b'{"status":"ready"}'


@dataclass
class Answer:
    """``status`` None: the connection is closed without a word. ``after``: an event to wait for first. ``lasts_s``: how
    long, from the first request on, it is given again and again.
    """

    status: int | None = 200
    body: bytes = LIVE
    headers: dict[str, str] = field(default_factory=dict)
    after: threading.Event | None = None
    lasts_s: float = 0


def problem(status: int, slug: str, headers: dict[str, str] | None = None, **more: object) -> Answer:
    document = {"type": f"/problems/{slug}", "title": slug, "status": status, "detail": "on purpose", **more}
    return Answer(status, orjson.dumps(document), {"Content-Type": "application/problem+json"} | (headers or {}))


class Talker(ThreadingHTTPServer):
    """Gives ``answers`` in turn, the last one again and again. ``asked``: the paths; ``connections``: how many."""

    daemon_threads = True

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.answers: list[Answer] = [Answer()]
        self.asked: list[str] = []
        self.connections = 0
        self.first_request = 0.0
        self.url = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server: Talker

    def setup(self) -> None:
        super().setup()
        self.server.connections += 1

    def do_GET(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.server.first_request = self.server.first_request or time.monotonic()
        self.server.asked.append(self.path)
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

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def talking() -> Iterator[Talker]:
    with Talker() as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server
        finally:
            server.shutdown()
            thread.join()
