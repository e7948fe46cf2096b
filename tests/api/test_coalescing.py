"""The queue when a request is cancelled at the worst moment."""

import asyncio
from collections.abc import Sequence

from api.upstream.coalescing import CALLS_IN_FLIGHT, Coalescer, Kind, Rows
from serving.tf_serving.client import Prediction


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
