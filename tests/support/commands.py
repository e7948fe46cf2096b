"""The command ``digitgan``, as a user runs it or in this process, and Python code in a process of its own."""

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from digitgan.cli import app

LIMIT_S = 900.0
"""A command that takes so long hangs."""


def digitgan(*arguments: str | Path, check: bool = True, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. Raises CalledProcessError if it fails and ``check`` is set."""
    command = [sys.executable, "-m", "digitgan", *map(str, arguments)]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=LIMIT_S, cwd=cwd)


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python code."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=cwd)


_STOPPING_ITSELF = """
import os, pkgutil, sys
from digitgan.cli import main
number, function = int(sys.argv.pop(1)), sys.argv.pop(1)
owner_name, _, name = function.rpartition(".")
owner = pkgutil.resolve_name(owner_name)
original = getattr(owner, name)

def stopping(*arguments, **named):
    setattr(owner, name, original)
    original(*arguments, **named)
    os.kill(os.getpid(), number)

setattr(owner, name, stopping)
main()
"""


def stopped_after(function: str, number: int, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Runs a command that gets a signal when it has called a function, given by its full name, for the first time."""
    return python(_STOPPING_ITSELF, str(number), function, *map(str, arguments))


def digitgan_here(*arguments: str | Path) -> Result:
    """Runs a command in this process, which has loaded TensorFlow already. Raises what the command raises.

    TF32 is on when it begins, as in a new process.
    """
    import tensorflow as tf

    tf.config.experimental.enable_tensor_float_32_execution(True)
    return CliRunner().invoke(app, list(map(str, arguments)), catch_exceptions=False, standalone_mode=False)


def assert_float32() -> None:
    """Passes when the last command has turned TF32 off: on a GPU, a saved graph would not equal its network."""
    import tensorflow as tf

    assert not tf.config.experimental.tensor_float_32_execution_enabled()


def assert_command_exists(words: Sequence[str]) -> None:
    """Passes when ``digitgan`` takes these words: a command, its arguments and its options."""
    command, rest = typer.main.get_command(app), list(words)
    while hasattr(command, "commands") and not rest[0].startswith("-"):
        command = command.commands[rest.pop(0)]
    command.make_context("digitgan", rest)
