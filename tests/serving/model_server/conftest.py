"""Servers that several tests share: starting one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.model_server import saved_models
from tests.serving.model_server.client import Client
from tests.serving.model_server.process import config, connected, server_process


@pytest.fixture(scope="session")
def half_plus(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Saved models to publish copies of: x / 2 + 2 and x / 2 + 3, by what they add."""
    root = tmp_path_factory.mktemp("templates")
    for constant in (2, 3):
        saved_models.save_half_plus(root / str(constant), float(constant))
    return {constant: root / str(constant) for constant in (2, 3)}


@pytest.fixture(scope="session")
def models(half_plus: dict[int, Path], tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The base paths of models that no test changes: ``half`` (versions 1: + 2, 2: + 3), ``echo`` and ``witness``."""
    root = tmp_path_factory.mktemp("models")
    saved_models.publish(half_plus[2], root / "half", 1)
    saved_models.publish(half_plus[3], root / "half", 2)
    saved_models.save_echo(root / "echo" / "1", *saved_models.DTYPES)
    saved_models.save_witness(root / "witness" / "7")
    return {name: root / name for name in ("half", "echo", "witness")}


@pytest.fixture(scope="session")
def models_config(models: dict[str, Path]) -> str:
    half = (
        "model_version_policy { all {} } "
        'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    )
    return config(models, {"half": half})


@pytest.fixture(scope="session")
def client(program: str, models_config: str) -> Iterator[Client]:
    """A client of a server without batching."""
    with server_process(program, models_config) as server, connected(server) as client:
        yield ready(client)


@pytest.fixture(scope="session")
def batching_client(program: str, models_config: str) -> Iterator[Client]:
    """A client of a server with batching: 4 rows at most."""
    with server_process(program, models_config, batching=True) as server, connected(server) as client:
        yield ready(client)


def ready(client: Client) -> Client:
    """Waits for both versions of ``half``: a server listens as soon as each model has one."""
    client.wait_for_states("half", {1: "AVAILABLE", 2: "AVAILABLE"})
    return client
