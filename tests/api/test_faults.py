"""A model server that misbehaves: each fault is one problem, never the caller's, and the gateway recovers."""

from pathlib import Path

import grpc
import httpx
import pytest

from api.http.current_request import TIMEOUT_HEADER
from api.upstream.inference import SLICE_ROWS
from serving.apis import PredictRequest
from serving.contract import GENERATOR, MODELS
from tests.support import gateways
from tests.support.gateways import FaultyClient
from tests.support.misbehaving import MisbehavingServer, failing, honest
from tests.support.problems import assert_problem
from tests.support.waiting import wait_until

FORMATS = ["application/json", "image/png", "application/zip", "application/x-npy"]


@pytest.mark.parametrize(
    ("code", "message", "slug"),
    [
        (grpc.StatusCode.UNAVAILABLE, "failed to connect", "model-server-unreachable"),
        (grpc.StatusCode.UNAVAILABLE, "The batch scheduling queue is full", "overloaded"),
        (grpc.StatusCode.RESOURCE_EXHAUSTED, "Server Threadpool Exhausted", "overloaded"),
        (grpc.StatusCode.NOT_FOUND, "Servable not found", "model-not-served"),
        (grpc.StatusCode.INVALID_ARGUMENT, "/secret/path", "broken-contract"),
        (grpc.StatusCode.FAILED_PRECONDITION, "no such signature", "broken-contract"),
        (grpc.StatusCode.INTERNAL, "oops", "broken-contract"),
        (grpc.StatusCode.UNIMPLEMENTED, "no such method", "broken-contract"),
        (grpc.StatusCode.UNKNOWN, "?", "broken-contract"),
        (grpc.StatusCode.DEADLINE_EXCEEDED, "late", "timeout"),
    ],
)
def test_what_the_model_server_says_is_mapped_and_kept_to_the_log(
    faulty: FaultyClient, code: grpc.StatusCode, message: str, slug: str
) -> None:
    faulty.server.behaviour = failing(code, message)
    grown = faulty.growth()
    body = {"count": 300}
    for response in (
        *faulty.on_each_image_route(),
        *(faulty.post("/generate", json=body, headers={"Accept": accept}) for accept in FORMATS),
    ):
        assert_problem(response, slug)
        assert message not in response.text
    wait_until(lambda: message in faulty.process.log)
    assert grown("upstream_errors_total", model=GENERATOR, code=code.name) == 8


def test_all_batches_of_a_request_share_its_time(faulty: FaultyClient) -> None:
    calls = []

    def slowly(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        calls.append(request)
        faulty.server.release.wait(0.4)
        return honest(request, context)

    faulty.server.behaviour = slowly
    response = faulty.post("/generate", json={"count": 4096}, headers={TIMEOUT_HEADER: "1"})
    assert_problem(response, "timeout")
    assert len(calls) < 4096 / SLICE_ROWS


@pytest.mark.parametrize("accept", ["application/zip", "application/x-npy"])
def test_a_stream_that_cannot_go_on_breaks_off_where_the_client_sees_it(faulty: FaultyClient, accept: str) -> None:
    before = len(faulty.process.log)
    calls = faulty.server.calls

    def withdrawn_meanwhile(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        if faulty.server.calls > calls + 4:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        return honest(request, context)

    faulty.server.behaviour = withdrawn_meanwhile
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        faulty.post("/generate", json={"count": 2000}, headers={"Accept": accept})
    wait_until(lambda: "POST /generate broke off: generator" in faulty.process.log[before:])
    assert "Traceback" not in faulty.process.log[before:]


def test_a_model_server_that_comes_back_is_used_again_without_a_restart(sockets: Path) -> None:
    address = f"unix:{sockets}/comes-and-goes.sock"
    with gateways.serving(address) as http:
        assert http.get("/healthz/live").status_code == 200
        assert_problem(http.get("/healthz/ready"), "not-ready", *MODELS)
        assert_problem(http.get("/models"), "model-server-unreachable")
        with MisbehavingServer(address):
            wait_until(lambda: http.get("/healthz/ready").status_code == 200)
            assert http.get("/digits/1.png").status_code == 200
        assert_problem(http.get("/digits/1.png"), "model-server-unreachable")
        with MisbehavingServer(address):
            wait_until(lambda: http.get("/digits/1.png").status_code == 200)
