"""A child process that ends with the block that needs it."""

import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

from digitgan.errors import deferred_signals

STOP_SECONDS: Final = 10.0
_LAST_LINES: Final = 20


@dataclass
class ChildProcess:
    """A program that runs.

    Attributes:
        last_lines: of its output, standard error included.
        ended: whether it ended by itself.
    """

    last_lines: deque[str] = field(default_factory=lambda: deque(maxlen=_LAST_LINES))
    ended: bool = False


@contextmanager
def child_process(
    command: Sequence[str],
    on_line: Callable[[str], object],
    on_end: Callable[[], object],
    stop_seconds: float = STOP_SECONDS,
    **options: Any,
) -> Iterator[ChildProcess]:
    """Runs a program beside the block, and ends it with the block: by SIGTERM, and if that takes too long by SIGKILL.

    Args:
        command: the program and its arguments.
        on_line: gets each line of the output, in a thread.
        on_end: is called in that thread if the program ends before the block.
        stop_seconds: how long the program may take to end after SIGTERM.
        options: for Popen.
    """
    child, stopping, process = ChildProcess(), False, None

    def read(running: subprocess.Popen[str]) -> None:
        assert running.stdout
        with running.stdout as output:
            for line in output:
                child.last_lines.append(line)
                on_line(line)
        running.wait()
        if not stopping:
            child.ended = True
            on_end()

    try:
        with deferred_signals():  # An exception while the child starts would lose track of it.
            process = subprocess.Popen(  # noqa: S603 - no shell, and no argument that others choose
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options
            )
            reader = threading.Thread(target=read, args=(process,), daemon=True)
            reader.start()
        yield child
    finally:
        stopping = True
        if process:
            process.terminate()
            try:
                process.wait(stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(stop_seconds)
            if process.stdin:
                process.stdin.close()
