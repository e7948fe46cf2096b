"""How a command ends early: it lacks a part, or a signal stops it."""

import signal
import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import FrameType
from typing import Final

from serving.errors import UserError

_MODULES: Final = {  # the top-level modules that each extra brings
    "client": ("httpx", "numpy", "PIL"),
    "gateway": ("fastapi", "uvicorn"),
    "model-server": ("openvino", "grpc_health"),
    "training": ("tensorflow", "scipy", "sklearn", "matplotlib", "jinja2", "PIL"),
}
_AGAIN_S: Final = 0.05


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. It unwinds the command, so that each block leaves nothing half-written behind."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


@contextmanager
def stop_on_signals() -> Iterator[None]:
    """Raises Stopped in the block, in the main thread, at SIGINT, SIGTERM, and SIGHUP (as SIGTERM).

    Not within an import, which may swallow the exception or replace it: then the signal comes again, until it is over.
    Ignored signals stay ignored: SIGINT in a background job, SIGHUP below nohup.
    """

    def stop(number: int, frame: FrameType | None) -> None:
        if not any("importlib._bootstrap" in each.f_code.co_filename for each, _ in traceback.walk_stack(frame)):
            raise Stopped(number)
        signal.signal(signal.SIGALRM, lambda _number, _frame: signal.raise_signal(number))
        signal.setitimer(signal.ITIMER_REAL, _AGAIN_S)

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


@contextmanager
def deferred_signals() -> Iterator[list[int]]:
    """Holds SIGINT and SIGTERM back until the end of the block, and gives those that have arrived.

    A block that raises an exception ends with that one, and without the signals.
    """
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
        if signal.getsignal(number) is not signal.SIG_IGN
    }
    try:
        yield arrived
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    for each in arrived:
        signal.raise_signal(each)


def require(extra: str) -> None:
    """Raises UserError if an optional part, which an extra brings, is not installed."""
    if missing := [module for module in _MODULES[extra] if find_spec(module) is None]:
        raise UserError(
            f"this needs {', '.join(missing)}. Install the extra '{extra}', in the folder of the source: "
            f"{sys.executable} -m pip install --constraint requirements.lock '.[{extra}]'"
        )
