"""Batcher, on functions that say how they were called."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import BATCH_SIZES
from serving.model_server.batching import Batcher, BatchingOptions, padded_size
from serving.model_server.errors import ServingError
from serving.model_server.signature import Arrays
from tests.model_server.client import SECONDS, wait_until


class Caller:
    """A client that waits until it leaves."""

    def __init__(self) -> None:
        self._active = True
        self._callbacks: list[Callable[[], None]] = []

    def is_active(self) -> bool:
        return self._active

    def add_callback(self, callback: Callable[[], None]) -> bool:
        self._callbacks.append(callback)
        return self._active

    def leave(self) -> None:
        self._active = False
        for callback in self._callbacks:
            callback()


class Doubler:
    """A model: y = 2 x, which refuses a 13. It runs while ``open`` is set, and remembers each x."""

    def __init__(self) -> None:
        self.open = threading.Event()
        self.batches: list[list[float]] = []
        self.threads: list[int] = []

    def __call__(self, signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        self.batches.append(np.asarray(inputs["x"], np.float64).ravel().tolist())
        self.threads.append(threading.get_ident())
        assert self.open.wait(SECONDS)
        if 13 in inputs["x"]:
            raise ServingError(grpc.StatusCode.INVALID_ARGUMENT, "13 brings bad luck")
        return {"y": 2 * inputs["x"]}


class Bench:
    """A batcher on a doubler, and threads to call it from."""

    def __init__(self, model: Doubler, pool: ThreadPoolExecutor, options: BatchingOptions) -> None:
        self.model = model
        self.batcher = Batcher(model, options)
        self._pool = pool

    def call(self, *x: float, caller: Caller | None = None, dtype: str = "float32") -> Future[list[float]]:
        """Calls in a thread, and returns when the call has reached the model or the queue."""
        before = len(self.model.batches) + len(self.batcher._pending)

        def run() -> list[float]:
            outputs = self.batcher.run("double", {"x": np.array(x, dtype)}, caller or Caller())
            result: list[float] = outputs["y"].tolist()
            return result

        future = self._pool.submit(run)
        wait_until(
            lambda: future.done() or len(self.model.batches) + len(self.batcher._pending) > before,
            lambda: "the call went nowhere",
        )
        return future


@pytest.fixture
def make() -> Iterator[Callable[..., Bench]]:
    """Makes a bench whose model is held up until it is opened; options as in BatchingOptions."""
    models: list[Doubler] = []
    with ThreadPoolExecutor(16) as pool:

        def make(**options: int) -> Bench:
            models.append(Doubler())
            return Bench(models[-1], pool, BatchingOptions(**options))

        yield make
        for model in models:
            model.open.set()


def test_sizes_are_filled_up_to_those_that_are_warmed_up() -> None:
    assert [padded_size(rows) for rows in (1, 2, 3, 5, 8, 9, 200, 256)] == [1, 2, 4, 8, 8, 16, 256, 256]
    assert [padded_size(rows) for rows in (257, 512, 513)] == [512, 512, 768]
    assert all(padded_size(size) == size for size in BATCH_SIZES)


def test_a_request_to_an_idle_model_runs_at_once_in_its_own_thread(make: Callable[..., Bench]) -> None:
    bench = make()
    bench.model.open.set()
    outputs = bench.batcher.run("double", {"x": np.array([3.0])}, Caller())
    assert outputs["y"].tolist() == [6]
    assert bench.model.threads == [threading.get_ident()]


def test_requests_that_arrive_meanwhile_run_as_one_batch_filled_up_with_its_last_row(
    make: Callable[..., Bench],
) -> None:
    bench = make()
    futures = [bench.call(0), bench.call(1), bench.call(2, 3), bench.call(4, 5)]
    bench.model.open.set()
    assert [future.result(SECONDS) for future in futures] == [[0], [2], [4, 6], [8, 10]]
    assert bench.model.batches == [[0], [1, 2, 3, 4, 5, 5, 5, 5]]


def test_a_batch_ends_before_the_request_that_does_not_fit(make: Callable[..., Bench]) -> None:
    bench = make(max_batch_size=4)
    futures = [bench.call(0), bench.call(1, 2, 3), bench.call(4, 5), bench.call(6)]
    bench.model.open.set()
    assert [future.result(SECONDS) for future in futures] == [[0], [2, 4, 6], [8, 10], [12]]
    assert bench.model.batches == [[0], [1, 2, 3, 3], [4, 5, 6, 6]]


def test_a_large_request_runs_in_pieces_and_nobody_joins_what_fills_one(make: Callable[..., Bench]) -> None:
    bench = make(max_batch_size=8, max_execution_batch_size=4)
    futures = [bench.call(0), bench.call(1, 2, 3, 4, 5, 6, 7), bench.call(8), bench.call(9, 10, 11), bench.call(12)]
    bench.model.open.set()
    assert [future.result(SECONDS) for future in futures] == [[0], [2, 4, 6, 8, 10, 12, 14], [16], [18, 20, 22], [24]]
    assert bench.model.batches == [[0], [1, 2, 3, 4], [5, 6, 7, 7], [8, 9, 10, 11], [12]]


def test_requests_of_other_dtypes_or_shapes_do_not_share_a_batch(make: Callable[..., Bench]) -> None:
    bench = make()
    futures = [bench.call(0), bench.call(1), bench.call(2, dtype="int32"), bench.call(3)]
    bench.model.open.set()
    assert [future.result(SECONDS) for future in futures] == [[0], [2], [4], [6]]
    assert bench.model.batches == [[0], [1, 3], [2]]


def test_a_bad_request_fails_alone(make: Callable[..., Bench]) -> None:
    bench = make()
    futures = [bench.call(0), bench.call(1), bench.call(13), bench.call(2)]
    bench.model.open.set()
    assert [futures[i].result(SECONDS) for i in (0, 1, 3)] == [[0], [2], [4]]
    with pytest.raises(ServingError, match="bad luck"):
        futures[2].result(SECONDS)


def test_a_full_queue_refuses_and_empties_again(make: Callable[..., Bench]) -> None:
    bench = make(max_batch_size=2, max_enqueued_batches=2)
    futures = [bench.call(0), bench.call(1, 2), bench.call(3), bench.call(4)]
    with pytest.raises(ServingError, match="full") as caught:
        bench.call(5).result(SECONDS)
    assert caught.value.code is grpc.StatusCode.UNAVAILABLE
    bench.model.open.set()
    assert [future.result(SECONDS) for future in futures] == [[0], [2, 4], [6], [8]]
    assert bench.call(1, 2).result(SECONDS) == [2, 4]


def test_a_request_whose_client_leaves_the_queue_is_never_run(make: Callable[..., Bench]) -> None:
    bench, caller = make(), Caller()
    first, left, last = bench.call(0), bench.call(1, caller=caller), bench.call(2)
    caller.leave()
    with pytest.raises(ServingError) as caught:
        left.result(SECONDS)
    assert caught.value.code is grpc.StatusCode.CANCELLED
    bench.model.open.set()
    assert (first.result(SECONDS), last.result(SECONDS)) == ([0], [4])
    assert bench.model.batches == [[0], [2]]


def test_a_request_whose_client_has_left_already_is_never_run(make: Callable[..., Bench]) -> None:
    bench, caller = make(), Caller()
    caller.leave()
    first = bench.call(0)
    with pytest.raises(ServingError):
        bench.call(1, caller=caller).result(SECONDS)
    bench.model.open.set()
    assert first.result(SECONDS) == [0]
    with pytest.raises(ServingError):
        bench.call(2, caller=caller).result(SECONDS)
    assert bench.call(3).result(SECONDS) == [6]
    assert bench.model.batches == [[0], [3]]


def test_after_an_unexpected_failure_the_model_is_free_again() -> None:
    def run(signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        if inputs["x"][0] < 0:
            raise ZeroDivisionError
        return {"y": inputs["x"]}

    batcher = Batcher(run, BatchingOptions())
    with pytest.raises(ZeroDivisionError):
        batcher.run("any", {"x": np.array([-1])}, Caller())
    assert batcher.run("any", {"x": np.array([1])}, Caller())["y"].tolist() == [1]


def test_as_many_batches_run_at_once_as_there_are_batch_threads(make: Callable[..., Bench]) -> None:
    bench = make(num_batch_threads=2)
    futures = [bench.call(0), bench.call(1), bench.call(2)]
    assert bench.model.batches == [[0], [1]]
    bench.model.open.set()
    assert [future.result(SECONDS) for future in futures] == [[0], [2], [4]]


def test_no_rows_are_run_as_they_are_even_while_the_model_is_busy(make: Callable[..., Bench]) -> None:
    bench = make()
    busy = bench.call(0)
    empty = bench.call()
    assert bench.model.batches == [[0], []]
    bench.model.open.set()
    assert empty.result(SECONDS) == []
    assert busy.result(SECONDS) == [0]


def test_many_threads_get_their_own_answers(make: Callable[..., Bench]) -> None:
    bench = make(max_batch_size=8, num_batch_threads=2)
    bench.model.open.set()
    numbers = np.arange(1, 400)
    numbers[12] = 999  # 13 is refused

    def call(number: int) -> list[float]:
        outputs = bench.batcher.run("double", {"x": np.array([number], np.float32)}, Caller())
        result: list[float] = outputs["y"].tolist()
        return result

    with ThreadPoolExecutor(16) as pool:
        assert list(pool.map(call, numbers)) == [[2 * number] for number in numbers]
    assert (bench.batcher._running, bench.batcher._pending_rows) == (0, 0)
