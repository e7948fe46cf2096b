"""Streams close what they are made from, in order, however they end."""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing

import pytest
from starlette.types import Message, Scope

from api.formats.answers import Stream

SCOPE: Scope = {"type": "http", "asgi": {"spec_version": "2.3"}}


async def source(closed: list[str]) -> AsyncGenerator[bytes]:
    try:
        for _ in range(3):
            yield b"x"
    finally:
        await asyncio.sleep(0)  # as where a call is cancelled: others have their turn meanwhile
        closed.append("source")


async def middle(parts: AsyncGenerator[bytes], closed: list[str]) -> AsyncGenerator[bytes]:
    try:
        async with aclosing(parts):
            async for part in parts:
                yield part
    finally:
        closed.append("middle")


async def outermost(parts: AsyncIterator[bytes], closed: list[str]) -> AsyncGenerator[bytes]:
    try:
        async for part in parts:
            yield part
    finally:
        closed.append("outermost")


@pytest.mark.parametrize("leaves_at", ["http.response.start", "http.response.body", "never"])
def test_a_stream_closes_what_it_is_made_from(leaves_at: str) -> None:
    """If the client disconnects at the start, only the innermost generator has begun."""
    closed: list[str] = []

    async def answer() -> None:
        parts = source(closed)
        await anext(parts)
        all_parts = middle(parts, closed)
        body = outermost(all_parts, closed)
        left = asyncio.Event()

        async def receive() -> Message:
            await left.wait()
            return {"type": "http.disconnect"}

        async def send(message: Message) -> None:
            if message["type"] == leaves_at:
                left.set()
                await asyncio.Event().wait()  # the client takes nothing more

        await Stream(body, (parts, all_parts), {}, "application/zip")(SCOPE, receive, send)
        for generator in (parts, all_parts, body):
            with pytest.raises(StopAsyncIteration):
                await anext(generator)

    asyncio.run(answer())
    begun = [] if leaves_at == "http.response.start" else ["outermost", "middle"]
    assert sorted(closed) == sorted(["source", *begun])
    assert closed.count("source") == 1
