"""The gateway of tests/api, and one on small models for datasets: 10,000 indexed seeds, and what comes after."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from digitgan import Client
from tests.api.conftest import gateway, http, model_server, small_models
from tests.support import gateways
from tests.support.http_servers import ScriptedServer, scripted_server
from tests.support.processes import ServerProcess

__all__ = ["gateway", "http", "model_server", "small_models"]


@pytest.fixture(scope="session")
def url(gateway: ServerProcess) -> str:
    """The address of a gateway with the pretrained models."""
    return gateway.url


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture(scope="session")
def small_url(small_models: Path, sockets: Path, program: str) -> Iterator[str]:
    """The address of a gateway with the small models, whose digits can be told from their pixels."""
    address = sockets / "small.sock"
    with (
        gateways.model_server(small_models, address, program),
        gateways.gateway(f"unix:{address}") as process,
    ):
        yield process.url


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with scripted_server() as server:
        yield server
