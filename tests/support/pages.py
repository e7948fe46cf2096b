"""What the examples on pages print: commands, curl among them, and Python."""

import io
import os
import re
import subprocess
import sys
from contextlib import redirect_stdout
from pathlib import Path
from typing import Final

from tests.support.commands import LIMIT_S

_BIN: Final = Path(__file__).parent / "bin"


def blocks(page: str, language: str) -> list[str]:
    """Returns the code blocks of a page in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", page, re.MULTILINE | re.DOTALL)


def commands(page: str) -> list[tuple[str, str]]:
    """Returns the commands of a page, and what is printed below each."""
    parts = re.split(r"^\$ (.*)\n", "".join(blocks(page, "console")), flags=re.MULTILINE)
    return list(zip(parts[1::2], parts[2::2], strict=True))


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
