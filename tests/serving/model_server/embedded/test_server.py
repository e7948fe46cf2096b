"""running and serve: start, addresses, stop, and where the server goes its own way."""

import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import grpc
import numpy as np
import pytest

from serving.contract import MODEL_CARD
from serving.versions.model_card import write_card
from tests.serving.model_server import saved_models
from tests.serving.model_server.client import SECONDS, output, predict_request, refused
from tests.serving.model_server.embedded.conftest import Gate, Start, X
from tests.serving.model_server.process import config
from tests.serving.model_server.test_predict import tensor
from tests.support.waiting import wait_until

DATA_LOSS, FAILED_PRECONDITION = 15, 9


@pytest.fixture
def base_path(half_plus: dict[int, Path], tmp_path: Path) -> Path:
    """The base path of a model with version 1, x / 2 + 2."""
    return saved_models.publish(half_plus[2], tmp_path / "m", 1).parent


def test_a_failed_version_is_retried_until_it_loads(start: Start, half_plus: dict[int, Path], base_path: Path) -> None:
    _, client = start({"m": base_path}, max_num_load_retries=1000)
    broken = saved_models.publish(half_plus[3], base_path, 2, saved_models.garble_graph)
    wait_until(lambda: any(status.code for status in client.statuses("m")))
    (broken / "saved_model.pb").write_bytes((half_plus[3] / "saved_model.pb").read_bytes())
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})
    assert client.statuses("m")[0].code == 0


def test_a_failed_version_that_is_replaced_is_retried(
    start: Start, half_plus: dict[int, Path], base_path: Path
) -> None:
    _, client = start({"m": base_path})
    broken = saved_models.publish(half_plus[3], base_path, 2, saved_models.garble_graph)
    client.wait_for_states("m", {2: "END", 1: "AVAILABLE"})
    broken.rename(base_path / "broken")
    saved_models.publish(half_plus[3], base_path, 2)
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})


def test_a_model_outlives_its_base_path(start: Start, base_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    _, client = start({"m": base_path})
    base_path.rename(base_path.with_name("elsewhere"))
    wait_until(lambda: "waiting for its base path" in caplog.text, lambda: caplog.text)
    assert client.half_plus("m") == (2.5, 1)


def change_a_byte(version: Path) -> None:
    """Another constant: a model that loads and answers, and isn't the one that was exported."""
    (path,) = (version / "variables").glob("variables.data-*")
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (change_a_byte, "SHA-256"),
        (lambda version: (version / "fingerprint.pb").unlink(), "fingerprint.pb is missing"),
        (lambda version: (version / "variables/more").write_bytes(b""), "variables/more is not in the model card"),
        (lambda version: (version / "more").symlink_to("/nowhere"), "more is not in the model card"),
        (lambda version: (version / MODEL_CARD).write_text("{"), MODEL_CARD),
        (lambda version: (version / MODEL_CARD).write_text('{"files": {"saved_model.pb": "?"}}'), "files should be"),
    ],
    ids=["a changed byte", "a missing file", "an additional file", "a link", "no JSON", "no files"],
)
def test_a_version_unlike_its_model_card_is_refused_and_the_old_one_serves_on(
    start: Start, base_path: Path, break_it: Callable[[Path], object], words: str
) -> None:
    write_card(base_path / "1", {})
    _, client = start({"m": base_path})
    saved_models.publish(base_path / "1", base_path, 2, break_it)
    client.wait_for_states("m", {2: "END", 1: "AVAILABLE"})
    assert client.half_plus("m") == (2.5, 1)
    newest = client.statuses("m")[0]
    assert newest.code == DATA_LOSS
    assert words in newest.message


def test_a_card_is_needed_only_where_required(start: Start, half_plus: dict[int, Path], base_path: Path) -> None:
    write_card(base_path / "1", {})
    _, lenient = start({"m": base_path})
    _, strict = start({"m": base_path}, require_model_cards=True)
    saved_models.publish(half_plus[3], base_path, 2)
    lenient.wait_for_states("m", {2: "AVAILABLE", 1: "END"})
    strict.wait_for_states("m", {2: "END", 1: "AVAILABLE"})
    assert strict.statuses("m")[0].code == FAILED_PRECONDITION
    assert "cards are required" in strict.statuses("m")[0].message


