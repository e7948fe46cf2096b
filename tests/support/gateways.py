"""The gateway and its model server, as processes of their own, clients, and the shape of an error."""

import socket
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
from prometheus_client.parser import text_string_to_metric_families

from api.http import problems
from api.middleware.every_request import NOTHING
from digitgan.processes import model_server_flags
from tests.support.misbehaving import MisbehavingServer
from tests.support.pictures import saved
from tests.support.processes import EMBEDDED, ModelServerProcess, ServerProcess

DIGIT: Final = saved(np.zeros((28, 28), np.uint8))
"""A PNG that can be scored."""


def model_server(models_dir: Path, socket: Path, program: str = EMBEDDED) -> ModelServerProcess:
    """Returns a model server on a Unix socket, with the flags of ``digitgan up``, and its files beside the socket."""
    directory = socket.with_suffix(".config")
    directory.mkdir(exist_ok=True)
    flags = model_server_flags(models_dir.absolute(), directory, socket, batches=1 if program == EMBEDDED else 2)
    return ModelServerProcess(program, flags, f"unix:{socket}")


def gateway(target: str, program: Sequence[str] = ("-m", "api.main"), /, **settings: object) -> ServerProcess:
    """Returns a gateway on a free port, in front of the model server at ``target``, patient on a busy machine."""
    settings = {"request_timeout_s": 60, "ready_timeout_s": 30} | settings
    named = {f"DIGITGAN_{name.upper()}": str(value) for name, value in settings.items()}
    return ServerProcess(*program, environment={"DIGITGAN_PORT": "0", "DIGITGAN_MODEL_SERVER": target} | named)


class GatewayClient(httpx.Client):
    """A client of the gateway ``process``."""

    def __init__(self, process: ServerProcess) -> None:
        # Never expiring: httpx may close an expired connection that another thread has just taken.
        limits = httpx.Limits(max_connections=None, keepalive_expiry=None)
        super().__init__(base_url=process.url, timeout=60, limits=limits)
        self.process = process

    def connect(self) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.base_url.port or 0), timeout=60)

    def exchange(self, *pieces: bytes) -> bytes:
        """Sends bytes on a connection, piece by piece. Returns all that comes until the gateway closes it."""
        received = b""
        with self.connect() as connection, suppress(ConnectionResetError):  # it closed while some bytes were unread
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            for piece in pieces:
                connection.sendall(piece)
                time.sleep(0.01 if len(pieces) > 1 else 0)
            while found := connection.recv(2**16):
                received += found
        return received

    def metrics(self) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
        """Returns the values of all metrics by name and labels."""
        response = self.get("/metrics")
        assert response.status_code == 200
        assert response.headers["content-type"].startswith("text/plain")
        return {
            (sample.name, tuple(sorted(sample.labels.items()))): sample.value
            for family in text_string_to_metric_families(response.text)
            for sample in family.samples
        }

    def metric(self, name: str, **labels: str) -> float:
        """Returns the value of a metric; 0 before it has one."""
        return self.metrics().get((f"digitgan_{name}", tuple(sorted(labels.items()))), 0.0)

    def in_flight(self) -> float:
        """Returns the sum of the gauges of work in progress, without the request for them."""
        return sum(value for (name, _), value in self.metrics().items() if name.endswith("_in_flight")) - 1

    def on_each_image_route(self, headers: dict[str, str] | None = None) -> list[httpx.Response]:
        """Sends a small request to each route that makes or scores images, except /dataset. Returns the answers."""
        return [
            self.post("/generate", json={"seeds": [1]}, headers=headers),
            self.get("/digits/1.png", headers=headers),
            self.post("/interpolate", json={"seeds": [1, 2]}, headers=headers),
            self.post("/score", content=DIGIT, headers={"Content-Type": "image/png"} | (headers or {})),
            self.post("/v2/models/generator/infer", json=noise_input(), headers=headers),
        ]

    def growth(self) -> Callable[..., float]:
        """Returns a function that returns by how much a metric has grown since, from its name and labels."""
        before = self.metrics()

        def grown(name: str, **labels: str) -> float:
            return self.metric(name, **labels) - before.get((f"digitgan_{name}", tuple(sorted(labels.items()))), 0.0)

        return grown


@contextmanager
def serving(target: str, program: Sequence[str] = ("-m", "api.main"), /, **settings: object) -> Iterator[GatewayClient]:
    """Gives a client of a gateway in front of the model server at ``target``."""
    with gateway(target, program, **settings) as process, GatewayClient(process) as client:
        yield client


