"""The real gateway process on the model server under test with the pretrained models, once a session."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from serving.pretrained import MODELS_DIR
from tests.api import processes
from tests.api.misbehaving import Holding, MisbehavingServer, honest
from tests.support.processes import ServerProcess

FAULT_TIMEOUT_S = 1.0


@pytest.fixture(scope="session")
def model_server(sockets: Path, program: str) -> Iterator[str]:
    """The address of the model server."""
    with processes.model_server(MODELS_DIR, sockets / "model-server.sock", program):
        yield f"unix:{sockets}/model-server.sock"


@pytest.fixture(scope="session")
def gateway(model_server: str) -> Iterator[ServerProcess]:
    with processes.gateway(model_server, models_dir=MODELS_DIR) as process:
        yield process


@pytest.fixture(scope="session")
def http(gateway: ServerProcess) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=processes.url_of(gateway), timeout=60) as client:
        yield client


@pytest.fixture(scope="session")
def faulty_server() -> Iterator[MisbehavingServer]:
    with MisbehavingServer("127.0.0.1:0") as server:
        yield server


@pytest.fixture(scope="session")
def faulty_gateway(faulty_server: MisbehavingServer) -> Iterator[ServerProcess]:
    with processes.gateway(faulty_server.target, request_timeout_s=FAULT_TIMEOUT_S) as process:
        yield process


@pytest.fixture(scope="session")
def faulty_http(faulty_gateway: ServerProcess) -> Iterator[httpx.Client]:
    """A client of a gateway whose model server does what the test says."""
    with httpx.Client(base_url=processes.url_of(faulty_gateway), timeout=60) as client:
        yield client


@pytest.fixture
def holding(server: MisbehavingServer) -> Iterator[Holding]:
    """What keeps the calls of ``server``, which the test's module has to itself."""
    holding = server.behaviour = Holding()
    yield holding
    holding.release()
    server.behaviour = honest
