"""ModelServer and serve: start, addresses, stop, and where the server goes its own way."""

import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest
from numpy.typing import NDArray

from serving.model_server.model import LoadingOptions
from serving.model_server.saved_model import SavedModel
from serving.model_server.server import ModelServer, ServerOptions, ServerStartError
from serving.model_server.signature import Arrays
from serving.tf_serving.model_config import ModelConfig
from tests.serving.model_server import saved_models
from tests.serving.model_server.client import SECONDS, Client, code, output, predict_request, refused
from tests.serving.model_server.conftest import Templates
from tests.serving.model_server.embedded.conftest import QUICK, Start
from tests.serving.model_server.process import config, connected, server_process
from tests.support.processes import EMBEDDED
from tests.support.waiting import wait_until

X = {"x": np.ones(1, np.float32)}


def refuses(client: Client) -> bool:
    """Whether the server accepts no more calls."""
    try:
        client.states("half")
    except grpc.RpcError:
        return True
    return False


def waits(*seconds: float) -> dict[str, NDArray[np.float32]]:
    return {"seconds": np.array(seconds, np.float32)}


class Gate:
    """Holds every run of the models loaded after it until ``open``: no test depends on how fast the machine is."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.runs = 0
        self._open = threading.Event()
        run = SavedModel.run

        def held(model: SavedModel, signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
            self.runs += 1
            assert self._open.wait(SECONDS)
            return run(model, signature_name, inputs)

        monkeypatch.setattr(SavedModel, "run", held)

    def request(self, client: Client, model: str) -> Any:
        """Sends a request to a half-plus model, and returns its future once the request runs."""
        before = self.runs
        future = client.prediction.Predict.future(predict_request(model, X), timeout=SECONDS)
        wait_until(lambda: self.runs > before, lambda: f"the request never ran: {future.exception(0)}")
        return future

    def open(self) -> None:
        """Lets all runs go on."""
        self._open.set()


def test_a_server_stops_without_leaving_a_thread_or_a_listener(models: dict[str, Path]) -> None:
    before = set(threading.enumerate())
    with ModelServer(ServerOptions((ModelConfig("half", models["half"]),), port=0)) as server:
        assert server.port is not None
        with Client(f"127.0.0.1:{server.port}") as client:
            assert client.half_plus("half") == (3.5, 2)
    wait_until(lambda: set(threading.enumerate()) <= before, lambda: str(threading.enumerate()))
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", server.port)) != 0


def test_a_server_listens_on_a_port_and_a_socket_at_once(start: Start, models: dict[str, Path], tmp_path: Path) -> None:
    path = Path(f"/tmp/ms-{time.monotonic_ns()}.sock")
    _, client = start(models, grpc_socket_path=path)
    assert client.half_plus("half") == (3.5, 2)
    with Client(f"unix:{path}") as other:
        assert other.half_plus("half") == (3.5, 2)


def test_a_port_that_is_taken_is_told(start: Start, models: dict[str, Path]) -> None:
    server, _ = start({"half": models["half"]})
    before = threading.active_count()
    with pytest.raises(ServerStartError, match=f"127.0.0.1:{server.port}"):
        start({"half": models["half"]}, port=server.port)
    assert threading.active_count() <= before


def test_a_model_that_fails_at_the_start_is_told_at_once_whatever_the_retries(
    templates: Templates, tmp_path: Path
) -> None:
    saved_models.garble_graph(saved_models.publish(templates.half_plus_two, tmp_path / "bad", 4))
    options = ServerOptions((ModelConfig("bad", tmp_path / "bad"),), port=0, loading=LoadingOptions())
    with pytest.raises(ServerStartError, match="model bad version 4 can't be loaded: DATA_LOSS"):
        ModelServer(options).start()


def test_a_start_that_waits_for_a_model_ends_when_asked_to(tmp_path: Path) -> None:
    server = ModelServer(ServerOptions((ModelConfig("late", tmp_path / "late"),), port=0, loading=QUICK))
    starting = threading.Thread(target=server.start)
    starting.start()
    server.request_stop()
    starting.join(SECONDS)
    assert not starting.is_alive()
    assert server.port is None
    server.stop()


def test_a_failed_version_is_tried_again_until_it_loads(start: Start, templates: Templates, tmp_path: Path) -> None:
    saved_models.publish(templates.half_plus_two, tmp_path / "m", 1)
    _, client = start({"m": tmp_path / "m"}, loading=LoadingOptions(0.05, 1000, 0.05))
    broken = saved_models.publish(templates.half_plus_three, tmp_path / "m", 2)
    graph = (broken / "saved_model.pb").read_bytes()
    saved_models.garble_graph(broken)
    wait_until(lambda: len(client.states("m")) == 2, lambda: str(client.states("m")))
    (broken / "saved_model.pb").write_bytes(graph)
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})
    assert client.statuses("m")[0].code == 0


def test_a_failed_version_is_tried_again_when_another_directory_takes_its_place(
    start: Start, templates: Templates, tmp_path: Path
) -> None:
    saved_models.publish(templates.half_plus_two, tmp_path / "m", 1)
    _, client = start({"m": tmp_path / "m"})
    broken = tmp_path / "m" / "broken"
    saved_models.garble_graph(saved_models.publish(templates.half_plus_three, tmp_path / "beside", 2))
    (tmp_path / "beside" / "2").rename(tmp_path / "m" / "2")
    client.wait_for_states("m", {2: "END", 1: "AVAILABLE"})
    saved_models.publish(templates.half_plus_three, tmp_path / "beside", 2)
    (tmp_path / "m" / "2").rename(broken)
    (tmp_path / "beside" / "2").rename(tmp_path / "m" / "2")
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})


def test_a_base_path_that_disappears_does_not_unload_the_model(
    start: Start, templates: Templates, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    saved_models.publish(templates.half_plus_two, tmp_path / "m", 1)
    _, client = start({"m": tmp_path / "m"})
    (tmp_path / "m").rename(tmp_path / "elsewhere")
    wait_until(lambda: "waiting for its base path" in caplog.text, lambda: caplog.text)
    assert client.half_plus("m") == (2.5, 1)


def test_an_unloaded_version_finishes_its_requests_first(
    start: Start, templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_models.publish(templates.half_plus_two, tmp_path / "m", 1)
    gate = Gate(monkeypatch)
    _, client = start({"m": tmp_path / "m"})
    slow = gate.request(client, "m")
    saved_models.publish(templates.half_plus_two, tmp_path / "m", 2)
    client.wait_for_states("m", {2: "AVAILABLE", 1: "UNLOADING"})
    gate.open()
    assert slow.result(SECONDS).model_spec.version.value == 1
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})


def test_a_reload_tells_why_a_new_model_cannot_be_loaded(
    start: Start, models: dict[str, Path], templates: Templates, tmp_path: Path
) -> None:
    saved_models.garble_graph(saved_models.publish(templates.half_plus_two, tmp_path / "bad", 4))
    _, client = start({"half": models["half"]})
    with refused(grpc.StatusCode.UNKNOWN, "model bad version 4", "DATA_LOSS"):
        client.reload(config({"half": models["half"], "bad": tmp_path / "bad"}))
    assert client.half_plus("half") == (3.5, 2)


def test_a_signature_that_initialises_the_model_is_not_run(start: Start, models: dict[str, Path]) -> None:
    _, client = start({"half": models["half"]})
    with refused(grpc.StatusCode.INTERNAL, "__saved_model_init_op"):
        client.predict("half", {}, signature="__saved_model_init_op")


def test_a_full_server_is_exhausted(start: Start, models: dict[str, Path]) -> None:
    _, client = start({"witness": models["witness"]}, grpc_max_threads=2)
    futures = [client.prediction.Predict.future(predict_request("witness", waits(0.3))) for _ in range(6)]
    failures = [code(error) for future in futures if (error := future.exception(SECONDS)) is not None]
    assert set(failures) == {grpc.StatusCode.RESOURCE_EXHAUSTED}
    assert len(failures) < 6


# Batching, with a real model


def test_no_rows_are_answered_with_no_rows(start: Start, models: dict[str, Path]) -> None:
    _, client = start({"half": models["half"]})
    answer = client.predict("half", {"x": np.zeros((0, 3), np.float32)})
    assert output(answer, "y").shape == (0, 3)


def test_bad_requests_never_fail_good_ones_that_they_arrive_with(
    start: Start, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    _, client = start({"witness": models["witness"]})
    kinds: list[tuple[str, dict[str, NDArray[Any]], list[Any] | None]] = [
        ("item", {"index": np.array([0, 2], np.int32)}, [10, 30]),
        ("item", {"index": np.array([[0, 1]], np.int32)}, None),
        ("dot", {"x": np.ones((2, 3), np.float32)}, [6, 6]),
        ("dot", {"x": np.ones((2, 4), np.float32)}, None),
    ] * 8
    futures = [
        client.prediction.Predict.future(predict_request("witness", inputs, signature=signature), timeout=SECONDS)
        for signature, inputs, _ in kinds
    ]
    wait_until(lambda: gate.runs > 0, lambda: "no request ran")  # the others queue up behind it
    gate.open()
    for future, (_, _, expected) in zip(futures, kinds, strict=True):
        if expected is None:
            assert code(future.exception(SECONDS)) is grpc.StatusCode.INVALID_ARGUMENT
        else:
            assert output(future.result(SECONDS), "y").tolist() == expected


def test_a_request_whose_time_runs_out_in_the_queue_is_not_run(
    start: Start, templates: Templates, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved_models.publish(templates.half_plus_two, tmp_path / "m", 1)
    gate = Gate(monkeypatch)
    _, client = start({"m": tmp_path / "m"})
    busy = gate.request(client, "m")
    try:
        hopeless = [client.prediction.Predict.future(predict_request("m", X), timeout=0.3) for _ in range(3)]
        assert {code(future.exception(SECONDS)) for future in hopeless} == {grpc.StatusCode.DEADLINE_EXCEEDED}
    finally:
        gate.open()
    busy.result(SECONDS)
    assert client.half_plus("m") == (2.5, 1)
    assert gate.runs == 2


# The process


def test_a_stop_lets_calls_in_progress_finish(
    start: Start, models: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = Gate(monkeypatch)
    server, client = start({"half": models["half"]})
    slow = gate.request(client, "half")
    stopping = threading.Thread(target=server.stop)
    stopping.start()
    try:
        wait_until(lambda: refuses(client), lambda: "a server that stops goes on accepting calls")
        assert not slow.done()
    finally:
        gate.open()
    assert output(slow.result(SECONDS), "y").tolist() == [3.5]
    stopping.join(SECONDS)
    assert not stopping.is_alive()


def test_sigterm_ends_the_process_with_0(models: dict[str, Path]) -> None:
    with server_process(EMBEDDED, config({"half": models["half"]})) as server, connected(server) as client:
        assert client.half_plus("half") == (3.5, 2)
        server.process.send_signal(signal.SIGTERM)
        assert server.process.wait(SECONDS) == 0
        assert "Traceback" not in server.log


SIGNALS = {
    "when the main thread is about to wait, and holds the lock of what it waits for": """
