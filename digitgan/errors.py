"""How a command ends early: it lacks a part, it cannot write where it should, or a signal stops it."""

import json
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.metadata import PackageNotFoundError, distribution
from importlib.util import find_spec
from pathlib import Path
from types import FrameType
from typing import Final
from urllib.parse import unquote, urlsplit

from serving.errors import UserError

_MODULES: Final = {
    "client": ("httpx", "numpy", "PIL"),
    "gateway": ("fastapi", "uvicorn"),
    "model-server": ("openvino", "grpc_health"),
    "training": ("tensorflow", "scipy", "sklearn", "matplotlib", "jinja2", "PIL"),
}
"""The top-level modules that each extra brings."""


class Stopped(BaseException):
    """Ctrl-C or SIGTERM. It unwinds the command, so that each block leaves nothing half-written behind."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.status = 128 + number
        self.remark = ""
        """What the user should know beside that, in a sentence."""


def stop_on_signals() -> None:
    """Raises Stopped in the main thread at SIGINT and SIGTERM. A closed terminal counts as SIGTERM.

    Signals that are ignored stay so: SIGINT in a background job, SIGHUP below nohup.
    """

    def stop(number: int, _frame: FrameType | None) -> None:
        raise Stopped(number)

    signal.signal(signal.SIGTERM, stop)
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, stop)
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:
        signal.signal(signal.SIGHUP, lambda _number, _frame: signal.raise_signal(signal.SIGTERM))


@contextmanager
def deferred_signals() -> Iterator[None]:
    """Holds SIGINT and SIGTERM back until the block is done."""
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for each in arrived:
            signal.raise_signal(each)


def require(extra: str) -> None:
    """Raises UserError if an optional part, which an extra brings, is not installed."""
    if missing := [module for module in _MODULES[extra] if find_spec(module) is None]:
        raise UserError(f"this needs {', '.join(missing)}. Install the extra '{extra}': {install_command(extra)}")


def check_parent(option: str, path: Path) -> None:
    """Raises UserError if no file can be made at ``path``, before anything is computed for it."""
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"{option} {path}: there is no folder {folder}")
    if not os.access(folder, os.W_OK):
        raise UserError(f"{option} {path}: {folder} is not writable")


def install_command(extra: str) -> str:
    """Returns the command that adds an extra to this installation, from where the package itself came."""
    origin, installer = {}, ""
    try:
        installed = distribution("digitgan")
        origin = json.loads(installed.read_text("direct_url.json") or "{}")  # PEP 610
        installer = (installed.read_text("INSTALLER") or "").strip()
    except PackageNotFoundError:
        pass
    python = f"uv pip install --python {sys.executable}" if installer == "uv" else f"{sys.executable} -m pip install"
    url = origin.get("url", "")
    if "dir_info" in origin:
        folder = Path(unquote(urlsplit(url).path))
        lock = folder / "requirements.lock"
        constraint = f"--constraint {lock} " if lock.exists() else ""
        editable = "--editable " if origin["dir_info"].get("editable") else ""
        return f"{python} {constraint}{editable}'{folder}[{extra}]'"
    if "vcs_info" in origin:
        url = f"{origin['vcs_info']['vcs']}+{url}@{origin['vcs_info']['commit_id']}"
    return f"{python} 'digitgan[{extra}] @ {url}'" if url else f"{python} 'digitgan[{extra}]'"
