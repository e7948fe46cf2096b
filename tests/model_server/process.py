"""Model servers as processes of their own, embedded or not, with the same flags."""

import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import grpc

from tests.model_server.client import SECONDS, Client, wait_until
from tests.model_server.option import EMBEDDED

# What the suite expects of any server: quick polls and retries, labels before their versions, health.
FLAGS = (
    "--port=0",
    "--file_system_poll_wait_seconds=1",
    "--max_num_load_retries=1",
    "--load_retry_interval_micros=1000",
    "--allow_version_labels_for_unavailable_models",
    "--enable_grpc_healthcheck_service",
    "--enable_serialization_as_tensor_content",
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


class ServerProcess:
    """A running model server. Its log, of which ``log`` is the text so far, is shown when a test fails."""

    def __init__(self, program: str, models_config: str, directory: Path, batching: bool) -> None:
        self.target = f"unix:{directory}/grpc.sock"
        self._log = directory / "log"
        config_file = directory / "models.config"
        config_file.write_text(models_config)
        flags = [*FLAGS, f"--model_config_file={config_file}", f"--grpc_socket_path={directory}/grpc.sock"]
        if batching:
            parameters = directory / "batching.config"
            parameters.write_text(BATCHING_PARAMETERS)
            flags += ["--enable_batching", f"--batching_parameters_file={parameters}"]
        command = [sys.executable, "-m", "serving.model_server"] if program == EMBEDDED else [program]
        with self._log.open("wb") as log:
            self.process = subprocess.Popen([*command, *flags], stdout=log, stderr=subprocess.STDOUT)

    @property
    def log(self) -> str:
        """What the server has written so far."""
        return self._log.read_text(errors="replace")

    def end(self) -> None:
        """Ends the process, whatever it does, and shows its log."""
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait(SECONDS)
        print(self.log)


@contextmanager
def server_process(program: str, models_config: str, *, batching: bool = False) -> Iterator[ServerProcess]:
    """Runs a server in the block, which may use it before it listens."""
    # A short path: a socket's may not be longer than about 100 characters.
    with tempfile.TemporaryDirectory(prefix="ms-") as directory:
        server = ServerProcess(program, models_config, Path(directory), batching)
        try:
            yield server
        finally:
            server.end()


@contextmanager
def connected(server: ServerProcess) -> Iterator[Client]:
    """Gives a client once the server listens."""
    with Client(server.target) as client:
        listening = grpc.channel_ready_future(client.channel)
        wait_until(
            lambda: listening.done() or server.process.poll() is not None,
            lambda: f"the server doesn't listen:\n{server.log}",
        )
        assert server.process.poll() is None, server.log
        yield client