wait = threading.Condition.wait
def interrupted(condition, timeout=None):
    if condition is stopping[0]._cond:
        os.kill(os.getpid(), signal.SIGTERM)
    return wait(condition, timeout)
def ready(server):
    stopping.append(server._stopping)
    threading.Condition.wait = interrupted
stopping = []
""",
    "in another thread, as the system chooses": """
def ready(server):
    threading.Timer(0.5, os.kill, (os.getpid(), signal.SIGTERM)).start()
    signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGTERM])
""",
}


@pytest.mark.parametrize("moment", SIGNALS)
def test_a_signal_ends_the_server(models: dict[str, Path], moment: str) -> None:
    program = (
        "import os, signal, sys, threading\n"
        "from pathlib import Path\n"
        "from serving.tf_serving.model_config import ModelConfig\n"
        "from serving.model_server.server import ServerOptions, serve\n"
        f"{SIGNALS[moment]}"
        "options = ServerOptions((ModelConfig('half', Path(sys.argv[1])),), port=0)\n"
        "sys.exit(serve(options, ready))\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(models["half"])], timeout=SECONDS, check=False)
    assert done.returncode == 0


def test_the_server_imports_no_tensorflow_and_no_telemetry() -> None:
    program = (
        "import sys, serving.model_server.server\n"
        "print({'openvino', 'openvino_telemetry', 'tensorflow'} & sys.modules.keys())\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout == "{'openvino'}\n"
