"""The command ``digitgan``, as a user runs it or in this process, Python code, and the examples on pages."""

import io
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from contextlib import redirect_stdout
from pathlib import Path

import typer
from typer.testing import CliRunner, Result

from digitgan.cli import app

LIMIT_S = 900.0
"""A command that takes so long hangs."""


def digitgan(*arguments: object, status: int = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs a command to its end. Passes when it ends with ``status``."""
    command = [sys.executable, "-m", "digitgan", *map(str, arguments)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=cwd)
    assert done.returncode == status, done.stderr
    return done


def python(code: str, *arguments: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Runs Python code."""
    command = [sys.executable, "-c", code, *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT_S, cwd=cwd)


_STOPPING_ITSELF = """
import contextlib, os, pkgutil, sys
from unittest import mock
from digitgan.cli import main
number, function, lost = int(sys.argv.pop(1)), sys.argv.pop(1), sys.argv.pop(1) == "True"
original = pkgutil.resolve_name(function)

def stopping(*arguments, **named):
    patch.stop()
    returned = original(*arguments, **named)
    with contextlib.suppress(BaseException if lost else ()):
        os.kill(os.getpid(), number)
    return returned

patch = mock.patch(function, stopping)
patch.start()
main()
"""


def stopped_after(function: str, number: int, *command: object, lost: bool = False) -> subprocess.CompletedProcess[str]:
    """Runs a command that gets a signal when it has called a function, given by its full name, for the first time.

    ``lost``: what called the function swallows exceptions.
    """
    return python(_STOPPING_ITSELF, str(number), function, str(lost), *map(str, command))


def digitgan_here(*arguments: object) -> Result:
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
    own = {
        "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}:{Path(__file__).parent / 'bin'}",
        "DIGITGAN_URL": url,
    }
    words = ["bash", "-c", command.replace("http://127.0.0.1:8000", url)]
    named = {**os.environ, **own, **environment}
    return subprocess.run(words, cwd=directory, env=named, capture_output=True, text=True, timeout=LIMIT_S)


def printed_by(code: str, names: dict[str, object] | None = None) -> str:
    """Runs Python code, with the names of the code before it, and returns what it prints."""
    printed = io.StringIO()
    with redirect_stdout(printed):
        exec(code, {} if names is None else names)
    return printed.getvalue()
