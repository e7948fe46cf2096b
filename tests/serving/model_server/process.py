"""Model servers as processes of their own, embedded or not, with the same flags."""

import signal
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from serving.tf_serving.server_config import GRPC_MAX_THREADS
from tests.serving.model_server.client import Client
from tests.support.processes import EMBEDDED, ModelServerProcess

# What the suite expects of any server: quick polls and retries, labels before their versions, health, enough threads.
FLAGS = (
    "--port=0",
    "--file_system_poll_wait_seconds=1",
    "--max_num_load_retries=1",
    "--load_retry_interval_micros=1000",
    "--allow_version_labels_for_unavailable_models",
    "--enable_grpc_healthcheck_service",
    "--enable_serialization_as_tensor_content",
    f"--grpc_max_threads={GRPC_MAX_THREADS}",
)
BATCHING_PARAMETERS = """
max_batch_size { value: 4 }
allowed_batch_sizes: [1, 2, 4]
batch_timeout_micros { value: 0 }
max_enqueued_batches { value: 2 }
num_batch_threads { value: 1 }
"""


def config(base_paths: Mapping[str, Path], extra: Mapping[str, str] | None = None) -> str:
    """Returns a models.config for models by name, each with more fields from ``extra``, if it is there."""
    models = "".join(
        f'config {{ name: "{name}" base_path: "{path}" model_platform: "tensorflow" {(extra or {}).get(name, "")} }}\n'
        for name, path in base_paths.items()
    )
    return f"model_config_list {{\n{models}}}\n"


@contextmanager
def server_process(
    program: str, models_config: str, *flags: str, batching: bool = False
) -> Iterator[ModelServerProcess]:
    """Runs a server in the block, which may use it before it listens. Shows its log when a test fails."""
    # A short path: a socket's may not be longer than about 100 characters.
    with tempfile.TemporaryDirectory(prefix="ms-") as name:
        directory = Path(name)
        config_file = directory / "models.config"
        config_file.write_text(models_config)
        socket = directory / "grpc.sock"
        all_flags = [*FLAGS, f"--model_config_file={config_file}", f"--grpc_socket_path={socket}", *flags]
        if batching:
            parameters = directory / "batching.config"
            parameters.write_text(BATCHING_PARAMETERS)
            all_flags += ["--enable_batching", f"--batching_parameters_file={parameters}"]
        elif program == EMBEDDED:
            all_flags += ["--no-batching"]
        server = ModelServerProcess(program, all_flags, f"unix:{socket}")
        try:
            yield server
        finally:
            server.stop(signal.SIGKILL)
            print(server.log)


@contextmanager
def connected(server: ModelServerProcess) -> Iterator[Client]:
    """Gives a client once the server listens."""
    server.wait_until_ready()
    with Client(server.target) as client:
        yield client
