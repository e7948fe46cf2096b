"""Requests that arrive together run as one batch.

There is no waiting for company: a request that finds the model idle runs at once, in the thread that serves
it. Requests that arrive while the model is busy queue up, and when it becomes free the first of them leads
a batch of all that fit: same signature, dtypes and shapes but for the number of rows.

A batch is filled up to a size that the model is warmed up with (``serving.contract.BATCH_SIZES``) by
repeating its last row. That keeps an answer independent of its company: TensorFlow's kernels for the CPU
compute a row in the same way for these sizes, and slightly differently for some others.

What is larger than ``max_execution_batch_size`` runs in pieces of that size. More rows at a time would take as long
for each row, and more memory for all of them.
"""

import threading
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np
from grpc import StatusCode
from numpy.typing import NDArray

from serving.contract import BATCH_SIZES
from serving.model_server.errors import ServingError
from serving.model_server.signature import Arrays


class Call(Protocol):
    """What a batch asks of the call behind a request; ``grpc.ServicerContext`` has it."""

    def is_active(self) -> bool:
        """Tells whether the client is still waiting."""

    def add_callback(self, callback: Callable[[], None]) -> bool:
        """Has ``callback`` called when the call ends; returns False when it has ended already."""


@dataclass(frozen=True, kw_only=True)
class BatchingOptions:
    """Limits, named as in TensorFlow Serving's batching parameters. The sizes of batches are in rows.

    The queue holds the rows of ``max_enqueued_batches`` full batches.
    """

    max_batch_size: int = 256
    max_execution_batch_size: int = 64
    max_enqueued_batches: int = 64
    num_batch_threads: int = 1


@dataclass(eq=False)
class _Task:
    """One request: waiting (``wake`` not set), then either leading a batch or taken along in one."""

    key: tuple[Any, ...]
    inputs: Arrays
    rows: int
    wake: threading.Event = field(default_factory=threading.Event)
    leads: bool = False
    outputs: dict[str, NDArray[Any]] = field(default_factory=dict)
    error: ServingError | None = None


