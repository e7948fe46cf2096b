"""``digitgan up``, ``digitgan serve``, ``digitgan gateway``, and ``digitgan key`` for a gateway's clients."""

import logging
import re
import shutil
import socket
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer
from typer.core import TyperCommand

from digitgan.commands import GROUP_OPTIONS, command
from digitgan.errors import deferred_signals, require
from digitgan.local_service import OWN_MODEL_SERVER
from serving.errors import UserError
from serving.pretrained import MODELS_DIR

if TYPE_CHECKING:
    from api.settings import Settings

app: Final = typer.Typer(**GROUP_OPTIONS)
_MAX_PORT: Final = 65535

ModelsOption = Annotated[
    Path | None,
    typer.Option(
        "--models", help="Base directory: MODELS/<name>/<version>/saved_model.pb. Default: the package's own models."
    ),
]
HostOption = Annotated[str | None, typer.Option(help="The address to listen on. Default: 127.0.0.1.")]
PortOption = Annotated[
    int | None, typer.Option(help="The port to listen on; 0 takes a free one. Default: 8000.", min=0, max=_MAX_PORT)
]

_TENSORFLOW_SERVING: Final = typer.Option(hidden=True)  # a flag of tensorflow_model_server, which either server takes
_OUR_NAMES: Final = {"model_config_file": "config", "file_system_poll_wait_seconds": "poll-seconds"}


def _our_name(flag: str) -> str:
    return _OUR_NAMES.get(flag, flag.replace("_", "-"))