def test_an_unload_waits_for_requests(start: Start, half_plus: dict[int, Path], base_path: Path, gate: Gate) -> None:
    _, client = start({"m": base_path})
    slow = gate.request(client, "m")
    saved_models.publish(half_plus[2], base_path, 2)
    client.wait_for_states("m", {2: "AVAILABLE", 1: "UNLOADING"})
    gate.opened.set()
    assert slow.result(SECONDS).model_spec.version.value == 1
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})


def test_a_reload_says_why_a_new_model_cannot_be_loaded(start: Start, models: dict[str, Path], base_path: Path) -> None:
    saved_models.garble_graph(base_path / "1")
    _, client = start({"half": models["half"]})
    with refused("UNKNOWN", "model m version 1", "DATA_LOSS"):
        client.reload(config({"half": models["half"], "m": base_path}))
    assert client.half_plus("half") == (3.5, 2)


def test_a_signature_that_initialises_the_model_is_not_run(start: Start, base_path: Path) -> None:
    _, client = start({"m": base_path})
    with refused("INTERNAL", "__saved_model_init_op"):
        client.predict("m", {}, signature="__saved_model_init_op")


@pytest.mark.parametrize("shape", [(2**30,), (1,) * 65, (0, 2**40, 2**40)], ids=["4 GiB", "65 dimensions", "0 × 2^80"])
def test_a_shape_that_no_memory_holds_is_refused(start: Start, base_path: Path, shape: tuple[int, ...]) -> None:
    _, client = start({"m": base_path})
    with refused("INVALID_ARGUMENT", "tensor parsing error: x"):
        client.predict("m", {"x": tensor(shape, float_val=[1])})


def test_a_full_server_is_exhausted(start: Start, base_path: Path, gate: Gate) -> None:
    _, client = start({"m": base_path}, grpc_max_threads=2)
    running = gate.request(client, "m")
    futures = [client.prediction.Predict.future(predict_request("m", X)) for _ in range(5)]
    wait_until(lambda: sum(future.done() for future in futures) == 4)
    gate.opened.set()
    failures = [error.code() for future in (running, *futures) if (error := future.exception(SECONDS)) is not None]
    assert failures == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4


def test_rows_run_in_batches_of_sizes_that_are_warmed_up(start: Start, models: dict[str, Path]) -> None:
    """``witness`` answers each row with the number of rows that it ran with."""
    _, client = start({"witness": models["witness"]})
    for rows, sizes in ((0, set()), (1, {1}), (5, {8}), (64, {64}), (200, {64, 8})):
        found = output(client.predict("witness", {"x": np.zeros(rows, np.float32)}), "rows")
        assert len(found) == rows
        assert set(found) == sizes
    with refused("INVALID_ARGUMENT", "257", "256"):
        client.predict("witness", {"x": np.zeros(257, np.float32)})


def test_a_stop_lets_calls_in_progress_finish(start: Start, base_path: Path, gate: Gate) -> None:
    stop, client = start({"m": base_path}, shutdown_grace_seconds=SECONDS)
    slow = gate.request(client, "m")
    stopping = threading.Thread(target=stop)
    stopping.start()

    def refuses() -> bool:
        try:
            client.states("m")
        except grpc.RpcError:
            return True
        return False

    try:
        wait_until(refuses, lambda: "a server that stops goes on accepting calls")
        assert not slow.done()
    finally:
        gate.opened.set()
    assert output(slow.result(SECONDS), "y").tolist() == [2.5]
    stopping.join(SECONDS)
    assert not stopping.is_alive()


SIGNALS = {
    "when the main thread is about to wait, and holds the lock of what it waits for": """
wait = threading.Condition.wait
def interrupted(condition, timeout=None):
    if threading.current_thread() is threading.main_thread():
        threading.Condition.wait = wait
        os.kill(os.getpid(), signal.SIGTERM)
    return wait(condition, timeout)
def ready(address):
    threading.Condition.wait = interrupted
""",
    "in another thread, as the system chooses": """
def ready(address):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
""",
}
PROGRAM = """
import os, signal, sys, threading
from pathlib import Path
from serving.model_server.options import ServerOptions
from serving.model_server.server import serve
from serving.tf_serving.model_config import ModelConfig
SIGNAL
sys.exit(serve(ServerOptions((ModelConfig("m", Path(sys.argv[1])),)), ready))
"""


@pytest.mark.parametrize("moment", SIGNALS)
def test_a_signal_ends_the_server(base_path: Path, moment: str) -> None:
    command = [sys.executable, "-c", PROGRAM.replace("SIGNAL", SIGNALS[moment]), str(base_path)]
    assert subprocess.run(command, timeout=SECONDS).returncode == 0
