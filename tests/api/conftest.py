"""Gateways with model servers that misbehave. tests/support/servers.py has gateways with real models."""

from collections.abc import Iterator

import pytest

from tests.support import gateways
from tests.support.gateways import GatewayClient
from tests.support.misbehaving import Holding, MisbehavingServer


@pytest.fixture(scope="session")
def faulty_server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="session")
def faulty_http(faulty_server: MisbehavingServer) -> Iterator[GatewayClient]:
    """A client of a gateway whose model server does what the test says."""
    with gateways.serving(faulty_server.target) as client:
        yield client


@pytest.fixture(scope="module")
def server() -> Iterator[MisbehavingServer]:
    """A model server that does what the test says, for the module alone."""
    with MisbehavingServer("127.0.0.1:0") as server:
        yield server


@pytest.fixture(autouse=True)
def _honest_again(request: pytest.FixtureRequest) -> Iterator[None]:
    """After each test its model server is honest again."""
    yield
    for name in {"server", "faulty_server"} & set(request.fixturenames):
        request.getfixturevalue(name).reset()


@pytest.fixture
def holding(server: MisbehavingServer) -> Iterator[Holding]:
    """What keeps the calls of ``server``."""
    holding = server.behaviour = Holding()
    yield holding
    holding.release()
