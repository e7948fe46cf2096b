"""A gateway with a model server that misbehaves. tests/conftest.py has gateways with real models."""

from collections.abc import Iterator

import pytest

from tests.conftest import faulty_gateway_fixture
from tests.support.misbehaving import MisbehavingServer

faulty = faulty_gateway_fixture("session")


@pytest.fixture(autouse=True)
def _honest_again() -> Iterator[None]:
    """After each test all model servers are honest again."""
    yield
    for server in MisbehavingServer.running:
        server.reset()
