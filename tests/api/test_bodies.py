"""Bodies made to cost much are refused before they do."""

import asyncio

import orjson
import pytest
from starlette.requests import Request
from starlette.types import Message

from api.http.bodies import read_json
from api.http.schemas import GenerateRequest
from tests.support.gateways import GatewayClient
from tests.support.problems import assert_problem

JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize("piece", ["[]", "{}", '{"a":0}', '"a"', "[0]"])
def test_json_that_would_be_large_in_memory_is_not_parsed(faulty_http: GatewayClient, piece: str) -> None:
    body = '{"seeds": [' + ",".join([piece] * (8 * 10**6 // (len(piece) + 1))) + "]}"
    faulty_http.post("/generate", content=body[:-1], headers=JSON)  # so that the buffers for the body are there
    before = faulty_http.process.resident_bytes()
    response = faulty_http.post("/generate", content=body, headers=JSON)
    assert_problem(response, "invalid-request", "")
    assert faulty_http.process.resident_bytes() - before < 30e6, "parsed, it takes 130 to 200 MB"


@pytest.mark.parametrize(
    "body", [rb'{"\ud800": NaN}', rb'{"\ud800": [NaN], "seeds": [1]}', rb'{"seeds": ["\udfff", NaN]}']
)
def test_half_a_surrogate_pair_is_answered(faulty_http: GatewayClient, body: bytes) -> None:
    response = faulty_http.post("/generate", content=body, headers=JSON)
    assert response.status_code in (400, 422)
    assert response.headers["content-type"] == "application/problem+json"


def test_a_slow_codec_is_not_used(faulty_http: GatewayClient) -> None:
    """Python's punycode takes time by the square of the length: minutes for this."""
    text = b"a" * 2**17
    part = b'--b\r\nContent-Disposition: form-data; name="images"\r\n\r\n' + text + b"-" + text + b"\r\n--b--\r\n"
    headers = {"Content-Type": "multipart/form-data; boundary=b; charset=punycode"}
    assert_problem(faulty_http.post("/score", content=part, headers=headers), "unsupported-media-type")


def test_what_is_echoed_is_short(faulty_http: GatewayClient) -> None:
    response = faulty_http.post("/generate", content=b"{}", headers={"Content-Type": "x" * 60_000})
    assert_problem(response, "unsupported-media-type")
    assert len(response.content) < 1000


def test_a_large_body_is_read_beside_other_work() -> None:
    """The event loop gets to other work while 500,000 seeds are parsed and checked."""
    turns = 0
    body = orjson.dumps({"seeds": list(range(500_000))})

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async def read() -> None:
        nonlocal turns
        counting = asyncio.create_task(others())
        await asyncio.sleep(0)
        turns = 0
        scope = {"type": "http", "headers": [(b"content-type", b"application/json")]}
        await read_json(Request(scope, receive), GenerateRequest)
        counting.cancel()

    asyncio.run(read())
    assert turns > 3
