"""Runs work in threads that would block the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import Executor
from typing import Final, TypeVar

INLINE_BYTES: Final = 2**16  # work on so many takes about a millisecond: too little for a thread

_T = TypeVar("_T")


async def in_thread_if_large(size: int, work: Callable[[], _T], threads: Executor | None = None) -> _T:
    """Returns what ``work`` returns. Work on more than INLINE_BYTES is run in one of ``threads``, or of the loop's own.

    If the request ends first, work that has not begun is dropped. Work that has begun runs on in its thread.
    """
    if size <= INLINE_BYTES:
        return work()
    return await asyncio.get_running_loop().run_in_executor(threads, work)
