"""Real server processes for tests: started, waited for, and stopped."""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType

START_SECONDS = 180.0
STOP_SECONDS = 20.0

_MODEL_SERVER = """
import sys
from pathlib import Path
from serving.model_config import from_directory
from serving.model_server.server import ServerOptions, serve
options = ServerOptions(from_directory(Path(sys.argv[1])), port=None, grpc_socket_path=Path(sys.argv[2]))
sys.exit(serve(options, lambda server: print("ready", flush=True)))
"""


class ServerProcess:
    """A Python process that prints a line when it is ready: ``line``. Used as a context manager."""

    def __init__(self, *arguments: str, environment: dict[str, str] | None = None) -> None:
        clean = {name: value for name, value in os.environ.items() if not name.startswith("DIGITGAN_")}
        self.process = subprocess.Popen(
            [sys.executable, *arguments],
            env=clean | (environment or {}),
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._errors: list[str] = []
        self._threads = [threading.Thread(target=self._read_output), threading.Thread(target=self._read_errors)]
        self.line = ""

    @property
    def log(self) -> str:
        """What the process has written to stderr so far."""
        return "".join(self._errors)

    def __enter__(self) -> ServerProcess:
        for thread in self._threads:
            thread.start()
        try:
            self.line = self._lines.get(timeout=START_SECONDS)
        except queue.Empty:
            self.line = ""
        if not self.line:
            self.stop()
            raise AssertionError(f"the process did not become ready:\n{self.log}")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop(self, number: int = signal.SIGTERM) -> int:
        """Sends a signal if the process still runs, and returns its exit status."""
        if self.process.poll() is None:
            self.process.send_signal(number)
        try:
            status = self.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            status = self.process.wait()
        for thread in self._threads:
            thread.join()
        for stream in (self.process.stdout, self.process.stderr):
            assert stream
            stream.close()
        return status

    def resident_bytes(self) -> int:
        """How much memory the process occupies now."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE")

    def _read_output(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line.strip())
        self._lines.put("")

    def _read_errors(self) -> None:
        assert self.process.stderr
        self._errors.extend(self.process.stderr)


def model_server(models_dir: Path, socket: Path, *, before: str = "") -> ServerProcess:
    """Returns the embedded model server, serving ``models_dir`` on a Unix socket. ``before``: Python to run first."""
    return ServerProcess("-c", before + _MODEL_SERVER, str(models_dir), str(socket))


def gateway(target: str, program: Sequence[str] = ("-m", "api.main"), /, **settings: object) -> ServerProcess:
    """Returns a gateway on a free port, in front of the model server at ``target``; ``url_of`` tells its URL."""
    named = {f"DIGITGAN_{name.upper()}": str(value) for name, value in settings.items()}
    return ServerProcess(*program, environment={"DIGITGAN_PORT": "0", "DIGITGAN_MODEL_SERVER": target} | named)


def url_of(process: ServerProcess) -> str:
    """Returns the URL that a gateway says it listens on."""
    return process.line.rpartition(" ")[2]