def padded_size(rows: int) -> int:
    """Returns the number of rows that a batch of ``rows`` is filled up to: the next of BATCH_SIZES.

    Beyond the largest of them it is the next multiple of that.
    """
    largest = BATCH_SIZES[-1]
    return next((size for size in BATCH_SIZES if size >= rows), -(-rows // largest) * largest)


class Batcher:
    """The batches of one loaded version. ``run`` is called with a signature's name and inputs."""

    def __init__(self, run: Callable[[str, Arrays], dict[str, NDArray[Any]]], options: BatchingOptions) -> None:
        self._run = run
        self._options = options
        self._lock = threading.Lock()
        self._running = 0  # batches, including those whose leader hasn't woken yet
        self._pending: deque[_Task] = deque()
        self._pending_rows = 0

    def run(self, signature_name: str, inputs: Arrays, call: Call) -> dict[str, NDArray[Any]]:
        """Returns the signature's outputs for ``inputs``, each of shape [N, …] with the same N.

        Raises ServingError: INVALID_ARGUMENT for inputs that aren't so or have more rows than a batch,
        UNAVAILABLE when the queue is full, CANCELLED when the client leaves before it is its turn, and what
        the run itself raises.
        """
        rows = _rows(inputs)
        if not rows:  # no row that could share a batch, and none to repeat
            return self._run(signature_name, inputs)
        if rows > self._options.max_batch_size:
            raise ServingError(
                StatusCode.INVALID_ARGUMENT,
                f"Task size {rows} is larger than maximum input batch size {self._options.max_batch_size}",
            )
        shapes = tuple((name, array.dtype.str, array.shape[1:]) for name, array in sorted(inputs.items()))
        task = _Task((signature_name, shapes), inputs, rows)
        if not self._enter(task):
            if not call.add_callback(partial(self._abandon, task)):
                self._abandon(task)
            task.wake.wait()
        if task.leads:
            self._lead(task, call)
        if task.error is not None:
            raise task.error
        return task.outputs

    def _enter(self, task: _Task) -> bool:
        """Makes ``task`` a leader when the model is free (and returns True), or queues it."""
        with self._lock:
            if self._running < self._options.num_batch_threads:
                self._running += 1
                task.leads = True
                return True
            limit = self._options.max_enqueued_batches * self._options.max_batch_size
            if self._pending_rows + task.rows > limit:
                raise ServingError(
                    StatusCode.UNAVAILABLE,
                    "The batch scheduling queue to which this task was submitted is full: "
                    f"{self._pending_rows} of {limit} rows",
                )
            self._pending.append(task)
            self._pending_rows += task.rows
            return False

    def _abandon(self, task: _Task) -> None:
        """Drops a task whose client has gone, if its turn hasn't come."""
        with self._lock:
            if task not in self._pending:
                return
            self._remove(task)
        task.error = _gone()
        task.wake.set()

    def _lead(self, task: _Task, call: Call) -> None:
        with self._lock:
            companions = self._take_companions(task)
        batch = [task, *companions] if call.is_active() else companions
        if task not in batch:
            task.error = _gone()
        try:
            if batch:
                self._execute(batch)
        finally:
            self._hand_over()
            for companion in companions:
                companion.wake.set()

    def _take_companions(self, leader: _Task) -> list[_Task]:
        companions = []
        space = min(self._options.max_batch_size, self._options.max_execution_batch_size) - leader.rows
        for task in list(self._pending):
            if task.key == leader.key:
                if task.rows > space:  # nobody overtakes it
                    break
                space -= task.rows
                companions.append(task)
                self._remove(task)
        return companions

    def _hand_over(self) -> None:
        with self._lock:
            if not self._pending:
                self._running -= 1
                return
            leader = self._pending[0]
            self._remove(leader)
            leader.leads = True
        leader.wake.set()

    def _remove(self, task: _Task) -> None:
        self._pending.remove(task)
        self._pending_rows -= task.rows

    def _execute(self, batch: Sequence[_Task]) -> None:
        """Fills in the outputs, or the error, of each task."""
        try:
            self._run_together(batch)
        except ServingError as error:
            if len(batch) == 1:
                batch[0].error = error
                return
            for task in batch:  # one of them is at fault: only that one may fail
                self._execute([task])
        except Exception as error:
            for task in batch:
                task.error = ServingError(StatusCode.INTERNAL, f"{type(error).__name__} while running a batch")
            raise

    def _run_together(self, batch: Sequence[_Task]) -> None:
        signature_name = batch[0].key[0]
        inputs = {name: _joined([task.inputs[name] for task in batch]) for name in batch[0].inputs}
        total, size = sum(task.rows for task in batch), self._options.max_execution_batch_size
        pieces = [
            self._run_piece(signature_name, {name: array[start : start + size] for name, array in inputs.items()})
            for start in range(0, total, size)
        ]
        outputs = {name: _joined([piece[name] for piece in pieces]) for name in pieces[0]}
        start = 0
        for task in batch:
            task.outputs = {name: output[start : start + task.rows] for name, output in outputs.items()}
            start += task.rows

    def _run_piece(self, signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        rows = _rows(inputs)
        padding = padded_size(rows) - rows
        if padding:
            inputs = {
                name: np.concatenate([array, np.repeat(array[-1:], padding, axis=0)]) for name, array in inputs.items()
            }
        outputs = self._run(signature_name, inputs)
        for name, output in outputs.items():
            if output.ndim == 0 or len(output) != rows + padding:
                raise ServingError(
                    StatusCode.FAILED_PRECONDITION,
                    f"Batched output {name} has the shape {list(output.shape)} for {rows + padding} input "
                    "rows: only signatures that keep the first dimension can run in batches",
                )
        return {name: output[:rows] for name, output in outputs.items()}


def _joined(parts: Sequence[NDArray[Any]]) -> NDArray[Any]:
    return np.concatenate(parts) if len(parts) > 1 else parts[0]


def _rows(inputs: Arrays) -> int:
    sizes = {array.shape[0] if array.ndim else None for array in inputs.values()}
    if None in sizes:
        raise ServingError(StatusCode.INVALID_ARGUMENT, "Batching input tensors must have at least one dimension")
    if len(sizes) > 1:
        raise ServingError(
            StatusCode.INVALID_ARGUMENT,
            "Batching input tensors must have equal 0th-dimension sizes in a request",
        )
    return sizes.pop() or 0 if sizes else 0


def _gone() -> ServingError:
    return ServingError(StatusCode.CANCELLED, "the client left before its turn came")
