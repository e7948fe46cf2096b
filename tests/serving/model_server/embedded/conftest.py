"""Servers in the test's own process, which start quickly once TensorFlow is imported."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

import pytest

from serving.model_server.options import ServerOptions
from serving.model_server.server import running
from serving.tf_serving.model_config import ModelConfig
from tests.serving.model_server.client import Client


class Server(NamedTuple):
    """A server in this process: where it listens, and how it is stopped."""

    address: str
    stop: Callable[[], None]


Start = Callable[..., tuple[Server, Client]]

QUICK: dict[str, Any] = {
    "file_system_poll_wait_seconds": 0.05,
    "max_num_load_retries": 0,
    "load_retry_interval_seconds": 0.05,
}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server on models by name and base path, with other options as in ServerOptions, and a client of it."""
    with ExitStack() as stack:

        def start(base_paths: dict[str, Path], **options: Any) -> tuple[Server, Client]:
            models = tuple(ModelConfig(name, path) for name, path in base_paths.items())
            own_stack = stack.enter_context(ExitStack())
            address = own_stack.enter_context(running(ServerOptions(models, **(QUICK | options)), Event()))
            return Server(address, own_stack.close), stack.enter_context(Client(address))

        yield start
