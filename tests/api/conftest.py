"""Gateways with model servers that misbehave. tests/conftest.py has gateways with real models."""

from collections.abc import Iterator

import pytest

from tests.support.gateways import FaultyClient, faulty_gateway
from tests.support.misbehaving import Holding, MisbehavingServer


@pytest.fixture(scope="session")
def faulty() -> Iterator[FaultyClient]:
    """Gives a client of a gateway whose model server does what the test says."""
    with faulty_gateway() as client:
        yield client


@pytest.fixture(autouse=True)
def _honest_again() -> Iterator[None]:
    """After each test all model servers are honest again."""
    yield
    for server in MisbehavingServer.running:
        server.reset()


@pytest.fixture
def holding(http: FaultyClient) -> Iterator[Holding]:
    """What keeps the calls of the module's gateway."""
    with Holding() as holding:
        http.server.behaviour = holding
        yield holding
