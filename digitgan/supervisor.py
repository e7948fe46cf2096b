"""The model server of ``digitgan up``: a child process, which ends with the gateway, and the gateway with it."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from digitgan.errors import require
from serving import model_config, server_config

TENSORFLOW_MODEL_SERVER: Final = "tensorflow_model_server"
STOP_SECONDS: Final = 10.0
_STOP_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class ModelServerEndedError(RuntimeError):
    """The model server ended by itself. The message tells what to look at."""


def require_model_server() -> None:
    """Raises UserError where the embedded model server isn't installed."""
    require("model-server", "openvino", "google_crc32c", "grpc_health")


@contextmanager
def running_model_server(models: Path) -> Iterator[str]:
    """Runs a model server beside the block, and gives its gRPC address at once: it may not listen there yet.

    The address is a Unix socket in a directory of its own, so that no port can be taken and nobody else can reach the
    model server. When the model server ends before the block does, the block is sent SIGTERM.

    Args:
        models: the base directory.

    Raises:
        ModelServerEndedError: the model server ended by itself.
        serving.model_config.ConfigError: there are no models.
    """
    names = [model.name for model in model_config.from_directory(models)]
    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        socket = Path(directory) / "model-server.sock"
        command = _command(models, names, Path(directory), socket)
        print(f"Loading {' and '.join(names)} from {models}", flush=True)
        with _child(command) as ended:
            try:
                yield f"unix:{socket}"
            finally:
                if ended.is_set():
                    raise ModelServerEndedError(
                        "the model server ended by itself, so the gateway did too; see above for why"
                    )


def _exit(number: int, _frame: object) -> None:
    """Ends as an exception does, so that no model server is left behind."""
    sys.exit(128 + number)


def _command(models: Path, names: list[str], directory: Path, socket: Path) -> list[str]:
    """The model server's command line. Both take the same flags and read the same files."""
    binary = shutil.which(TENSORFLOW_MODEL_SERVER)
    if binary is None:
        require_model_server()
    # OpenVINO puts all CPUs to one batch.
    batches = os.cpu_count() or 1 if binary else 1
    server_config.write_configs(directory, names, models, batches)
    return [
        *([binary] if binary else [sys.executable, "-m", "serving.model_server"]),
        "--port=0",
        f"--grpc_socket_path={socket}",
        f"--model_config_file={directory / server_config.MODELS_CONFIG}",
        "--enable_batching",
        f"--batching_parameters_file={directory / server_config.BATCHING_CONFIG}",
        "--enable_serialization_as_tensor_content",
        "--enable_grpc_healthcheck_service",
        "--file_system_poll_wait_seconds=1",
    ]


@contextmanager
def _child(command: list[str]) -> Iterator[threading.Event]:
    """Runs the model server beside the block; when it ends before the block does, the block is sent SIGTERM.

    It gets a process group of its own, so that Ctrl-C reaches the gateway alone, which finishes its requests first. The
    session is the gateway's: Linux shares cores out between sessions before it does so within them (autogroups,
    sched(7)), so that in another one the model server would be broken into by every request that arrives.
    """
    ended, leaving = threading.Event(), threading.Event()
    early: list[int] = []
    for number in _STOP_SIGNALS:  # An exception while the child starts would lose track of it.
        signal.signal(number, lambda number, _frame: early.append(number))
    if signal.getsignal(signal.SIGHUP) is signal.SIG_DFL:  # nohup has it ignored
        signal.signal(signal.SIGHUP, lambda _number, _frame: os.kill(os.getpid(), signal.SIGTERM))
    child = subprocess.Popen(command, process_group=0)  # noqa: S603 - built above, no shell

    def watch() -> None:
        child.wait()
        if not leaving.is_set():
            ended.set()
            os.kill(os.getpid(), signal.SIGTERM)

    try:
        for number in _STOP_SIGNALS:  # Until the gateway listens, and takes over.
            signal.signal(number, _exit)
        if early:
            _exit(early[0], None)
        threading.Thread(target=watch, daemon=True).start()
        yield ended
    finally:
        leaving.set()
        child.terminate()
        try:
            child.wait(STOP_SECONDS)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()