class FaultyClient(GatewayClient):
    """A client of a gateway in front of ``server``, which misbehaves."""

    def __init__(self, process: ServerProcess, server: MisbehavingServer) -> None:
        super().__init__(process)
        self.server = server


@contextmanager
def faulty_gateway(**settings: object) -> Iterator[FaultyClient]:
    """Gives a client of a gateway. A test decides what its model server answers."""
    with (
        MisbehavingServer("127.0.0.1:0") as server,
        gateway(server.target, **settings) as process,
        FaultyClient(process, server) as client,
    ):
        yield client


def noise_input(rows: int = 1, **changes: Any) -> dict[str, Any]:
    """Returns a request of the Open Inference Protocol for so many digits, with ``changes`` to its input."""
    noise = {"name": "noise", "datatype": "FP32", "shape": [rows, 100], "data": [0.0] * rows * 100}
    return {"inputs": [noise | changes]}


BODY_LIMIT: Final = 8 * 2**20
"""DIGITGAN_MAX_BODY_BYTES, unless it is set."""


def json_request(path: str, body: bytes, accept: str = "*/*", length: int | None = None) -> bytes:
    """Returns a request with a JSON body. ``length`` is its Content-Length; the true one by default."""
    head = (
        f"POST {path} HTTP/1.1",
        "Host: localhost",
        "Content-Type: application/json",
        f"Accept: {accept}",
        f"Content-Length: {len(body) if length is None else length}",
    )
    return "\r\n".join((*head, "\r\n")).encode() + body


SLOW: Final = {
    "headers that don't end": b"GET /healthz/live HTTP/1.1\r\nHost: localhost\r\nX-Slow: ",
    "bodies of 2 KB that don't end": json_request("/generate", b'{"seeds": [' + b"7," * 1000, length=BODY_LIMIT - 1),
    "bodies of 1 MB that don't end": json_request("/generate", b'{"seeds": [' + b"7," * 500_000, length=BODY_LIMIT - 1),
    "unread answers of 1.6 MB": json_request(
        "/interpolate", b'{"seeds": [1, 2], "steps": 1, "scale": 32}', "application/x-npy"
    ),
    "unread streams of 6 MB": json_request("/generate", b'{"count": 8, "scale": 32}', "application/x-npy"),
}
"""What a slow client sends before it hangs, and reads nothing."""


@contextmanager
def hanging(http: GatewayClient, opening: bytes, count: int) -> Iterator[list[socket.socket]]:
    """Gives ``count`` connections that have sent ``opening`` and hang there, with small buffers for what comes."""
    with ExitStack() as stack:
        connections = [stack.enter_context(socket.socket()) for _ in range(count)]
        for connection in connections:
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            connection.settimeout(20)
            with suppress(OSError):  # cut off already
                connection.connect(("127.0.0.1", http.base_url.port or 0))
                connection.sendall(opening)
        yield connections


BY_SLUG = {problem.slug: problem for problem in problems.TYPES}


def assert_guarded(response: httpx.Response, policy: str = NOTHING) -> None:
    """Passes if the header fields limit what a browser does with ``response``, and share it with no other site."""
    assert response.headers["x-content-type-options"] == "nosniff"
    assert response.headers["referrer-policy"] == "no-referrer"
    assert "camera=()" in response.headers["permissions-policy"]
    assert response.headers["content-security-policy"] == policy
    assert "access-control-allow-origin" not in response.headers


def assert_problem(response: httpx.Response, slug: str, *places: str) -> dict[str, Any]:
    """Passes if ``response`` is the problem ``slug`` (RFC 9457), naming ``places`` alone. Returns the document.

    A place is a JSON pointer, a parameter's name or a model's name.
    """
    problem = BY_SLUG[slug]
    assert response.status_code == problem.status, response.text
    assert response.headers["content-type"] == "application/problem+json"
    assert response.headers["cache-control"] == "no-store"
    assert response.headers["x-request-id"]
    assert ("Retry-After" in response.headers) == (problem.retry_after_s is not None)
    assert_guarded(response)
    document: dict[str, Any] = response.json()
    detail = document["detail"]
    assert isinstance(detail, str)
    assert detail
    expected = {"type": f"/problems/{slug}", "title": problem.title, "status": problem.status, "detail": detail}
    if response.url.path.startswith("/v2"):
        expected["error"] = detail
    assert {name: value for name, value in document.items() if name != "errors"} == expected
    found = []
    for error in document.get("errors", []):
        (where,) = set(error) - {"detail"}
        assert where in {"pointer", "parameter", "model"}
        assert error["detail"]
        found.append(error[where])
    assert sorted(found) == sorted(places)
    assert "Traceback" not in response.text
    return document
