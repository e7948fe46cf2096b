"""A large body is read beside other work."""

import asyncio

import orjson
from starlette.requests import Request
from starlette.types import Message

from api.http.bodies import read_json
from api.http.schemas import GenerateRequest


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
