"""Addresses of gateways, and a client."""

from collections.abc import Iterator

import pytest

from digitgan import Client
from tests.support.gateways import GatewayClient


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
