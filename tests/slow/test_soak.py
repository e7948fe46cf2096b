"""The service loses no memory: 20,000 mixed requests, good and bad, on all routes, to a gateway and its model server.

The resident memory of both processes is read after each 1,000 requests. After the first 2,000, neither may grow by more
than 30 MB.
The same check finds a leak that is planted in either process.
"""

import base64
import io
import itertools
import random
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import httpx
import numpy as np
import pytest
from PIL import Image

from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.processes import ServerProcess

MOST_GROWTH_BYTES: Final = 30 * 10**6
WARM_UP: Final = 2_000
EACH: Final = 1_000
CLIENTS: Final = 4
PATIENCE_S: Final = 600
"""Memory is what counts here, however slow the machine."""

LEAKING_GATEWAY: Final = """
import sys

from api import main
create_app = main.create_app
kept = []

class Keeper:
    def __init__(self, app):
        self.app = app

    async def __call__(self, scope, receive, send):
        async def keeping():
            message = await receive()
            kept.append(bytes(message.get("body", b"")))
            return message
        await self.app(scope, keeping if scope["type"] == "http" else receive, send)

def leaking(settings):
    app = create_app(settings)
    app.add_middleware(Keeper)
    return app

main.create_app = leaking
sys.exit(main.main())
"""
"""The gateway, with a middleware that keeps every body."""

LEAKING_MODEL_SERVER: Final = """
from serving.model_server.service import Service
predict = Service.predict
kept = []

def keeping(self, request, context):
    answer = predict(self, request, context)
    kept.append((request.SerializeToString(), answer.SerializeToString()))
    return answer

Service.predict = keeping
"""


def _file(side: int, kind: str, seed: int) -> bytes:
    file = io.BytesIO()
    pixels = np.random.default_rng(seed).integers(0, 256, (side, side), np.uint8)
    Image.fromarray(pixels).save(file, kind)
    return file.getvalue()


IMAGES: Final = [_file(side, kind, side) for side in (28, 200) for kind in ("PNG", "JPEG", "WEBP")]
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


@dataclass(frozen=True)
class Curve:
    """The resident memory in bytes of a process, after each EACH requests."""

    name: str
    points: list[int]

    def growth(self, warm_up: int) -> int:
        """Returns by how much it has grown at most since ``warm_up`` requests."""
        since = self.points[warm_up // EACH :]
        return max(since) - since[0]


@contextmanager
def service(leak: str | None) -> Iterator[tuple[ServerProcess, ServerProcess]]:
    """Runs a model server and a gateway. ``leak`` names the one that leaks, if any."""
    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        path = Path(directory) / "model-server.sock"
        patch = LEAKING_MODEL_SERVER if leak == "model-server" else ""
        program = ("-c", LEAKING_GATEWAY) if leak == "gateway" else ("-m", "api.main")
        with (
            gateways.model_server(MODELS_DIR, path, before=patch) as model_server,
            gateways.gateway(f"unix:{path}", program, models_dir=MODELS_DIR, request_timeout_s=PATIENCE_S) as gateway,
        ):
            yield gateway, model_server


def soak(requests: int, leak: str | None) -> tuple[Curve, Curve]:
    """Sends ``requests``; returns the curves of gateway and model server. Raises RuntimeError for a wrong status."""
    with service(leak) as (gateway, model_server):
        curves = Curve("gateway", []), Curve("model server", [])
        numbers = itertools.count(1)
        answers: Counter[int] = Counter()
        wrong: list[str] = []

        def ask(share: int) -> None:
            order = random.Random(share)
            with httpx.Client(base_url=gateway.url, timeout=2 * PATIENCE_S) as http:
                for _ in range(EACH // CLIENTS):
                    status, request = order.choice(REQUESTS)
                    answer = request(http, next(numbers))
                    answers[answer.status_code] += 1
                    if answer.status_code != status:
                        wrong.append(
                            f"{answer.request.method} {answer.request.url}: {answer.status_code}, not {status}"
                        )

        start = time.monotonic()
        print("requests   gateway   model server   (MB resident)")
        for done in range(0, requests + 1, EACH):
            if done:
                with ThreadPoolExecutor(CLIENTS) as pool:
                    list(pool.map(ask, range(done, done + CLIENTS)))
            for curve, process in zip(curves, (gateway, model_server), strict=True):
                curve.points.append(process.resident_bytes())
            print(f"{done:8,} {curves[0].points[-1] / 1e6:9.1f} {curves[1].points[-1] / 1e6:14.1f}", flush=True)
        if wrong:
            raise RuntimeError(f"{len(wrong)} wrong answers: {wrong[:5]}")
    statuses = ", ".join(f"{count:,} × {status}" for status, count in sorted(answers.items()))
    print(f"{requests:,} requests in {time.monotonic() - start:.0f} s: {statuses}")
    return curves


def growing(curves: tuple[Curve, Curve], warm_up: int) -> list[str]:
    """Returns the names of the processes that grow too much."""
    return [curve.name for curve in curves if curve.growth(warm_up) > MOST_GROWTH_BYTES]


@pytest.mark.timeout(3600)
def test_neither_process_grows() -> None:
    assert growing(soak(20_000, None), WARM_UP) == []


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("leak", ["gateway", "model-server"])
def test_a_planted_leak_is_found(leak: str) -> None:
    assert growing(soak(5_000, leak), WARM_UP) == [leak.replace("-", " ")]
