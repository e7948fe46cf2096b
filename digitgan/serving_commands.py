"""``digitgan up``, ``digitgan serve`` and ``digitgan gateway``."""

import logging
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final

import typer

from digitgan.errors import UserError, require, told
from serving.pretrained import MODELS_DIR

if TYPE_CHECKING:
    from serving.model_server.server import ModelServer

ModelsOption = Annotated[
    Path | None,
    typer.Option(
        "--models",
        help="Base directory: MODELS/<name>/<version>/saved_model.pb. Default: the package's own models.",
    ),
]


def serve(
    models: ModelsOption = None,
    config: Annotated[
        Path | None,
        typer.Option(
            "--config",
            help="A models.config, as TensorFlow Serving's --model_config_file; instead of --models.",
        ),
    ] = None,
    host: Annotated[str, typer.Option(help="The address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="The gRPC port; 0 takes a free one.", min=0, max=65535)] = 8500,
    grpc_socket_path: Annotated[
        Path | None, typer.Option(help="A Unix socket to listen on, instead of --host and --port.")
    ] = None,
    poll_seconds: Annotated[float, typer.Option(help="How often to look for new versions.", min=0.01)] = 1.0,
    max_batch_size: Annotated[int, typer.Option(help="The most rows that run as one batch.", min=1)] = 256,
    max_enqueued_batches: Annotated[
        int, typer.Option(help="How many batches may wait; requests beyond are refused with UNAVAILABLE.", min=1)
    ] = 64,
    batching: Annotated[bool, typer.Option(help="Whether requests that arrive together run as one batch.")] = True,
    require_model_cards: Annotated[
        bool,
        typer.Option(
            "--require-model-cards",
            help="Refuse versions without a model card. Those that have one are verified by its SHA-256 in any case.",
        ),
    ] = False,
) -> None:
    """Host the models: the embedded model server, with TensorFlow Serving's gRPC API.

    It loads the newest version of each model below the base directory, follows new ones while it runs, and goes on
    with the old one where a new one is broken. docs/model-server.md tells what it does like TensorFlow Serving, and
    what otherwise.
    """
    from digitgan.supervisor import require_model_server

    require_model_server()
    if models is not None and config is not None:
        raise UserError("--models and --config both say what to serve: give one of them")
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    from serving import model_config
    from serving.model_server.batching import BatchingOptions
    from serving.model_server.model import LoadingOptions
    from serving.model_server.server import ServerOptions
    from serving.model_server.server import serve as serve_models

    with told(model_config.ConfigError):
        hosted = model_config.read(config) if config else model_config.from_directory(models or MODELS_DIR)
    batching_options = BatchingOptions(max_batch_size=max_batch_size, max_enqueued_batches=max_enqueued_batches)
    options = ServerOptions(
        hosted,
        host=host,
        port=None if grpc_socket_path else port,
        grpc_socket_path=grpc_socket_path,
        loading=LoadingOptions(file_system_poll_wait_seconds=poll_seconds),
        batching=batching_options if batching else None,
        require_model_cards=require_model_cards,
    )
    sys.exit(serve_models(options, ready=_announce))


def _announce(server: "ModelServer") -> None:
    address = server.options.grpc_socket_path or f"{server.options.host}:{server.port}"
    logging.getLogger("digitgan").info("The model server listens on %s (gRPC)", address)


HostOption = Annotated[str | None, typer.Option(help="The address to listen on. Default: 127.0.0.1.")]
PortOption = Annotated[int | None, typer.Option(help="The port to listen on; 0 takes a free one. Default: 8000.")]

_NO_TLS: Final = dict.fromkeys(("model_server_tls_ca", "model_server_tls_cert", "model_server_tls_key"))
"""For the private socket of ``digitgan up``, whatever the settings say for a model server elsewhere."""


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
    """Speak HTTP: the gateway alone, in front of a model server that runs already.

    Every setting is an environment variable too (docs/settings.md); an option here goes before it.
    """
    require("gateway", "fastapi", "uvicorn")
    from api.main import run
    from api.settings import SettingsError, load_settings

    given = {"model_server": model_server, "host": host, "port": port}
    with told(SettingsError):
        settings = load_settings(**{name: value for name, value in given.items() if value is not None})
    sys.exit(run(settings))


def up(
    models: ModelsOption = None,
    host: HostOption = None,
    port: PortOption = None,
) -> None:
    """Start everything: a model server on the models, and the gateway in front of it.

    The model server is tensorflow_model_server where it is on the PATH, and the embedded one otherwise. Ctrl-C ends
    both, after the requests under way.

    [bold]digitgan up[/]                            the pretrained model in the package
    [bold]digitgan up --models RUN/models[/]        what digitgan train made; new versions are picked up as they appear
    """
    require("gateway", "fastapi", "uvicorn")
    from digitgan.supervisor import ModelServerEndedError, running_model_server
    from serving.model_config import ConfigError

    base = (models or MODELS_DIR).resolve()
    given = {"host": host, "port": port}
    with told(ConfigError, ModelServerEndedError), running_model_server(base) as target:
        # The gateway's code is loaded while the model server loads its own, on another core.
        from api.main import run
        from api.settings import SettingsError, load_settings

        chosen = {name: value for name, value in given.items() if value is not None}
        with told(SettingsError):
            settings = load_settings(models_dir=base, model_server=target, **_NO_TLS, **chosen)
        sys.exit(run(settings))
