"""Servers in the test's own process, which start quickly once TensorFlow is imported."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from threading import Event
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.model_server.options import ServerOptions
from serving.model_server.saved_model import Arrays, SavedModel
from serving.model_server.server import running
from serving.tf_serving.model_config import ModelConfig
from tests.serving.model_server.client import SECONDS, Client, predict_request
from tests.support.waiting import wait_until

Start = Callable[..., tuple[Callable[[], None], Client]]
X = {"x": np.ones(1, np.float32)}

QUICK: dict[str, Any] = {
    "file_system_poll_wait_seconds": 0.05,
    "max_num_load_retries": 0,
    "load_retry_interval_seconds": 0.05,
}


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server on models by name and base path, with other options as in ServerOptions.

    Returns a function that stops it, and a client of it.
    """
    with ExitStack() as stack:

        def start(base_paths: dict[str, Path], **options: Any) -> tuple[Callable[[], None], Client]:
            models = tuple(ModelConfig(name, path) for name, path in base_paths.items())
            own_stack = stack.enter_context(ExitStack())
            address = own_stack.enter_context(running(ServerOptions(models, **(QUICK | options)), Event()))
            return own_stack.close, stack.enter_context(Client(address))

        yield start


class Gate:
    """Holds every run of the models loaded after it until ``opened``: no test depends on how fast the machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        self.opened = Event()
        run = SavedModel.run

        def held(model: SavedModel, signature_name: str, *batches: Arrays) -> list[dict[str, NDArray[Any]]]:
            self.runs += 1
            assert self.opened.wait(SECONDS)
            return run(model, signature_name, *batches)

        monkeypatch.setattr(SavedModel, "run", held)

    def request(self, client: Client, model: str) -> Any:
        """Sends a request to a half-plus model, and returns its future once the request runs."""
        before = self.runs
        future = client.prediction.Predict.future(predict_request(model, X), timeout=SECONDS)
        wait_until(lambda: self.runs > before, lambda: f"the request never ran: {future.exception(0)}")
        return future


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)
