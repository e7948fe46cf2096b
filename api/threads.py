"""Runs work in threads that would block the event loop."""

import asyncio
from collections.abc import Callable
from typing import Final, TypeVar

import anyio
import anyio.to_thread

INLINE_BYTES: Final = 2**16
"""Work on so many bytes takes about a millisecond, and a thread's detour isn't worth it."""

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T], limiter: anyio.CapacityLimiter | None = None) -> _T:
    """Returns what ``work`` returns, run in a thread once ``limiter`` has room for it.

    If the request ends first, work that has not begun is dropped. Work that has begun runs on, and counts for
    ``limiter`` until it is done, since it holds its memory so long.
    """
    abandoned = False

    def run() -> _T:
        if abandoned:
            raise asyncio.CancelledError
        return work()

    task = asyncio.create_task(anyio.to_thread.run_sync(run, limiter=limiter))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        abandoned = True
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise


async def in_thread_if_large(size: int, work: Callable[[], _T], limiter: anyio.CapacityLimiter | None = None) -> _T:
    """Returns what ``work`` returns. Work on more than INLINE_BYTES bytes is run in a thread."""
    return work() if size <= INLINE_BYTES else await in_thread(work, limiter)
