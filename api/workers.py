"""Several gateway processes on one socket: the system gives each connection to one that is free.

This process only looks after them. A signal is passed on to all, so each ends in its own orderly way; a worker that
ends by itself takes the others with it, and whoever started the gateway starts it again.
"""

import multiprocessing
import os
import signal
import tempfile
import threading
from collections.abc import Callable
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from types import FrameType
from typing import Final

METRICS_DIR: Final = "PROMETHEUS_MULTIPROC_DIR"
"""Where prometheus_client's processes add up what they count. It reads the variable when it is imported."""

_FAILED: Final = 1
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

Serve = Callable[[bool], int]
"""Serves until SIGTERM and returns the exit status. Is told whether it is the first worker, which speaks for all."""


def run_workers(count: int, serve: Serve) -> int:
    """Runs ``serve``, which has to be picklable, in ``count`` processes until a signal; returns the exit status."""
    context = multiprocessing.get_context("spawn")
    stopping = False
    workers: list[BaseProcess] = []

    def pass_on(number: int, frame: FrameType | None) -> None:
        nonlocal stopping
        stopping = True
        for worker in workers:
            worker.terminate()

    with tempfile.TemporaryDirectory(prefix="digitgan-metrics-") as metrics:
        os.environ[METRICS_DIR] = metrics
        workers += [context.Process(target=_work, args=(serve, place == 0)) for place in range(count)]
        before = {number: signal.getsignal(number) for number in _STOP_SIGNALS}
        try:
            for worker in workers:
                worker.start()
            for number in _STOP_SIGNALS:
                signal.signal(number, pass_on)
            wait([worker.sentinel for worker in workers])
            failed = not stopping
        finally:
            for worker in workers:
                if worker.pid is not None:
                    if not stopping:
                        worker.terminate()
                    worker.join()
            for number, handler in before.items():
                signal.signal(number, handler)
            del os.environ[METRICS_DIR]
    # A worker that has not begun to serve when the stop comes ends by the signal.
    return _FAILED if failed or any(worker.exitcode not in (0, -signal.SIGTERM) for worker in workers) else 0


def _work(serve: Serve, first: bool) -> None:
    # Ctrl-C reaches every process of a terminal at once, and two signals would mean: don't wait.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    raise SystemExit(serve(first))


def _end_with_parent() -> None:
    parent = multiprocessing.parent_process()
    assert parent
    parent.join()
    os.kill(os.getpid(), signal.SIGTERM)


def is_worker() -> bool:
    """Whether this process is one of several."""
    return multiprocessing.parent_process() is not None
