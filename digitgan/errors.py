"""How a command ends early: it lacks a part, or a signal stops it."""

import signal
import sys
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


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. It unwinds the command, so that each block leaves nothing half-written behind."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number


def stop_on_signals() -> None:
    """Raises Stopped in the main thread at SIGINT, SIGTERM, and SIGHUP (as SIGTERM).

    Ignored signals stay ignored: SIGINT in a background job, SIGHUP below nohup.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))


def require(extra: str) -> None:
    """Raises UserError if an optional part, which an extra brings, is not installed."""
    if missing := [module for module in _MODULES[extra] if find_spec(module) is None]:
        raise UserError(
            f"this needs {', '.join(missing)}. Install the extra '{extra}', in the folder of the source: "
            f"{sys.executable} -m pip install --constraint requirements.lock '.[{extra}]'"
        )
