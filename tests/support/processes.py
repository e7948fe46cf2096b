"""Server processes for tests and benchmarks: started, waited for, and stopped."""

import os
import queue
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Final, Self

import grpc
import httpx

EMBEDDED: Final = "embedded"
"""In place of a program's path: the embedded model server."""

START_SECONDS: Final = 180.0
STOP_SECONDS: Final = 60.0


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
        self._output: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._read_output), threading.Thread(target=self._read_errors)]
        for thread in self._threads:
            thread.start()
        self.line = ""
        """The line that says it is ready."""
        self.url = ""
        """Where the process listens, if it says so before it is ready."""

    @property
    def log(self) -> str:
        """What the process has written to stderr so far."""
        return "".join(self._errors)

    def wait_until_ready(self) -> None:
        """Returns when the process can be used. Raises AssertionError if it never can."""
        while not self.line.startswith(self._ready) or not self.line:
            try:
                printed = self._output.get(timeout=START_SECONDS)
            except queue.Empty:
                printed = ""
            assert printed, f"the process did not become ready:\n{self.log}"
            self.line = printed.strip()
            if found := re.search(r"listens on (\S+)", printed):
                self.url = found[1]

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
        if self.process.poll() is None:
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

    def _read_output(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._output.put(line)
        self._output.put("")

    def _read_errors(self) -> None:
        assert self.process.stderr
        self._errors.extend(self.process.stderr)


class ModelServerProcess(ServerProcess):
    """A model server, ready when it listens at ``target``: EMBEDDED, or the path of a ``tensorflow_model_server``."""

    def __init__(self, server: str, flags: Sequence[str], target: str) -> None:
        self.target = target
        self.flags = flags
        if server == EMBEDDED:
            super().__init__("-m", "digitgan", "serve", *flags)
        else:
            super().__init__(*flags, program=server)

    def _read_output(self) -> None:
        """TensorFlow Serving writes its last message, the cause of its end, to stdout."""
        assert self.process.stdout
        self._errors.extend(self.process.stdout)

    def wait_until_ready(self) -> None:
        """Returns when the server listens. Raises AssertionError if it ends before."""
        options = [("grpc.initial_reconnect_backoff_ms", 50), ("grpc.max_reconnect_backoff_ms", 200)]
        with grpc.insecure_channel(self.target, options=options) as channel:
            listening = grpc.channel_ready_future(channel)
            for _ in range(int(START_SECONDS / 0.05)):
                try:
                    return listening.result(0.05)
                except grpc.FutureTimeoutError:
                    assert self.process.poll() is None, f"the model server ended:\n{self.log}"
            listening.cancel()
        raise AssertionError(f"the model server does not listen at {self.target}:\n{self.log}")


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
