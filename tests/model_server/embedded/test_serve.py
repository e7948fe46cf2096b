"""``digitgan serve``: its options reach the server."""

from pathlib import Path

import grpc
import numpy as np

from tests.model_server.client import SECONDS, Client, code, predict_request, wait_until
from tests.model_server.process import config
from tests.support.processes import ServerProcess


def test_the_queue_holds_as_many_batches_as_it_is_told(models: dict[str, Path], sockets: Path, tmp_path: Path) -> None:
    """2 batches of 4 rows wait, and another one runs."""
    (tmp_path / "models.config").write_text(config({"witness": models["witness"]}))
    socket = sockets / "serve.sock"
    options = ["--config", str(tmp_path / "models.config"), "--grpc-socket-path", str(socket)]
    server = ServerProcess("-m", "digitgan", "serve", *options, "--max-batch-size", "4", "--max-enqueued-batches", "2")
    try:
        wait_until(lambda: "listens on" in server.log, lambda: server.log)
        with Client(f"unix:{socket}") as client:
            request = predict_request("witness", {"seconds": np.full(4, 0.1, np.float32)})
            futures = [client.prediction.Predict.future(request, timeout=SECONDS) for _ in range(12)]
            errors = [error for future in futures if (error := future.exception(SECONDS))]
    finally:
        server.stop()
    assert 1 <= len(errors) <= 9
    assert {code(error) for error in errors} == {grpc.StatusCode.UNAVAILABLE}
