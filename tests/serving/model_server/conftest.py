"""Servers that several tests share: starting one takes seconds."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.serving.model_server.client import Client, config, connected, server_process
from tests.support import saved_models


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


def serve(models: dict[str, Path], *, batching: bool) -> Iterator[Client]:
    """Gives a client once both versions of ``half`` are there: a server listens as soon as each model has one."""
    labels = 'version_labels { key: "stable" value: 1 } version_labels { key: "canary" value: 2 }'
    models_config = config(models, {"half": f"model_version_policy {{ all {{}} }} {labels}"})
    with server_process(models_config, batching=batching) as server, connected(server) as client:
        client.wait_for_states("half", {1: "AVAILABLE", 2: "AVAILABLE"})
        yield client


@pytest.fixture(scope="session")
def client(models: dict[str, Path]) -> Iterator[Client]:
    """A client of a server without batching."""
    yield from serve(models, batching=False)


@pytest.fixture(scope="session")
def batching_client(models: dict[str, Path]) -> Iterator[Client]:
    """A client of a server with batching: 4 rows at most."""
    yield from serve(models, batching=True)
