"""Requests that share calls: when they do, and that none depends on another."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager

import numpy as np
import pytest
from numpy.typing import NDArray

from api import coalescing
from api.coalescing import (
    CALLS_AT_ONCE,
    MOST_SHARED_ROWS,
    SLICE_ROWS,
    SLICES_AT_ONCE,
    Coalescer,
    Kind,
    NoTurnError,
    Rows,
)
from serving.client import (
    ContractError,
    DeadlineError,
    ModelServerError,
    Prediction,
    UnreachableError,
    VersionNotFoundError,
)

NEWEST = Kind("m", "s", None)
BAD = -1.0
SOON_S = 0.05
LONG_S = 30.0


def rows(*values: float) -> NDArray[np.float64]:
    return np.array(values)


class Server:
    """Doubles its rows, once it may; refuses a batch with BAD in it."""

    def __init__(self) -> None:
        self._open = False
        self._gates: list[asyncio.Event] = []
        self.calls: list[tuple[Kind, list[float], float]] = []
        self.cancelled = 0
        self.failure: ModelServerError | None = None

    async def call(self, kind: Kind, parts: Sequence[Rows], timeout_s: float) -> Prediction:
        batch = np.concatenate(parts)
        self.calls.append((kind, batch.tolist(), timeout_s))
        gate = asyncio.Event()
        self._gates.append(gate)
        try:
            if not self._open:
                await gate.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        if self.failure:
            raise self.failure
        if BAD in batch:
            raise ContractError(kind.model, "INVALID_ARGUMENT", "a bad row")
        return Prediction(kind.model, kind.version or 7, {"twice": 2 * batch})

    def open(self) -> None:
        """Answers the calls that wait, and all that come."""
        self._open = True
        for gate in self._gates:
            gate.set()

    def let_one_through(self) -> None:
        """Answers the oldest call."""
        self._gates[0].set()

    @property
    def batches(self) -> list[list[float]]:
        return [batch for _, batch, _ in self.calls]


@asynccontextmanager
async def busy(server: Server, coalescer: Coalescer) -> AsyncIterator[None]:
    """As many calls under way as there may be at once, until the block ends; then the server answers."""
    calls = [asyncio.create_task(coalescer.ask(NEWEST, rows(0), LONG_S)) for _ in range(CALLS_AT_ONCE)]
    await settle()
    assert server.batches == [[0.0]] * CALLS_AT_ONCE
    server.calls.clear()
    yield
    server.open()
    await asyncio.gather(*calls, return_exceptions=True)


async def settle() -> None:
    """Lets everything happen that can."""
    for _ in range(20):
        await asyncio.sleep(0)


def run(test: Awaitable[None]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(20):
            await test

    asyncio.run(bounded())


def test_those_that_come_while_calls_are_under_way_share_one_and_get_their_own_rows() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            waiting = [
                asyncio.create_task(coalescer.ask(NEWEST, part, LONG_S)) for part in (rows(1), rows(2, 3), rows(4))
            ]
            await settle()
            assert server.calls == []  # they gather
        answers = await asyncio.gather(*waiting)
        assert server.batches == [[1.0, 2.0, 3.0, 4.0]]
        assert [answer.outputs["twice"].tolist() for answer in answers] == [[2.0], [4.0, 6.0], [8.0]]
        assert {answer.version for answer in answers} == {7}

    run(test())


def test_those_that_come_at_once_beside_a_call_share_the_next_one() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        asked = [asyncio.create_task(coalescer.ask(NEWEST, rows(one), LONG_S)) for one in (1, 2, 3)]
        await settle()
        assert server.batches == [[1.0], [2.0, 3.0]]
        last = asyncio.create_task(coalescer.ask(NEWEST, rows(4, 5), LONG_S))
        await settle()
        assert server.batches == [[1.0], [2.0, 3.0]]
        server.let_one_through()
        await settle()
        assert server.batches == [[1.0], [2.0, 3.0], [4.0, 5.0]]
        server.open()
        assert [one.outputs["twice"].tolist() for one in await asyncio.gather(*asked, last)] == [
            [2.0],
            [4.0],
            [6.0],
            [8.0, 10.0],
        ]
        again = asyncio.create_task(coalescer.ask(NEWEST, rows(6), LONG_S))  # alone again, so at once
        await again
        assert server.batches[3:] == [[6.0]]

    run(test())


def test_a_second_call_is_sent_when_it_has_as_many_rows_as_the_first() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        asked = [asyncio.create_task(coalescer.ask(NEWEST, part, LONG_S)) for part in (rows(1, 2, 3), rows(4), rows(5))]
        await settle()
        assert server.batches == [[1.0, 2.0, 3.0]]
        asked.append(asyncio.create_task(coalescer.ask(NEWEST, rows(6), LONG_S)))
        await settle()
        assert server.batches == [[1.0, 2.0, 3.0], [4.0, 5.0, 6.0]]
        server.open()
        await asyncio.gather(*asked)

    run(test())


def test_a_call_that_hangs_holds_nobody_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(coalescing, "HUNG_S", SOON_S)

    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        asked = [asyncio.create_task(coalescer.ask(NEWEST, part, LONG_S)) for part in (rows(1, 2, 3), rows(4))]
        await settle()
        assert server.batches == [[1.0, 2.0, 3.0]]
        while len(server.batches) < 2:  # noqa: ASYNC110 - what it waits for is a timer
            await asyncio.sleep(SOON_S)
        assert server.batches[1:] == [[4.0]]
        assert not asked[0].done()
        server.open()
        await asyncio.gather(*asked)
        assert coalescer._lanes == {}

    run(test())


def test_nobody_waits_for_a_call_of_another_version() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            other = asyncio.create_task(coalescer.ask(Kind("m", "s", 3), rows(1), LONG_S))
            await settle()
            assert [kind.version for kind, _, _ in server.calls] == [3]
        assert (await other).version == 3

    run(test())


def test_large_requests_hold_no_small_one_up() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        large = [
            asyncio.create_task(coalescer.ask(NEWEST, np.ones(MOST_SHARED_ROWS + 1), LONG_S))
            for _ in range(SLICES_AT_ONCE + 3)
        ]
        await settle()
        assert [len(batch) for batch in server.batches] == [MOST_SHARED_ROWS + 1] * SLICES_AT_ONCE
        small = asyncio.create_task(coalescer.ask(NEWEST, rows(1), LONG_S))
        await settle()
        assert server.batches[SLICES_AT_ONCE:] == [[1.0]]
        server.open()
        await asyncio.gather(small, *large)

    run(test())


def test_while_small_requests_come_large_ones_take_turns_slice_by_slice() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            sizes = SLICE_ROWS + 1, 3 * SLICE_ROWS, 2 * SLICE_ROWS
            large = [asyncio.create_task(coalescer.ask(NEWEST, np.arange(size), LONG_S)) for size in sizes]
            await settle()
            assert [len(batch) for batch in server.batches] == [SLICE_ROWS] * SLICES_AT_ONCE
        for size, answer in zip(sizes, await asyncio.gather(*large), strict=True):
            assert answer.outputs["twice"].tolist() == (2 * np.arange(size)).tolist()
        lengths = [len(batch) for batch in server.batches]
        # The first two have one slice each, then the third its first, before anybody has another one.
        assert lengths[:3] == [SLICE_ROWS] * 3
        assert [batch[0] for batch in server.batches[:3]] == [0, 0, 0]
        assert sorted(lengths) == [1, *[SLICE_ROWS] * 6]
        assert [kind.version for kind, batch, _ in server.calls if batch[0]] == [7] * 4  # the first slice's version

    run(test())


def test_if_the_version_is_withdrawn_between_slices_the_next_one_answers_all() -> None:
    async def test() -> None:
        asked: list[int | None] = []

        async def call(kind: Kind, parts: Sequence[Rows], timeout_s: float) -> Prediction:
            batch = np.concatenate(parts)
            asked.append(kind.version)
            if kind.version == 1:
                raise VersionNotFoundError(kind.model, 1)
            version = 1 if len(asked) == 2 else 2  # the first call is the small one's
            return Prediction(kind.model, kind.version or version, {"twice": 2 * batch})

        coalescer = Coalescer(call)
        await coalescer.ask(NEWEST, rows(1), LONG_S)
        answer = await coalescer.ask(NEWEST, np.arange(2 * SLICE_ROWS), LONG_S)
        assert (answer.version, len(answer.outputs["twice"])) == (2, 2 * SLICE_ROWS)
        assert asked == [None, None, 1, None, 2]
        with pytest.raises(VersionNotFoundError):
            await coalescer.ask(NEWEST._replace(version=1), np.arange(2 * SLICE_ROWS), LONG_S)

    run(test())


def test_who_gets_no_turn_in_time_is_told_so_and_not_sent() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            held = [
                asyncio.create_task(coalescer.ask(NEWEST, np.ones(MOST_SHARED_ROWS + 1), LONG_S))
                for _ in range(SLICES_AT_ONCE)
            ]
            await settle()
            server.calls.clear()
            for late in (rows(1), np.ones(MOST_SHARED_ROWS + 1)):
                with pytest.raises(NoTurnError):
                    await coalescer.ask(NEWEST, late, SOON_S)
            assert server.calls == []
        await asyncio.gather(*held)

    run(test())


def test_a_call_has_as_many_rows_as_a_model_takes() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            waiting = [asyncio.create_task(coalescer.ask(NEWEST, np.full(60, float(n)), LONG_S)) for n in range(5)]
            await settle()
        for n, answer in enumerate(await asyncio.gather(*waiting)):
            assert answer.outputs["twice"].tolist() == [2.0 * n] * 60
        assert sorted(map(len, server.batches)) == [60, 240]

    run(test())


def test_a_bad_request_fails_alone() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            waiting = [asyncio.create_task(coalescer.ask(NEWEST, rows(n), LONG_S)) for n in (1, BAD, 2)]
            await settle()
        good, bad, also_good = await asyncio.gather(*waiting, return_exceptions=True)
        assert isinstance(bad, ContractError)
        for answer, value in ((good, 2.0), (also_good, 4.0)):
            assert isinstance(answer, Prediction)
            assert answer.outputs["twice"].tolist() == [value]

    run(test())


def test_a_server_that_is_gone_is_gone_for_all_and_asked_once() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            waiting = [asyncio.create_task(coalescer.ask(NEWEST, rows(n), LONG_S)) for n in range(3)]
            await settle()
            server.failure = UnreachableError("m", "UNAVAILABLE", "gone")
        for error in await asyncio.gather(*waiting, return_exceptions=True):
            assert isinstance(error, UnreachableError)
        assert len(server.calls) == 1

    run(test())


def test_one_that_runs_out_of_time_is_not_sent_and_the_call_has_the_time_of_the_most_patient() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            hasty = asyncio.create_task(coalescer.ask(NEWEST, rows(1), SOON_S))
            patient = asyncio.create_task(coalescer.ask(NEWEST, rows(2), LONG_S))
            middling = asyncio.create_task(coalescer.ask(NEWEST, rows(3), LONG_S / 3))
            with pytest.raises(DeadlineError):
                await hasty
        await asyncio.gather(patient, middling)
        ((_, batch, timeout_s),) = server.calls
        assert batch == [2.0, 3.0]
        assert LONG_S / 2 < timeout_s < LONG_S

    run(test())


def test_who_leaves_a_shared_call_takes_nobody_along_and_the_last_one_ends_it() -> None:
    async def test() -> None:
        server = Server()
        coalescer = Coalescer(server.call)
        async with busy(server, coalescer):
            first, second = (asyncio.create_task(coalescer.ask(NEWEST, rows(n), LONG_S)) for n in (1, 2))
            await settle()
            server.let_one_through()
            await settle()
            assert server.batches == [[1.0, 2.0]]
            first.cancel()
            await settle()
            assert server.cancelled == 0
            second.cancel()
            await settle()
            assert server.cancelled == 1
        await settle()
        assert coalescer._lanes == {}

    run(test())
