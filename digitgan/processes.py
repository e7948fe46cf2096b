"""A ``tensorflow_model_server`` as a child process that ends with the block that needs it."""

import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from serving.errors import UserError
from serving.tf_serving import model_config, server_config

TENSORFLOW_MODEL_SERVER: Final = "tensorflow_model_server"
_STOP_SECONDS: Final = 10.0


@contextmanager
def running_model_server(program: str, models: Path) -> Iterator[str]:
    """Runs ``program`` on the base directory ``models`` beside the block, and gives its gRPC address.

    The model server may not listen there yet. The address is a Unix socket in a directory of its own, which other users
    cannot reach. If the model server ends before the block does, this process gets SIGTERM. Signals must not raise an
    exception meanwhile (deferred_signals). Raises UserError if there are no models, or if the model server ended by
    itself.
    """
    stopping = False

    def stop_with(process: subprocess.Popen[bytes]) -> None:
        process.wait()
        if not stopping:
            os.kill(os.getpid(), signal.SIGTERM)

    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        socket = Path(directory) / "model-server.sock"
        flags = model_server_flags(models, Path(directory), socket, os.cpu_count() or 1)
        # In a process group of its own, Ctrl-C does not reach it, and the gateway finishes its requests first.
        # The session is the gateway's: Linux shares cores out between sessions first (autogroups, sched(7)), so
        # in another one every request that arrives would interrupt the model server.
        process = subprocess.Popen([program, *flags], stdout=sys.stderr, process_group=0)  # noqa: S603
        threading.Thread(target=stop_with, args=(process,), daemon=True).start()
        try:
            yield f"unix:{socket}"
        finally:
            stopping = True
            if process.poll() is not None:
                raise UserError(
                    "the model server ended by itself, so the gateway did too; its last messages above give the cause"
                )
            process.terminate()
            try:
                process.wait(_STOP_SECONDS)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def model_server_flags(models: Path, directory: Path, socket: Path, batches: int) -> list[str]:
    """Writes configuration files for the models into ``directory``, and returns a model server's flags for them.

    TensorFlow Serving and the embedded server take the same flags. ``batches`` is the number of batches that run at
    once. Raises UserError if there are no models.
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
