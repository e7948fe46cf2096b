"""Servers in the test's own process, which start quickly once TensorFlow is imported."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest

from serving.model_server.options import ServerOptions
from serving.model_server.server import ModelServer
from serving.tf_serving.model_config import ModelConfig
from tests.serving.model_server.client import Client

Start = Callable[..., tuple[ModelServer, Client]]

QUICK: dict[str, Any] = {
    "file_system_poll_wait_seconds": 0.05,
    "max_num_load_retries": 0,
    "load_retry_interval_seconds": 0.05,
}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server on models by name and base path, with other options as in ServerOptions, and a client of it."""
    with ExitStack() as stack:

        def start(base_paths: dict[str, Path], **options: Any) -> tuple[ModelServer, Client]:
            models = tuple(ModelConfig(name, path) for name, path in base_paths.items())
            server = stack.enter_context(ModelServer(ServerOptions(models, **(QUICK | options))))
            assert server.address
            return server, stack.enter_context(Client(server.address))

        yield start
