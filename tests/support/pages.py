"""What the examples on pages print: commands, curl among them, and Python."""

import io
import os
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from tests.support.commands import LIMIT_S

_BIN: Final = Path(__file__).parent / "bin"


def run(command: str, directory: Path, url: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Runs a command of a page in ``directory``, with the service at ``url`` in place of 127.0.0.1:8000.

    Where there is no curl, tests/support/bin/curl takes its place.
    """
    own = {"PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:{_BIN}", "DIGITGAN_URL": url}
    words = ["bash", "-c", command.replace("http://127.0.0.1:8000", url)]
    named = {**os.environ, **own, **environment}
    return subprocess.run(words, cwd=directory, env=named, capture_output=True, text=True, timeout=LIMIT_S)


def printed_by(code: str, names: dict[str, object] | None = None) -> str:
    """Runs Python code, with the names of the code before it, and returns what it prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, {} if names is None else names)
    return printed.getvalue()
