"""``python -m serving.model_server``: the embedded server with the command line of ``tensorflow_model_server``.

Either can stand in for the other with the same flags, of which this one knows those that it can follow.
``digitgan serve`` is the same server with a friendlier command line.
"""

import argparse
import logging
import re
import sys
from pathlib import Path
from typing import Any, Final

from serving import model_config
from serving.model_server.batching import BatchingOptions
from serving.model_server.model import LoadingOptions
from serving.model_server.server import DEFAULT_PORT, ServerOptions, serve


def _true(text: str) -> bool:
    return text.lower() in ("true", "1")


_FLAG: Final[dict[str, Any]] = {"type": _true, "nargs": "?", "const": True}
"""How TensorFlow Serving's flags spell a yes: ``--flag`` or ``--flag=true``."""


def main(arguments: list[str] | None = None) -> int:
    """Runs the server as ``serve`` does; a configuration it can't follow ends it with status 1."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s")
    try:
        options = options_of(arguments)
    except (model_config.ConfigError, OSError) as error:
        logging.getLogger(__name__).error("%s", error)
        return 1
    return serve(options)


def _channel_arguments(text: str) -> tuple[tuple[str, int | str], ...]:
    pairs = (pair.partition("=") for pair in text.split(",") if pair)
    return tuple((name, int(value) if value.isdecimal() else value) for name, _, value in pairs)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m serving.model_server", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("--model_config_file", type=Path, required=True)
    add("--model_config_file_poll_wait_seconds", type=float, default=0.0, help="0: the file is read once")
    add("--port", type=int, default=DEFAULT_PORT, help="0 for none")
    add("--grpc_socket_path", type=Path)
    add("--file_system_poll_wait_seconds", type=float, default=LoadingOptions.file_system_poll_wait_seconds)
    add("--max_num_load_retries", type=int, default=LoadingOptions.max_num_load_retries)
    add("--load_retry_interval_micros", type=int, default=int(LoadingOptions.load_retry_interval_seconds * 1e6))
    add("--enable_batching", **_FLAG, default=False)
    add("--batching_parameters_file", type=Path)
    add("--grpc_max_threads", type=int, default=ServerOptions.grpc_max_threads)
    add("--grpc_channel_arguments", type=_channel_arguments, default=(), help="key=value,key=value")
    add("--tensorflow_intra_op_parallelism", type=int, default=0)
    add("--tensorflow_inter_op_parallelism", type=int, help="ignored: one operation runs after the other")
    add("--require_model_cards", **_FLAG, default=False, help="refuse versions without a model.json (here only)")
    for always_on in (
        "--enable_serialization_as_tensor_content",
        "--enable_grpc_healthcheck_service",
        "--allow_version_labels_for_unavailable_models",
    ):
        add(always_on, **_FLAG, choices=[True], help="always on")
    return parser


def options_of(arguments: list[str] | None = None) -> ServerOptions:
    """Returns what the command line asks for; None: the process's own.

    Raises ConfigError or OSError for files that can't be read, and SystemExit for a flag that isn't known.
    """
    flags = _parser().parse_args(arguments)
    return ServerOptions(
        models=model_config.read(flags.model_config_file),
        host="0.0.0.0",  # noqa: S104 - as tensorflow_model_server
        port=flags.port or None,
        grpc_socket_path=flags.grpc_socket_path,
        model_config_file=flags.model_config_file,
        model_config_file_poll_wait_seconds=flags.model_config_file_poll_wait_seconds,
        loading=LoadingOptions(
            file_system_poll_wait_seconds=flags.file_system_poll_wait_seconds,
            max_num_load_retries=flags.max_num_load_retries,
            load_retry_interval_seconds=flags.load_retry_interval_micros / 1e6,
        ),
        batching=_batching(flags.batching_parameters_file) if flags.enable_batching else None,
        grpc_max_threads=flags.grpc_max_threads,
        grpc_channel_arguments=flags.grpc_channel_arguments,
        intra_op_threads=flags.tensorflow_intra_op_parallelism,
        require_model_cards=flags.require_model_cards,
    )


def _batching(parameters_file: Path | None) -> BatchingOptions:
    """Reads what it knows of a BatchingParameters message in text format: fields like ``name { value: 1 }``."""
    text = parameters_file.read_text(encoding="utf-8") if parameters_file else ""
    known = {name: int(value) for name, value in re.findall(r"(\w+)\s*:?\s*{\s*value\s*:\s*(\d+)\s*}", text)}
    names = BatchingOptions.__dataclass_fields__.keys()
    return BatchingOptions(**{name: value for name, value in known.items() if name in names})


if __name__ == "__main__":
    sys.exit(main())
