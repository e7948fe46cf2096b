"""A child process that ends with the block that needs it."""

import subprocess
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Final

from digitgan.errors import deferred_signals

STOP_SECONDS: Final = 10.0
_LAST_LINES: Final = 20


class ChildProcess:
    """A program that runs. A thread reads its output, standard error included, and keeps the last lines.

    Args:
        command: the program and its arguments.
        on_line: gets each line of the output.
        on_end: is called when the program ends before ``stop``.
        options: for Popen.
    """

    def __init__(
        self, command: Sequence[str], on_line: Callable[[str], object], on_end: Callable[[], object], **options: Any
    ) -> None:
        self.ended = False
        """Whether the program ended by itself."""
        self.last_lines: deque[str] = deque(maxlen=_LAST_LINES)
        self._on_line = on_line
        self._on_end = on_end
        self._stopping = False
        self._process = subprocess.Popen(  # noqa: S603 - no shell, and no argument that others choose
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self._process.stdout
        with self._process.stdout as output:
            for line in output:
                self.last_lines.append(line)
                self._on_line(line)
        self._process.wait()
        if not self._stopping:
            self.ended = True
            self._on_end()

    def stop(self, seconds: float) -> None:
        """Ends the program: by SIGTERM, and after so many seconds by SIGKILL."""
        self._stopping = True
        self._process.terminate()
        try:
            self._process.wait(seconds)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._reader.join(seconds)
        if self._process.stdin:
            self._process.stdin.close()


@contextmanager
def child_process(
    command: Sequence[str],
    on_line: Callable[[str], object],
    on_end: Callable[[], object],
    stop_seconds: float = STOP_SECONDS,
    **options: Any,
) -> Iterator[ChildProcess]:
    """Runs a ``ChildProcess`` beside the block, and ends it with the block."""
    child = None
    try:
        with deferred_signals():  # An exception while the child starts would lose track of it.
            child = ChildProcess(command, on_line, on_end, **options)
        yield child
    finally:
        if child:
            child.stop(stop_seconds)
