"""A request's time is limited, and a 504 names the part that took it."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import grpc
import httpx
import numpy as np
import pytest

from api.http.deadlines import HEADER
from serving.apis import PredictRequest
from serving.contract import IMAGES, NOISE
from tests.api import processes
from tests.api.misbehaving import Holding, MisbehavingServer, answer, honest
from tests.api.problem import assert_problem
from tests.api.test_metrics import read, value
from tests.api.waiting import wait_until

LIMIT_S = 20.0
SOON_S = 0.3


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="module")
def http(server: MisbehavingServer) -> Iterator[httpx.Client]:
    with (
        processes.gateway(server.target, request_timeout_s=LIMIT_S) as process,
        httpx.Client(base_url=processes.url_of(process), timeout=60) as client,
    ):
        yield client


NOISE_INPUT = {"inputs": [{"name": "noise", "shape": [1, 100], "datatype": "FP32", "data": [0.0] * 100}]}


@pytest.mark.parametrize("limit", ["", "0", "0.0", "-1", "nan", "inf", "1e3", "soon", "1,5", "9999999"])
def test_a_limit_that_is_none_is_named(http: httpx.Client, limit: str) -> None:
    image = http.get("/digits/1.png").content
    headers = {HEADER: limit}
    for response in (
        http.post("/generate", json={"seeds": [1]}, headers=headers),
        http.get("/digits/1.png", headers=headers),
        http.post("/interpolate", json={"seeds": [1, 2]}, headers=headers),
        http.post("/dataset", json={"count": 1}, headers=headers),
        http.post("/score", content=image, headers=headers | {"Content-Type": "image/png"}),
        http.post("/v2/models/generator/infer", json=NOISE_INPUT, headers=headers),
    ):
        assert_problem(response, "invalid-request", HEADER)


@pytest.mark.parametrize("accept", ["application/json", "application/x-npy"])
def test_a_requests_own_limit_ends_the_call_and_its_answer_says_where(
    http: httpx.Client, holding: Holding, accept: str
) -> None:
    before = value(read(http), "digitgan_timeouts_total", part="model")
    response = http.post("/generate", json={"seeds": [1]}, headers={HEADER: str(SOON_S), "Accept": accept})
    assert "at the model server" in assert_problem(response, "timeout")["detail"]
    wait_until(lambda: holding.cancelled == 1)  # the model server knows the deadline too
    assert holding.seconds_left[0] < LIMIT_S / 2
    assert value(read(http), "digitgan_timeouts_total", part="model") == before + 1


def test_no_request_has_more_time_than_the_service_allows(http: httpx.Client, holding: Holding) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(http.get, "/digits/1.png", headers={HEADER: "3600"})
        wait_until(lambda: holding.held == 1)
        holding.release()
        assert asked.result().status_code == 200
    assert holding.seconds_left[0] < 2 * LIMIT_S


def test_who_waits_for_a_turn_until_the_end_is_told_so_and_never_sent(
    http: httpx.Client, server: MisbehavingServer, holding: Holding
) -> None:
    before = value(read(http), "digitgan_timeouts_total", part="turn")
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(http.get, f"/digits/{seed}.png") for seed in range(2)]
        asked += [pool.submit(http.post, "/generate", json={"count": 100}) for _ in range(2)]
        wait_until(lambda: holding.held == 2)
        calls = server.calls
        for late in ({"seeds": [1]}, {"count": 100}):
            response = http.post("/generate", json=late, headers={HEADER: str(SOON_S)})
            assert "in the queue for the model server" in assert_problem(response, "timeout")["detail"]
        assert server.calls == calls
        holding.release()
        assert [one.result().status_code for one in asked] == [200] * 4
    assert value(read(http), "digitgan_timeouts_total", part="turn") == before + 2


def test_an_answer_that_takes_too_long_is_given_up(http: httpx.Client, server: MisbehavingServer) -> None:
    def noisy(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        rows = request.inputs[NOISE].tensor_shape.dim[0].size
        return answer(request, {IMAGES: np.random.default_rng().integers(0, 256, (rows, 28, 28, 1), np.uint8)})

    server.behaviour = noisy
    body = {"seeds": [1, 2], "steps": 650, "scale": 8, "loop": True}  # 65 million pixels of noise as WebP: a second
    found = ""
    limit = 0.2
    while "while the answer was being made" not in found:  # a slower machine needs more time for the calls before
        limit *= 1.5
        assert limit < LIMIT_S, found
        response = http.post("/interpolate", json=body, headers={HEADER: f"{limit:.2f}", "Accept": "image/webp"})
        found = assert_problem(response, "timeout")["detail"]
    server.behaviour = honest
