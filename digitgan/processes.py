"""Child processes that end with the block that needs them: a model server, or a whole service."""

import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from digitgan.errors import require
from serving.errors import UserError
from serving.tf_serving import model_config, server_config

TENSORFLOW_MODEL_SERVER: Final = "tensorflow_model_server"
_STOP_SECONDS: Final = 10.0
_LAST_LINES: Final = 20


@contextmanager
def running_model_server(program: str, models: Path) -> Iterator[str]:
    """Runs a ``tensorflow_model_server`` beside the block, and gives its gRPC address: it may not listen there yet.

    The address is a Unix socket in a directory of its own, so that it takes no port and other users cannot reach the
    model server. When the model server ends before the block does, the block is sent SIGTERM.

    Args:
        program: its path.
        models: the base directory.

    Raises:
        UserError: there are no models, or the model server ended by itself.
    """
    ended = threading.Event()

    def stop_this_process() -> None:
        ended.set()
        os.kill(os.getpid(), signal.SIGTERM)

    with tempfile.TemporaryDirectory(prefix="digitgan-") as directory:
        socket = Path(directory) / "model-server.sock"
        flags = model_server_flags(models, Path(directory), socket, os.cpu_count() or 1)
        # It gets a process group of its own, so that Ctrl-C reaches the gateway alone, which finishes its requests
        # first. The session is the gateway's: Linux shares cores out between sessions before it does so within them
        # (autogroups, sched(7)), so that in another one every request that arrives would interrupt the model server.
        with _child_process([program, *flags], _log, stop_this_process, process_group=0):
            try:
                yield f"unix:{socket}"
            finally:
                if ended.is_set():
                    raise UserError(
                        "the model server ended by itself, so the gateway did too; its last messages above give the "
                        "cause"
                    )


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


@contextmanager
def local_service(models: Path | None = None) -> Iterator[str]:
    """Gives the URL of a service that is ready: ``digitgan up`` in a child process.

    It ends with the block. If this process is killed, the standard input of the service ends, and it stops too.

    Args:
        models: the base directory; None for the models in the package.

    Raises:
        UserError: a part isn't installed, or the service ended before it was ready.
    """
    require("gateway")
    command = [sys.executable, "-P", "-m", "digitgan", "up", "--host", "127.0.0.1", "--port", "0", "--until-eof"]
    # Without API keys: only this process knows the address.
    environment = {name: value for name, value in os.environ.items() if name != "DIGITGAN_API_KEYS"}
    last_lines: deque[str] = deque(maxlen=_LAST_LINES)
    url = ""
    ready: Future[str] = Future()

    def read(line: str) -> None:
        nonlocal url
        last_lines.append(line)
        if found := re.search(r"listens on (http://\S+)", line):
            url = found[1]
        if line.startswith("Ready"):
            ready.set_result(url)

    def fail() -> None:
        if not ready.done():
            ready.set_exception(UserError("the service did not start:\n" + "".join(last_lines).rstrip()))

    with _child_process(
        command + (["--models", str(models)] if models else []),
        read,
        fail,
        stop_seconds=3 * _STOP_SECONDS,  # it has a child of its own to end
        env=environment,
        stdin=subprocess.PIPE,
        start_new_session=True,  # Ctrl-C is this process's to handle
    ):
        yield ready.result()


@contextmanager
def _child_process(
    command: Sequence[str],
    on_line: Callable[[str], object],
    on_end: Callable[[], object],
    stop_seconds: float = _STOP_SECONDS,
    **options: Any,
) -> Iterator[None]:
    """Runs a program beside the block, and ends it with the block: by SIGTERM, and if that takes too long by SIGKILL.

    Args:
        command: the program and its arguments.
        on_line: gets each line of the output, standard error included, in a thread.
        on_end: is called in that thread if the program ends before the block.
        stop_seconds: how long the program may take to end after SIGTERM.
        options: for Popen.
    """
    stopping, process = False, None

    def read(running: subprocess.Popen[str]) -> None:
        assert running.stdout
        with running.stdout as output:
            for line in output:
                on_line(line)
        running.wait()
        if not stopping:
            on_end()

    try:
        with _deferred_signals():  # An exception while the child starts would lose track of it.
            process = subprocess.Popen(  # noqa: S603 - no shell, and no argument that others choose
                command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace", **options
            )
            reader = threading.Thread(target=read, args=(process,), daemon=True)
            reader.start()
        yield
    finally:
        stopping = True
        if process:
            process.terminate()
            try:
                process.wait(stop_seconds)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            reader.join(stop_seconds)
            if process.stdin:
                process.stdin.close()


@contextmanager
def _deferred_signals() -> Iterator[None]:
    """Holds SIGINT and SIGTERM back until the block is done."""
    arrived: list[int] = []
    handlers = {
        number: signal.signal(number, lambda number, _frame: arrived.append(number))
        for number in (signal.SIGINT, signal.SIGTERM)
    }
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
        for each in arrived:
            signal.raise_signal(each)


def _log(line: str) -> None:
    with suppress(OSError, ValueError):  # The terminal may be gone; the server must still be able to log.
        sys.stderr.write(line)
        sys.stderr.flush()
