"""Calls of the model server: shared, limited in time, and cancelled when clients leave."""

import asyncio
import gc
import json
import socket
import threading
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import numpy as np
import pytest

from api.http.current_request import TIMEOUT_HEADER, CurrentRequest, current
from api.middleware.admission import MIN_CHARGE_IMAGES
from api.telemetry.metrics import Metrics
from api.upstream.inference import CALLS_IN_FLIGHT, LARGE_AT_ONCE, SLICE_ROWS, Inference
from serving.apis import PredictRequest
from serving.contract import GENERATOR, NOISE, NOISE_DIM
from serving.tf_serving.client import GrpcTransport, ModelClient
from serving.tf_serving.tensors import to_array
from tests.conftest import faulty_gateway_fixture
from tests.support.gateways import FaultyClient, assert_problem, json_request, noise_input
from tests.support.misbehaving import Holding, honest, noisy
from tests.support.processes import wait_until

LIMIT_S = 60.0
SOON_S = 1.5
"""Time for a request to get to the model server or its queue, also on a busy machine."""

BAD = 77.0
"""Noise that the model server refuses."""

http = faulty_gateway_fixture(request_timeout_s=LIMIT_S, max_images_in_flight=2048)

Submit = Callable[[Any], "Future[httpx.Response]"]


@pytest.fixture
def holding(http: FaultyClient) -> Iterator[Holding]:
    """What keeps the calls of the gateway."""
    with Holding() as holding:
        http.server.behaviour = holding
        yield holding


@contextmanager
def busy(http: FaultyClient) -> Iterator[tuple[Submit, list[int], Holding]]:
    """A model server that holds its calls: gives a function that sends a request, and the rows of all calls."""
    rows: list[int] = []
    holding = Holding()

    def behaviour(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        noise = to_array(request.inputs[NOISE])
        rows.append(len(noise))
        if (noise == BAD).any():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "on purpose")
        return holding(request, context)

    http.server.behaviour = behaviour
    with ThreadPoolExecutor(64) as pool, holding:
        yield (lambda body: pool.submit(http.post, "/generate", json=body)), rows, holding


def fill(submit: Submit, holding: Holding) -> "list[Future[httpx.Response]]":
    """Sends as many requests as calls can be in flight, one in each."""
    sent = []
    for place in range(CALLS_IN_FLIGHT):
        sent.append(submit({"seeds": [place]}))
        wait_until(lambda count=place + 1: holding.held == count)  # type: ignore[misc]
    return sent


def waiting(http: FaultyClient, requests: int) -> Callable[[], bool]:
    """Whether so many small requests are in a call or in the queue."""
    return lambda: http.metric("images_in_flight", size="small") == requests * MIN_CHARGE_IMAGES


def test_requests_that_wait_share_a_call(http: FaultyClient) -> None:
    with busy(http) as (submit, rows, holding):
        first = fill(submit, holding)
        others = [submit({"seeds": [seed]}) for seed in range(20)]
        wait_until(waiting(http, CALLS_IN_FLIGHT + 20))
        assert rows == [1] * CALLS_IN_FLIGHT
        assert http.metric("model_calls_in_flight", model="generator") == CALLS_IN_FLIGHT
        holding.release()
        answers = [one.result() for one in first + others]
    assert [one.status_code for one in answers] == [200] * len(answers)
    assert [one.json()["images"][0]["seed"] for one in answers[CALLS_IN_FLIGHT:]] == list(range(20))
    assert rows[CALLS_IN_FLIGHT:] == [20]


def test_a_request_that_the_model_server_refuses_fails_alone(http: FaultyClient) -> None:
    with busy(http) as (submit, rows, holding):
        first = fill(submit, holding)
        good = [submit({"noise": [[0.5] * 100]}) for _ in range(3)]
        bad = submit({"noise": [[BAD] * 100]})
        wait_until(waiting(http, CALLS_IN_FLIGHT + 4))
        holding.release()
        assert [one.result().status_code for one in first + good] == [200] * 5
        assert bad.result().status_code == 502
    assert rows[CALLS_IN_FLIGHT:] == [4, 1, 1, 1, 1]