class _ServeCommand(TyperCommand):
    """Takes ``--flag=true`` for ``--flag``, as TensorFlow Serving does."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        return super().parse_args(ctx, [argument.removesuffix("=true") for argument in args])


@command(app, "serve", "Serve", cls=_ServeCommand, context_settings={"token_normalize_func": _our_name})
def serve(
    models: ModelsOption = None,
    config: Annotated[
        Path | None,
        typer.Option(help="A models.config, as TensorFlow Serving's --model_config_file; instead of --models."),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The gRPC port; 0 takes a free one.", min=0, max=_MAX_PORT)] = 8500,
    grpc_socket_path: Annotated[
        Path | None, typer.Option(help="A Unix socket to listen on, instead of --host and --port.")
    ] = None,
    poll_seconds: Annotated[float, typer.Option(help="Seconds between looks for new versions.", min=0.01)] = 1.0,
    max_batch_size: Annotated[int, typer.Option(help="Maximum rows of a request.", min=1)] = 256,
    batching: Annotated[bool, typer.Option(help="Pad batches to a size that the model was warmed up with.")] = True,
    require_model_cards: Annotated[
        bool,
        typer.Option(
            "--require-model-cards",
            help="Refuse versions without a model card. Those that have one are verified by its SHA-256 in any case.",
        ),
    ] = False,
    model_config_file_poll_wait_seconds: Annotated[float, _TENSORFLOW_SERVING] = 0.0,
    max_num_load_retries: Annotated[int, _TENSORFLOW_SERVING] = 5,
    load_retry_interval_micros: Annotated[int, _TENSORFLOW_SERVING] = 60_000_000,
    batching_parameters_file: Annotated[Path | None, _TENSORFLOW_SERVING] = None,
    grpc_max_threads: Annotated[int | None, _TENSORFLOW_SERVING] = None,
    grpc_channel_arguments: Annotated[str, _TENSORFLOW_SERVING] = "",
    tensorflow_intra_op_parallelism: Annotated[int, _TENSORFLOW_SERVING] = 0,
    _no_effect: Annotated[
        str | None, typer.Option("--max-enqueued-batches", "--tensorflow-inter-op-parallelism", hidden=True)
    ] = None,
    _always_on: Annotated[
        bool,
        typer.Option(
            "--enable-batching",
            "--enable-serialization-as-tensor-content",
            "--enable-grpc-healthcheck-service",
            "--allow-version-labels-for-unavailable-models",
            hidden=True,
        ),
    ] = False,
) -> None:
    """Start the embedded model server, with TensorFlow Serving's gRPC API.

    It loads the newest version of each model, and new versions as they appear. If a new version is broken, the old one
    stays in service. docs/model-server.md lists the differences from TensorFlow Serving. The flags of
    tensorflow_model_server work too.

    Examples:
        digitgan serve --models RUN/models
        digitgan serve --config models.config --port 8501
    """
    require("model-server")
    if models is not None and config is not None:
        raise UserError("--models and --config both say what to serve: give one of them")
    if grpc_socket_path is None:
        _check_address("serve", host, port)
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    from serving.tf_serving import model_config, server_config

    hosted = model_config.read(config) if config else model_config.from_directory(models or MODELS_DIR)
    from serving.model_server.options import ServerOptions
    from serving.model_server.server import serve as serve_models

    if batching_parameters_file:
        found = re.search(r"\bmax_batch_size\s*:?\s*{\s*value\s*:\s*(\d+)", batching_parameters_file.read_text("utf-8"))
        max_batch_size = int(found[1]) if found else max_batch_size
    channel_arguments = (pair.partition("=") for pair in grpc_channel_arguments.split(",") if pair)
    options = ServerOptions(
        hosted,
        address=f"unix:{grpc_socket_path.absolute()}" if grpc_socket_path else f"{host}:{port}",
        model_config_file=config,
        model_config_file_poll_wait_seconds=model_config_file_poll_wait_seconds,
        file_system_poll_wait_seconds=poll_seconds,
        max_num_load_retries=max_num_load_retries,
        load_retry_interval_seconds=load_retry_interval_micros / 1e6,
        require_model_cards=require_model_cards,
        max_batch_size=max_batch_size if batching else None,
        threads=tensorflow_intra_op_parallelism,
        grpc_max_threads=grpc_max_threads or server_config.GRPC_MAX_THREADS,
        grpc_channel_arguments=tuple(
            (name, int(value) if value.isdecimal() else value) for name, _, value in channel_arguments
        ),
    )
    log = logging.getLogger("digitgan")
    sys.exit(serve_models(options, ready=lambda address: log.info("The model server listens on %s (gRPC)", address)))


@command(app, "gateway", "Serve")
def gateway(
    model_server: Annotated[
        str | None,
        typer.Option(
            help="The model server's gRPC address: host:port, dns:///name:port or unix:/path. Default: 127.0.0.1:8500."
        ),
    ] = None,
    host: HostOption = None,
    port: PortOption = None,
) -> None:
    """Start the HTTP gateway alone, in front of a running model server.

    All settings are environment variables (docs/reference.md). An option here takes precedence.

    Examples:
        digitgan gateway --model-server localhost:8500
        DIGITGAN_LOG_FORMAT=json digitgan gateway --port 8001
    """
    require("gateway")
    settings = _settings("gateway", host, port, {"model_server": model_server} if model_server else {})
    with deferred_signals() as arrived:
        from api.main import run

        sys.exit(run(settings, arrived=arrived))


@command(app, "up", "Serve")
def up(models: ModelsOption = None, host: HostOption = None, port: PortOption = None) -> None:
    """Start the whole service: the models, and the gateway in front of them.

    The models run in the gateway's process, or on a tensorflow_model_server where that is on the PATH. Ctrl-C ends all,
    after the requests under way.

    Examples:
        digitgan up                        the models in the package
        digitgan up --models RUN/models    your own, and new versions as they appear
    """
    require("gateway")
    from digitgan.processes import TENSORFLOW_MODEL_SERVER, running_model_server
    from serving.tf_serving import model_config

    base = (models or MODELS_DIR).resolve()
    settings = _settings("up", host, port, {"models_dir": base, **OWN_MODEL_SERVER})
    hosted = model_config.from_directory(base)
    print(f"Loading the models in {base}", flush=True)
    with deferred_signals() as arrived:
        if program := shutil.which(TENSORFLOW_MODEL_SERVER):
            with running_model_server(program, base) as target:
                from api.main import run

                sys.exit(run(settings.model_copy(update={"model_server": target}), arrived=arrived))
        require("model-server")
        from serving.model_server.in_process import running_models

        with running_models(hosted) as transport:
            from api.main import run  # while the models are loaded, on another core

            sys.exit(run(settings, transport, arrived))


@command(app, "key", "Manage")
def key(
    name: Annotated[str, typer.Argument(help="The client's name: letters, digits, '_', '.' and '-'.")] = "me",
    images: Annotated[
        int | None, typer.Option(min=1, help="Images a minute. Default: DIGITGAN_KEY_IMAGES_PER_MINUTE.")
    ] = None,
) -> None:
    """Make an API key, and print it with its entry for DIGITGAN_API_KEYS.

    Give the key to the client: it is stored nowhere. The entry has only its SHA-256 hash. Add the entry to the
    gateway's DIGITGAN_API_KEYS, separated by commas. Without entries, every client has access.

    Examples:
        digitgan key alice
        digitgan key bob --images 600    at most 600 images a minute
    """
    require("gateway")
    from api.middleware.keys import hash_of, keys_of, new_key

    made = new_key()
    entry = f"{name}:{hash_of(made)}" + (f":{images}" if images else "")
    try:
        keys_of(entry)
    except ValueError as error:
        raise UserError(f"{name!r} is no name: letters, digits, '_', '.' and '-', 64 at most") from error
    typer.echo(f"key:   {made}")
    typer.echo(f"entry: {entry}")
    typer.echo("Use it:    curl -H 'Authorization: Bearer <key>' …", err=True)
    typer.echo("Accept it: DIGITGAN_API_KEYS=<entry> digitgan up", err=True)


def _settings(command: str, host: str | None, port: int | None, others: Mapping[str, object]) -> "Settings":
    """Returns the gateway's settings. Raises UserError if one of them, or the address, cannot be used."""
    from api.settings import load_settings

    given = {name: value for name, value in (("host", host), ("port", port)) if value is not None}
    settings = load_settings(**given, **others)
    _check_address(command, settings.host, settings.port)
    return settings


def _check_address(command: str, host: str, port: int) -> None:
    """Raises UserError if no server can listen there. It costs nothing, while models take seconds to load."""
    try:
        with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as listener:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind((host, port))
    except OSError as error:
        raise UserError(
            f"cannot listen on {host}:{port}: {error.strerror}. On a free port of this machine: "
            f"digitgan {command} --host 127.0.0.1 --port 0"
        ) from error
