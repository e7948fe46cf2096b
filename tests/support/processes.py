"""Server processes for tests and benchmarks: started, waited for, and stopped; and clients that never pause."""

import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self, TypeVar

import grpc
import httpx

from digitgan.processes import TENSORFLOW_MODEL_SERVER

EMBEDDED: Final = "embedded"
"""In place of a program's path: the embedded model server."""
PROGRAM: Final = shutil.which(TENSORFLOW_MODEL_SERVER) or EMBEDDED
"""The model server under test."""

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 60.0

Answer = TypeVar("Answer")


def wait_until(
    condition: Callable[[], object],
    message: Callable[[], str] = lambda: "the condition did not come true",
    seconds: float = 120,
) -> None:
    """Returns once ``condition`` is true. Raises AssertionError with ``message`` if that takes longer."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, message()
        time.sleep(0.02)


@contextmanager
def repeating(call: Callable[[], Answer], clients: int = 1) -> Iterator[list[Answer]]:
    """Calls again and again, in a thread for each client, while the block runs. Gives the answers so far.

    At the end of the block it raises what a call has raised, after which that client stopped.
    """
    answers: list[Answer] = []
    ended = threading.Event()

    def work() -> None:
        while not ended.is_set():
            answers.append(call())

    with ThreadPoolExecutor(clients) as pool:
        working = [pool.submit(work) for _ in range(clients)]
        try:
            yield answers
        finally:
            ended.set()
    for one in working:
        one.result()


class ServerProcess:
    """A context manager of a process that prints a line when it is ready: one that begins with ``ready``."""

    def __init__(
        self,
        *arguments: str | Path,
        program: str = sys.executable,
        environment: dict[str, str] | None = None,
        ready: str = "",
    ) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DIGITGAN_")}
        self.process = subprocess.Popen(
            [program, *arguments],
            env=clean | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        self._ready = ready
        self._output: list[str] = []
        self._errors: list[str] = []
        self._threads = [
            threading.Thread(target=lines.extend, args=[stream])
            for lines, stream in ((self._output, self.process.stdout), (self._errors, self.process.stderr))
        ]
        for thread in self._threads:
            thread.start()

    @property
    def log(self) -> str:
        """What the process has written to stderr so far."""
        return "".join(self._errors)

    @property
    def line(self) -> str:
        """The line that says it is ready; "" before."""
        return next((line.strip() for line in self._output if line.startswith(self._ready)), "")

    @property
    def url(self) -> str:
        """Where the process says that it listens."""
        found = re.search(r"listens on (\S+)", "".join(self._output))
        return found[1] if found else ""

    def wait_until_ready(self) -> None:
        """Returns when the process can be used. Raises AssertionError if it ends before."""
        wait_until(lambda: self.line or self.process.poll() is not None, lambda: self.log, START_SECONDS)
        if not self.line:
            self.wait()
        assert self.line, f"the process did not become ready:\n{self.log}"

    def __enter__(self) -> Self:
        try:
            self.wait_until_ready()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def wait(self) -> int:
        """Waits until the process ends, and until ``log`` is complete. Returns the exit status."""
        status = self.process.wait(START_SECONDS)
        for thread in self._threads:
            thread.join()
        return status

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal if the process still runs, and returns its exit status."""
        self.process.send_signal(number)
        try:
            self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
        status = self.wait()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        return status

    def resident_bytes(self) -> int:
        return resident_bytes(self.process.pid)


class ModelServerProcess(ServerProcess):
    """A model server, ready when it listens at ``target``: EMBEDDED, or the path of a ``tensorflow_model_server``."""

    def __init__(self, server: str, flags: Sequence[str], target: str) -> None:
        self.target = target
        self.flags = flags
        if server == EMBEDDED:
            super().__init__("-m", "digitgan", "serve", *flags)
        else:
            super().__init__(*flags, program=server)

    @property
    def log(self) -> str:
        """TensorFlow Serving writes its last message, the cause of its end, to stdout."""
        return super().log + "".join(self._output)

    def wait_until_ready(self) -> None:
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(self.target, options=options) as channel:
            listening = grpc.channel_ready_future(channel)
            wait_until(lambda: listening.done() or self.process.poll() is not None, lambda: self.log, START_SECONDS)
            assert listening.done(), f"the model server ended:\n{self.log}"


@contextmanager
def digitgan_up(*arguments: str | Path) -> Iterator[tuple[ServerProcess, httpx.Client]]:
    """Runs ``digitgan up`` on a free port in the block, and gives it with a client once the models are loaded."""
    patient = {"DIGITGAN_REQUEST_TIMEOUT_S": "60"}  # on a busy machine
    with (
        ServerProcess("-m", "digitgan", "up", "--port", "0", *arguments, environment=patient, ready="Ready") as server,
        httpx.Client(base_url=server.url, timeout=90) as client,
    ):
        yield server, client


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    return port
