"""A pytest plugin: real gateway processes, on the models of the package and on small models, for a whole test run.

The model server is the ``tensorflow_model_server`` on the PATH if there is one, else the embedded server.
"""

import fcntl
import os
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from digitgan.processes import TENSORFLOW_MODEL_SERVER
from serving.pretrained import MODELS_DIR
from tests.support import gateways
from tests.support.gateways import FaultyClient, GatewayClient, faulty_gateway
from tests.support.processes import EMBEDDED


def pytest_report_header() -> str:
    return f"model server: {model_server_program()}"


def model_server_program() -> str:
    return shutil.which(TENSORFLOW_MODEL_SERVER) or EMBEDDED


@pytest.fixture(scope="session")
def program() -> str:
    """The model server under test: EMBEDDED, or a program's path."""
    return model_server_program()


@pytest.fixture(scope="session")
def model_server(sockets: Path, program: str) -> Iterator[str]:
    """The address of the model server under test, with the models of the package."""
    with gateways.model_server(MODELS_DIR, sockets / "model-server.sock", program):
        yield f"unix:{sockets}/model-server.sock"


@pytest.fixture(scope="session")
def http(model_server: str) -> Iterator[GatewayClient]:
    with gateways.serving(model_server, models_dir=MODELS_DIR) as client:
        yield client


def faulty_gateway_fixture(**settings: object) -> Any:
    """Returns a fixture for a module: a client of a gateway whose model server does what a test says."""

    @pytest.fixture(scope="module")
    def client() -> Iterator[FaultyClient]:
        with faulty_gateway(**settings) as client:
            yield client

    return client


def built_once(temporary: pytest.TempPathFactory, name: str, build: Callable[[Path], object]) -> Path:
    """Returns a directory that ``build`` fills in one of the processes of a test run; the others wait for it."""
    root = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:  # its parent belongs to the run
        root = root.parent
    path, partial = root / name, root / f"{name}.partial"
    with (root / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            build(partial)
            partial.rename(path)
    return path


@pytest.fixture(scope="session")
def small_models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A base directory with the small models of tests/support/indexed_models.py."""
    from tests.support import indexed_models

    return built_once(tmp_path_factory, "small-models", indexed_models.save_all)


@pytest.fixture(scope="session")
def small_server(small_models: Path, sockets: Path, program: str) -> Iterator[str]:
    """The address of a model server with the small models."""
    with gateways.model_server(small_models, sockets / "small.sock", program) as server:
        yield server.target


@pytest.fixture(scope="session")
def small_http(small_server: str) -> Iterator[GatewayClient]:
    """A client of a gateway in front of the small models."""
    with gateways.serving(small_server) as client:
        yield client
