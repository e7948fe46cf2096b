"""The command ``digitgan``, as a user runs it."""

import subprocess
import sys
from pathlib import Path

LIMIT_S = 900.0
"""A command that takes so long hangs."""


def digitgan(*arguments: str | Path, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. Raises CalledProcessError if it fails and ``check`` is set."""
    command = [sys.executable, "-m", "digitgan", *map(str, arguments)]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=LIMIT_S, cwd=cwd)
