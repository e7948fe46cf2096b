"""Work that would hold up the event loop goes to a thread."""

import asyncio
from collections.abc import Callable
from typing import TypeVar

import anyio
import anyio.to_thread

_T = TypeVar("_T")


async def in_thread(work: Callable[[], _T], limiter: anyio.CapacityLimiter | None = None) -> _T:
    """Returns what ``work`` returns, run in a thread once ``limiter`` has room for it.

    Where the request ends before, nobody waits for it: work that hasn't begun isn't, and work that has keeps its place
    with ``limiter`` until it is done, as it keeps its memory.
    """
    abandoned = False

    def wanted_work() -> _T:
        if abandoned:
            raise asyncio.CancelledError
        return work()

    task = asyncio.create_task(anyio.to_thread.run_sync(wanted_work, limiter=limiter))
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        abandoned = True
        task.add_done_callback(lambda done: done.cancelled() or done.exception())
        raise
