"""Addresses of gateways, a client, and a server that gives prepared answers."""

from collections.abc import Iterator

import pytest

from digitgan import Client
from tests.support.gateways import GatewayClient
from tests.support.servers import ScriptedServer, serving


@pytest.fixture(scope="session")
def url(http: GatewayClient) -> str:
    return http.process.url


@pytest.fixture(scope="session")
def client(url: str) -> Iterator[Client]:
    with Client(url) as client:
        yield client


@pytest.fixture(scope="session")
def small_url(small_http: GatewayClient) -> str:
    return small_http.process.url


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving(ScriptedServer()) as server:
        yield server
