"""Reading a large body leaves the event loop to other requests."""

import asyncio

import orjson
from starlette.requests import Request
from starlette.types import Message

from api.http.bodies import read_json
from api.http.schemas import GenerateRequest


def turns_of_the_loop_while_read(body: bytes) -> int:
    """Counts how often the event loop gets to other work while ``body`` is read."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def counted() -> int:
        turns = 0

        async def others() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        counting = asyncio.create_task(others())
        await asyncio.sleep(0)
        turns = 0
        await read_json(
            Request({"type": "http", "headers": [(b"content-type", b"application/json")]}, receive), GenerateRequest
        )
        counting.cancel()
        return turns

    return asyncio.run(counted())


def test_a_million_seeds_do_not_block_the_event_loop() -> None:
    assert turns_of_the_loop_while_read(orjson.dumps({"seeds": list(range(10**6))})) > 3
    assert turns_of_the_loop_while_read(orjson.dumps({"seeds": [7]})) <= 1, "a thread would cost more"
