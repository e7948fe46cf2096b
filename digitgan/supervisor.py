"""The model server of ``digitgan up``: a child process, which ends with the gateway, and the gateway with it."""

import os
import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

from digitgan.child_process import child_process
from digitgan.errors import require
from serving.errors import UserError
from serving.tf_serving import model_config, server_config

TENSORFLOW_MODEL_SERVER: Final = "tensorflow_model_server"
_LOAD_FAILURES: Final = (
    # TensorFlow Serving's words, then the embedded server's.
    re.compile(r"{name: (?P<model>\S+) version: (?P<version>\d+)} due to error: (?P<cause>.*?)}, }"),
    re.compile(r"model (?P<model>\S+) version (?P<version>\d+) can't be loaded: (?P<cause>.*)\. Remove that version"),
)


@contextmanager
def running_model_server(models: Path) -> Iterator[str]:
    """Runs a model server beside the block, and gives its gRPC address at once: it may not listen there yet.

    The address is a Unix socket in a directory of its own, so that it takes no port and other users cannot reach the
    model server. When the model server ends before the block does, the block is sent SIGTERM.

    Args:
        models: the base directory.

    Raises:
        UserError: there are no models, or the model server ended by itself. The message gives the cause, if known.
    """
    names = [model.name for model in model_config.from_directory(models)]
    binary = shutil.which(TENSORFLOW_MODEL_SERVER)
    if binary is None:
        require("model-server")
    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        socket = Path(directory) / "model-server.sock"
        program = [binary] if binary else [sys.executable, "-P", "-m", "digitgan", "serve"]
        # OpenVINO puts all CPUs to one batch.
        flags = model_server_flags(models, Path(directory), socket, (os.cpu_count() or 1) if binary else 1)
        print(f"Loading {' and '.join(names)} from {models}", flush=True)
        # It gets a process group of its own, so that Ctrl-C reaches the gateway alone, which finishes its requests
        # first. The session is the gateway's: Linux shares cores out between sessions before it does so within them
        # (autogroups, sched(7)), so that in another one every request that arrives would interrupt the model server.
        with child_process([*program, *flags], _log, _stop_this_process, process_group=0) as child:
            try:
                yield f"unix:{socket}"
            finally:
                if child.ended:
                    raise UserError(_cause("".join(child.last_lines)))


def model_server_flags(models: Path, directory: Path, socket: Path, batches: int) -> list[str]:
    """Writes configuration files for the models into ``directory``, and returns a model server's flags for them.

    TensorFlow Serving and the embedded server take the same flags.

    Args:
        models: the base directory.
        directory: where the files go.
        socket: the Unix socket to listen on.
        batches: how many batches run at once.

    Raises:
        UserError: there are no models.
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


def _log(line: str) -> None:
    with suppress(OSError, ValueError):  # The terminal may be gone; the server must still be able to log.
        sys.stderr.write(line)
        sys.stderr.flush()


def _stop_this_process() -> None:
    os.kill(os.getpid(), signal.SIGTERM)


def _cause(log: str) -> str:
    """Returns why a model server ended, and what to do, in a sentence or two."""
    for pattern in _LOAD_FAILURES:
        if found := pattern.search(log):
            return (
                f"{found['model']} version {found['version']} cannot be loaded: {found['cause'].strip()}. "
                "Remove that version, or publish it again under a new number; then start again"
            )
    return "the model server ended by itself, so the gateway did too; its last messages above give the cause"
