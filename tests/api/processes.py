"""The gateway and its model server, as processes of their own."""

from collections.abc import Sequence
from pathlib import Path

from digitgan.supervisor import model_server_flags
from tests.support.processes import EMBEDDED, ModelServerProcess, ServerProcess


def model_server(models_dir: Path, socket: Path, program: str = EMBEDDED, *, before: str = "") -> ModelServerProcess:
    """Returns a model server on a Unix socket, with the flags of ``digitgan up``.

    Args:
        models_dir: the base directory.
        socket: the path of the socket; configuration files go into a directory beside it.
        program: EMBEDDED, or the path of a ``tensorflow_model_server``.
        before: Python that the embedded server's process runs first.
    """
    directory = socket.with_suffix(".config")
    directory.mkdir(exist_ok=True)
    flags = model_server_flags(models_dir.absolute(), directory, socket, batches=1 if program == EMBEDDED else 2)
    return ModelServerProcess(program, flags, f"unix:{socket}", before=before)


def gateway(target: str, program: Sequence[str] = ("-m", "api.main"), /, **settings: object) -> ServerProcess:
    """Returns a gateway on a free port, in front of the model server at ``target``; ``url_of`` tells its URL."""
    named = {f"DIGITGAN_{name.upper()}": str(value) for name, value in settings.items()}
    return ServerProcess(*program, environment={"DIGITGAN_PORT": "0", "DIGITGAN_MODEL_SERVER": target} | named)


def url_of(process: ServerProcess) -> str:
    """Returns the URL that a gateway says it listens on."""
    return process.url
