"""The service loses no memory: 20,000 mixed requests, good and bad, on all routes, to a gateway and its model server.

The resident memory of both processes is read after each 1,000 requests. After the first 2,000, neither may grow by more
than 30 MB.
"""

import base64
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.pictures import saved

MOST_GROWTH_BYTES: Final = 30 * 10**6
TOTAL: Final = 20_000
WARM_UP: Final = 2_000
EACH: Final = 1_000
CLIENTS: Final = 4
PATIENCE_S: Final = 600
"""Memory is what counts here, however slow the machine."""

_RANDOM: Final = np.random.default_rng(0)
IMAGES: Final = [
    saved(_RANDOM.integers(0, 256, (side, side), np.uint8), kind)
    for side in (28, 200)
    for kind in ("PNG", "JPEG", "WEBP")
]
_JSON: Final = {"Content-Type": "application/json"}
_NOISE: Final = np.random.default_rng(0).standard_normal((8, 100)).tolist()

Request = Callable[[httpx.Client, int], httpx.Response]
REQUESTS: Final[tuple[tuple[int, Request], ...]] = (
    (200, lambda http, n: http.get(f"/digits/{n}.png", params={"scale": 1 + n % 4})),
    (200, lambda http, n: http.post("/generate", json={"seeds": list(range(n, n + n % 40 + 1)), "labels": n % 2 == 0})),
    (200, lambda http, n: http.post("/generate", json={"noise": _NOISE[: 1 + n % 8]}, headers={"Accept": "image/png"})),
    (200, lambda http, n: http.post("/generate", json={"count": 40, "digit": n % 10})),
    (200, lambda http, n: http.post("/generate", json={"count": 300}, headers={"Accept": "application/zip"})),
    (200, lambda http, n: http.post("/generate", json={"count": 300}, headers={"Accept": "application/x-npy"})),
    (200, lambda http, n: http.post("/dataset", json={"count": 20, "first_seed": n})),
    (200, lambda http, n: http.post("/interpolate", json={"seeds": [n, n + 1], "steps": 8})),
    (
        200,
        lambda http, n: http.post("/interpolate", json={"seeds": [n, 1], "steps": 8}, headers={"Accept": "image/gif"}),
    ),
    (200, lambda http, n: http.post("/score", files=[("images", image) for image in IMAGES])),
    (200, lambda http, n: http.post("/score", content=IMAGES[0], headers={"Content-Type": "image/png"})),
    (200, lambda http, n: http.post("/score", json={"images": [_base64(n)], "labels": True, "fitted_images": True})),
    (
        200,
        lambda http, n: http.get(
            ("/models", "/story", "/healthz/ready", "/metrics", "/", "/docs", "/openapi.json")[n % 7]
        ),
    ),
    (200, lambda http, n: http.post("/v2/models/generator/infer", json=_inference(n))),
    (200, lambda http, n: http.get(("/v2", "/v2/health/ready", "/v2/models/classifier")[n % 3])),
    (404, lambda http, n: http.get(f"/nothing/{n}")),
    (404, lambda http, n: http.get(f"/digits/{n}.png", params={"version": 1000 + n})),
    (405, lambda http, n: http.request("DELETE", "/generate")),
    (406, lambda http, n: http.post("/generate", json={"count": 1}, headers={"Accept": f"text/x-{n}"})),
    (415, lambda http, n: http.post("/score", content=b"x" * 1000, headers={"Content-Type": f"text/x-{n}"})),
    (400, lambda http, n: http.post("/generate", content=b'{"seeds": [' + b"7," * (n % 3000), headers=_JSON)),
    (422, lambda http, n: http.post("/generate", json={f"field-{n}": n, "seeds": [-1]})),
    (422, lambda http, n: http.post("/generate", json={"noise": [[0.0] * 99]})),
    (422, lambda http, n: http.post("/score", files={"images": IMAGES[n % 6][: 60 + n % 60]})),
    (413, lambda http, n: http.post("/generate", content=b"[" * (9 * 2**20), headers=_JSON)),
)
"""The requests and their statuses. ``n`` is another number each time."""


def _base64(number: int) -> str:
    return base64.b64encode(IMAGES[number % len(IMAGES)]).decode()


def _inference(number: int) -> dict[str, Any]:
    rows = 1 + number % 8
    return {"inputs": [{"name": "noise", "datatype": "FP32", "shape": [rows, 100], "data": _NOISE[:rows]}]}


@pytest.mark.timeout(3600)
def test_neither_process_grows(sockets: Path) -> None:
    with (
        gateways.model_server(MODELS_DIR, sockets / "soak.sock") as model_server,
        gateways.serving(f"unix:{sockets}/soak.sock", models_dir=MODELS_DIR, request_timeout_s=PATIENCE_S) as http,
        ThreadPoolExecutor(CLIENTS) as pool,
    ):
        http.timeout = 2 * PATIENCE_S

        def send(number: int) -> tuple[int, int, str]:
            """Sends a request. Returns the status that it should have, the one that it has, and what it was."""
            status, request = random.Random(number).choice(REQUESTS)
            answer = request(http, number)
            return status, answer.status_code, f"{answer.request.method} {answer.request.url}"

        curves: dict[str, list[int]] = {"gateway": [], "model server": []}
        for done in range(0, TOTAL + 1, EACH):
            wrong = [sent for sent in pool.map(send, range(done - EACH, done) if done else ()) if sent[0] != sent[1]]
            assert wrong == []
            for name, process in (("gateway", http.process), ("model server", model_server)):
                curves[name].append(process.resident_bytes())
            print(done, "requests:", *(f"{name} {points[-1] / 1e6:.1f} MB" for name, points in curves.items()))
        for name, points in curves.items():
            since = points[WARM_UP // EACH :]
            assert max(since) - since[0] < MOST_GROWTH_BYTES, name