def test_large_requests_are_made_in_slices_and_few_of_them_wait_before_a_small_one(http: FaultyClient) -> None:
    with busy(http) as (submit, rows, holding):
        large = [submit({"count": 1000}) for _ in range(2 * LARGE_AT_ONCE)]
        wait_until(lambda: sum(rows) == LARGE_AT_ONCE * SLICE_ROWS)
        small = submit({"seeds": [7]})
        wait_until(waiting(http, 1))
        holding.release()
        assert small.result().status_code == 200
        assert [one.result().status_code for one in large] == [200] * len(large)
    place = next(place for place, count in enumerate(rows) if count % 8 == 1)
    assert place <= CALLS_IN_FLIGHT + 1, "the small request is in the next call"
    assert sum(rows) == 1000 * len(large) + 1
    assert max(rows) <= 2 * SLICE_ROWS


def asking(http: FaultyClient, path: str, body: Any, accept: str = "*/*") -> socket.socket:
    """Returns a connection on which a request waits for its answer."""
    connection = http.connect()
    connection.sendall(json_request(path, json.dumps(body).encode(), accept))
    return connection


@pytest.mark.parametrize(
    ("path", "body", "accept"),
    [
        ("/generate", {"seeds": [1]}, "application/json"),
        ("/generate", {"seeds": [1, 2]}, "image/png"),
        ("/generate", {"count": 4096}, "application/json"),
        ("/generate", {"count": 1024}, "application/x-npy"),
        ("/generate", {"count": 1024}, "application/zip"),
        ("/dataset", {"count": 10}, "application/zip"),
        ("/interpolate", {"seeds": [1, 2], "steps": 300}, "image/gif"),
        ("/v2/models/generator/infer", noise_input(), "*/*"),
    ],
)
def test_when_a_client_disconnects_its_call_is_cancelled_and_no_other_follows(
    http: FaultyClient, holding: Holding, path: str, body: Any, accept: str
) -> None:
    grown = http.growth()
    calls = http.server.calls
    with asking(http, path, body, accept):
        wait_until(lambda: holding.held == 1)
    wait_until(lambda: (holding.held, holding.cancelled) == (0, 1))
    holding.release()
    wait_until(lambda: http.in_flight() == 0)
    assert http.server.calls == calls + 1
    route = path.replace("generator", "{model}")
    wait_until(lambda: grown("http_requests_total", route=route, method="POST", status="499") == 1)
    assert "Traceback" not in http.process.log


