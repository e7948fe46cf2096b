"""Requests that wait share calls of the model server, and are independent of each other."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import grpc
import httpx
import pytest

from api.upstream.coalescing import CALLS_IN_FLIGHT, LARGE_AT_ONCE, Coalescer, Kind, Rows
from api.upstream.inference import SLICE_ROWS
from serving.apis import PredictRequest
from serving.contract import NOISE
from serving.tf_serving.client import Prediction
from serving.tf_serving.tensors import to_array
from tests.api import processes
from tests.api.misbehaving import Holding, MisbehavingServer, honest
from tests.api.test_metrics import read, value
from tests.api.waiting import wait_until

BAD = 77.0
"""Noise that the model server refuses."""


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="module")
def http(server: MisbehavingServer) -> Iterator[httpx.Client]:
    limits = httpx.Limits(max_connections=None)
    with (
        processes.gateway(server.target, request_timeout_s=60, max_images_in_flight=2048) as process,
        httpx.Client(base_url=processes.url_of(process), timeout=60, limits=limits) as client,
    ):
        yield client


Submit = Callable[[Any], "Future[httpx.Response]"]


@contextmanager
def busy(server: MisbehavingServer, http: httpx.Client) -> Iterator[tuple[Submit, list[int], Holding]]:
    """A model server that holds its calls: gives a function that sends a request, and the rows of all calls."""
    holding = Holding()
    rows: list[int] = []

    def behaviour(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        noise = to_array(request.inputs[NOISE])
        rows.append(len(noise))
        if (noise == BAD).any():
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, "on purpose")
        return holding(request, context)

    server.behaviour = behaviour
    with ThreadPoolExecutor(64) as pool:
        try:
            yield (lambda body: pool.submit(http.post, "/generate", json=body)), rows, holding
        finally:
            holding.release()
            server.behaviour = honest


def fill(submit: Submit, holding: Holding) -> "list[Future[httpx.Response]]":
    """Sends as many requests as calls can be in flight, one in each."""
    sent = []
    for place in range(CALLS_IN_FLIGHT):
        sent.append(submit({"seeds": [place]}))
        wait_until(lambda count=place + 1: holding.held == count)  # type: ignore[misc]
    return sent


def waiting(http: httpx.Client, requests: int) -> Callable[[], bool]:
    return lambda: value(read(http), "digitgan_http_requests_in_flight") == requests + 1  # and this one


def test_requests_that_wait_share_a_call(server: MisbehavingServer, http: httpx.Client) -> None:
    with busy(server, http) as (submit, rows, holding):
        first = fill(submit, holding)
        others = [submit({"seeds": [seed]}) for seed in range(20)]
        wait_until(waiting(http, CALLS_IN_FLIGHT + 20))
        assert rows == [1] * CALLS_IN_FLIGHT
        holding.release()
        answers = [one.result() for one in first + others]
    assert [one.status_code for one in answers] == [200] * len(answers)
    assert [one.json()["images"][0]["seed"] for one in answers[CALLS_IN_FLIGHT:]] == list(range(20))
    assert rows[CALLS_IN_FLIGHT:] == [20]


def test_a_request_that_the_model_server_refuses_fails_alone(server: MisbehavingServer, http: httpx.Client) -> None:
    with busy(server, http) as (submit, rows, holding):
        first = fill(submit, holding)
        good = [submit({"noise": [[0.5] * 100]}) for _ in range(3)]
        bad = submit({"noise": [[BAD] * 100]})
        wait_until(waiting(http, CALLS_IN_FLIGHT + 4))
        holding.release()
        assert [one.result().status_code for one in first + good] == [200] * 5
        assert bad.result().status_code == 502
    assert rows[CALLS_IN_FLIGHT:] == [4, 1, 1, 1, 1]


def test_large_requests_are_made_in_slices_and_few_of_them_wait_before_a_small_one(
    server: MisbehavingServer, http: httpx.Client
) -> None:
    with busy(server, http) as (submit, rows, holding):
        large = [submit({"count": 1000}) for _ in range(2 * LARGE_AT_ONCE)]
        wait_until(lambda: sum(rows) == LARGE_AT_ONCE * SLICE_ROWS)
        small = submit({"seeds": [7]})
        wait_until(waiting(http, 2 * LARGE_AT_ONCE + 1))
        holding.release()
        assert small.result().status_code == 200
        assert [one.result().status_code for one in large] == [200] * len(large)
    place = next(place for place, count in enumerate(rows) if count % 8 == 1)
    assert place <= CALLS_IN_FLIGHT + 1, "the small request is in the next call"
    assert sum(rows) == 1000 * len(large) + 1
    assert max(rows) <= 2 * SLICE_ROWS


def test_a_call_that_is_cancelled_before_it_begins_blocks_no_other() -> None:
    async def run_call(kind: Kind, parts: Sequence[Rows], deadline: float) -> Prediction:
        return Prediction(kind.model, 1, {})

    async def cancel_early() -> None:
        coalescer = Coalescer(run_call)
        kind = Kind("generator", "serving_default", None)
        for _ in range(2 * CALLS_IN_FLIGHT):
            request = asyncio.create_task(coalescer.predict(kind, [7]))
            await asyncio.sleep(0)  # it is in the queue, and the call is sent in this round of the event loop
            request.cancel()
            await asyncio.gather(request, return_exceptions=True)
        async with asyncio.timeout(60):
            assert (await coalescer.predict(kind, [7])).version == 1

    asyncio.run(cancel_early())
