"""The model server of ``digitgan up``: a child process, which ends with the gateway, and the gateway with it."""

import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from digitgan.errors import require
from serving.tf_serving import model_config, server_config

TENSORFLOW_MODEL_SERVER: Final = "tensorflow_model_server"
STOP_SECONDS: Final = 10.0
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)
_LAST_LINES: Final = 20
_LOAD_FAILURES: Final = (
    # TensorFlow Serving's words, then the embedded server's.
    re.compile(r"{name: (?P<model>\S+) version: (?P<version>\d+)} due to error: (?P<cause>.*?)}, }"),
    re.compile(r"model (?P<model>\S+) version (?P<version>\d+) can't be loaded: (?P<cause>.*)\. Remove that version"),
)


class ModelServerEndedError(RuntimeError):
    """The model server ended by itself. The message gives the cause, where it is known, and the next step."""


def require_model_server() -> None:
    """Raises UserError where the embedded model server isn't installed."""
    require("model-server", "openvino", "grpc_health")


@contextmanager
def running_model_server(models: Path) -> Iterator[str]:
    """Runs a model server beside the block, and gives its gRPC address at once: it may not listen there yet.

    The address is a Unix socket in a directory of its own, so that it takes no port and other users cannot reach the
    model server. When the model server ends before the block does, the block is sent SIGTERM.

    Args:
        models: the base directory.

    Raises:
        ModelServerEndedError: the model server ended by itself.
        serving.tf_serving.model_config.ConfigError: there are no models.
    """
    names = [model.name for model in model_config.from_directory(models)]
    binary = shutil.which(TENSORFLOW_MODEL_SERVER)
    if binary is None:
        require_model_server()
    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        socket = Path(directory) / "model-server.sock"
        program = [binary] if binary else [sys.executable, "-P", "-m", "digitgan", "serve"]
        # OpenVINO puts all CPUs to one batch.
        flags = model_server_flags(models, Path(directory), socket, (os.cpu_count() or 1) if binary else 1)
        print(f"Loading {' and '.join(names)} from {models}", flush=True)
        with _child([*program, *flags]) as child:
            try:
                yield f"unix:{socket}"
            finally:
                if child.ended.is_set():
                    raise ModelServerEndedError(child.cause())


def model_server_flags(models: Path, directory: Path, socket: Path, batches: int) -> list[str]:
    """Writes configuration files for the models into ``directory``, and returns a model server's flags for them.

    TensorFlow Serving and the embedded server take the same flags.

    Args:
        models: the base directory.
        directory: where the files go.
        socket: the Unix socket to listen on.
        batches: how many batches run at once.

    Raises:
        serving.tf_serving.model_config.ConfigError: there are no models.
    """
    names = [model.name for model in model_config.from_directory(models)]
    server_config.write_configs(directory, names, models, batches)
    return [
        "--port=0",
        f"--grpc_socket_path={socket}",
        f"--grpc_max_threads={server_config.GRPC_MAX_THREADS}",
        f"--model_config_file={directory / server_config.MODELS_CONFIG}",
        "--enable_batching",
        f"--batching_parameters_file={directory / server_config.BATCHING_CONFIG}",
        "--enable_serialization_as_tensor_content",
        "--enable_grpc_healthcheck_service",
        "--file_system_poll_wait_seconds=1",
        # By default a broken version is tried for five minutes before the server reports it.
        "--max_num_load_retries=1",
        "--load_retry_interval_micros=1000000",
    ]


class _Child:
    """The model server's process. Its log goes to stderr, and its last lines are kept."""

    def __init__(self, command: list[str]) -> None:
        self.ended = threading.Event()
        """Set when the process has ended by itself."""
        self.process = subprocess.Popen(  # noqa: S603 - built above, no shell
            command,
            process_group=0,
            # TensorFlow Serving writes its last message, the cause, to stdout.
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
        )
        self._last: deque[str] = deque(maxlen=_LAST_LINES)
        self._log = threading.Thread(target=self._pass_log, daemon=True)
        self._log.start()

    def _pass_log(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._last.append(line)
            with suppress(OSError, ValueError):  # The terminal may be gone; the server must still be able to log.
                sys.stderr.write(line)
                sys.stderr.flush()

    def cause(self) -> str:
        """Returns why the process ended, and what to do, in a sentence or two."""
        self._log.join(STOP_SECONDS)
        said = "".join(self._last)
        for pattern in _LOAD_FAILURES:
            if found := pattern.search(said):
                return (
                    f"{found['model']} version {found['version']} cannot be loaded: {found['cause'].strip()}. "
                    "Remove that version, or publish it again under a new number; then start again"
                )
        return "the model server ended by itself, so the gateway did too; its last messages above give the cause"


def _exit(number: int, _frame: object) -> None:
    """Ends as an exception does, so that no model server is left behind."""
    sys.exit(128 + number)


@contextmanager
def _child(command: list[str]) -> Iterator[_Child]:
    """Runs the model server beside the block; when it ends before the block does, the block is sent SIGTERM.

    It gets a process group of its own, so that Ctrl-C reaches the gateway alone, which finishes its requests first. The
    session is the gateway's: Linux shares cores out between sessions before it does so within them (autogroups,
    sched(7)), so that in another one the model server would be broken into by every request that arrives.
    """
    leaving = threading.Event()
    early: list[int] = []
    for number in _STOP_SIGNALS:  # An exception while the child starts would lose track of it.
        signal.signal(number, lambda number, _frame: early.append(number))
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
        signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))
    child = _Child(command)

    def watch() -> None:
        child.process.wait()
        if not leaving.is_set():
            child.ended.set()
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        for number in _STOP_SIGNALS:  # Until the gateway listens, and takes over.
            signal.signal(number, _exit)
        if early:
            _exit(early[0], None)
        threading.Thread(target=watch, daemon=True).start()
        yield child
    finally:
        leaving.set()
        child.process.terminate()
        try:
            child.process.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.process.kill()
            child.process.wait()