def test_a_request_right_behind_a_stream_is_cancelled_too(http: FaultyClient, holding: Holding) -> None:
    """It begins when the stream's answer is complete, just before the stream's own task ends."""

    def behaviour(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        rows = request.inputs[NOISE].tensor_shape.dim[0].size
        return (holding if rows == 1 else honest)(request, context)

    http.server.behaviour = behaviour
    grown = http.growth()
    with http.connect() as connection:
        stream = json_request("/generate", b'{"seeds": [1, 2]}', "application/zip")
        connection.sendall(stream + json_request("/generate", b'{"seeds": [7]}'))
        wait_until(lambda: holding.held == 1)
    wait_until(lambda: holding.cancelled == 1)
    wait_until(lambda: grown("http_requests_total", route="/generate", method="POST", status="499") == 1)


def test_a_cancelled_request_leaves_the_queue_alone(http: FaultyClient, holding: Holding) -> None:
    connections = []
    for seed, held in enumerate((1, 2, 2, 2, 2)):  # requests that arrive together would share a call
        connections.append(asking(http, "/generate", {"seeds": [seed]}))
        wait_until(lambda held=held: holding.held == held)  # type: ignore[misc]
    wait_until(waiting(http, 5))
    calls = http.server.calls
    for connection in connections[3:]:
        connection.close()
    wait_until(waiting(http, 3))
    holding.release()
    for connection in connections[:3]:
        assert connection.recv(12) == b"HTTP/1.1 200"
        connection.close()
    assert http.server.calls == calls + 1
    assert holding.cancelled == 0


@pytest.mark.parametrize("limit", ["", "0", "0.0", "-1", "nan", "inf", "1e3", "soon", "1,5", "9999999"])
def test_a_wrong_time_limit_is_named(http: FaultyClient, limit: str) -> None:
    headers = {TIMEOUT_HEADER: limit}
    for answer in (*http.on_each_image_route(headers), http.post("/dataset", json={"count": 1}, headers=headers)):
        assert_problem(answer, "invalid-request", TIMEOUT_HEADER)


@pytest.mark.parametrize("accept", ["application/json", "application/x-npy"])
def test_a_requests_own_limit_ends_its_call(http: FaultyClient, holding: Holding, accept: str) -> None:
    grown = http.growth()
    response = http.post("/generate", json={"seeds": [1]}, headers={TIMEOUT_HEADER: str(SOON_S), "Accept": accept})
    assert "at the model server" in assert_problem(response, "timeout")["detail"]
    wait_until(lambda: holding.cancelled == 1)  # the model server knows the deadline too
    assert holding.seconds_left[0] < LIMIT_S / 2
    assert grown("timeouts_total", part="model") == 1


def test_no_request_has_more_time_than_the_service_allows(http: FaultyClient, holding: Holding) -> None:
    with ThreadPoolExecutor() as pool:
        asked = pool.submit(http.get, "/digits/1.png", headers={TIMEOUT_HEADER: "3600"})
        wait_until(lambda: holding.held == 1)
        holding.release()
        assert asked.result().status_code == 200
    assert holding.seconds_left[0] < 2 * LIMIT_S


def test_a_request_that_times_out_in_the_queue_is_never_sent(http: FaultyClient, holding: Holding) -> None:
    grown = http.growth()
    with ThreadPoolExecutor() as pool:
        asked = [pool.submit(http.get, "/digits/0.png")]
        wait_until(lambda: holding.held == 1)  # requests that arrive together would share a call
        asked += [pool.submit(http.get, "/digits/1.png")]
        asked += [pool.submit(http.post, "/generate", json={"count": 100}) for _ in range(2)]
        wait_until(lambda: holding.held == 2)
        calls = http.server.calls
        for late in ({"seeds": [1]}, {"count": 100}):
            response = http.post("/generate", json=late, headers={TIMEOUT_HEADER: str(SOON_S)})
            assert "in the queue for the model server" in assert_problem(response, "timeout")["detail"]
        assert http.server.calls == calls
        holding.release()
        assert [one.result().status_code for one in asked] == [200] * 4
    assert grown("timeouts_total", part="turn") == 2


def test_an_answer_that_takes_too_long_is_given_up(http: FaultyClient) -> None:
    http.server.behaviour = noisy
    body = {"seeds": [1, 2], "steps": 650, "scale": 8, "loop": True}  # 65 million pixels of noise as WebP: a second
    found = ""
    limit = 0.2
    while "while the answer was being made" not in found:  # a slower machine needs more time for the calls before
        limit *= 1.5
        assert limit < LIMIT_S, found
        headers = {TIMEOUT_HEADER: f"{limit:.2f}", "Accept": "image/webp"}
        found = assert_problem(http.post("/interpolate", json=body, headers=headers), "timeout")["detail"]


def test_the_rows_of_a_cancelled_call_are_freed_at_once(http: FaultyClient, holding: Holding) -> None:
    """Without the garbage collector, which comes seldom."""
    freed = threading.Event()

    async def cancel_a_call() -> None:
        current.set(CurrentRequest())
        client = ModelClient(GrpcTransport(http.server.target))
        noise = np.zeros((2, NOISE_DIM), np.float32)
        weakref.finalize(noise, freed.set)
        task = asyncio.create_task(Inference(client, Metrics()).predict(GENERATOR, noise, version=None))
        del noise
        await asyncio.to_thread(wait_until, lambda: holding.held)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        del task
        await client.close()

    gc.disable()
    try:
        asyncio.run(cancel_a_call())
        assert freed.is_set()
    finally:
        gc.enable()
