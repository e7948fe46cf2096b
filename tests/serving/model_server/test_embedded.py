"""The embedded server only: in this process, as ``digitgan serve``, in its client's process; beside TensorFlow."""

import shutil
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path
from threading import Event
from typing import Any

import anyio
import grpc
import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import DISCRIMINATOR, GENERATOR, IMAGES, MODEL_CARD, NOISE, PAGES, SIGNATURE, SIGNATURES
from serving.model_server.in_process import running_models
from serving.model_server.loaded_version import REQUESTS_AT_ONCE
from serving.model_server.options import ServerOptions
from serving.model_server.saved_model import Arrays, SavedModel, load
from serving.model_server.server import running
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.tf_serving.client import DeadlineError, ModelClient, ModelNotServedError, VersionNotFoundError
from serving.tf_serving.model_config import ModelConfig
from serving.versions.model_card import write_card
from tests.serving.model_server.client import SECONDS, Client, config, connected, output, refused
from tests.serving.model_server.test_calls import tensor
from tests.support import saved_models
from tests.support.commands import python
from tests.support.pretrained import pretrained
from tests.support.processes import EMBEDDED, ModelServerProcess, ServerProcess, wait_until

Start = Callable[..., Client]
X = {"x": np.ones(1, np.float32)}
NOISE_ROWS = noise_from_seeds([7, 8])


@pytest.fixture
def start() -> Iterator[Start]:
    """Starts a server on models by name and base path, with other options as in ServerOptions. Returns a client."""
    with ExitStack() as stack:

        def start(base_paths: dict[str, Path], **options: Any) -> Client:
            quick = {"file_system_poll_wait_seconds": 0.05, "load_retry_interval_seconds": 0.05}
            models = tuple(ModelConfig(name, path) for name, path in base_paths.items())
            server = ServerOptions(models, **{**quick, "max_num_load_retries": 0, **options})
            return stack.enter_context(connected(stack.enter_context(running(server, Event()))))

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

    def request(self, client: Client) -> Any:
        """Sends a request to the half-plus model ``m``, and returns its future once the request runs."""
        before = self.runs
        future = client.predicting("m", X)
        wait_until(lambda: self.runs > before, lambda: f"the request never ran: {future.exception(0)}")
        return future


@pytest.fixture
def gate(monkeypatch: pytest.MonkeyPatch) -> Gate:
    return Gate(monkeypatch)


@pytest.fixture
def base_path(half_plus: dict[int, Path], tmp_path: Path) -> Path:
    """The base path of a model with version 1, x / 2 + 2."""
    return saved_models.publish(half_plus[2], tmp_path / "m", 1).parent


def test_a_failed_version_is_retried_until_it_loads(start: Start, half_plus: dict[int, Path], base_path: Path) -> None:
    client = start({"m": base_path}, max_num_load_retries=1000)
    broken = saved_models.publish(half_plus[3], base_path, 2, saved_models.garble_graph)
    wait_until(lambda: any(status.error_message for status in client.statuses("m")))
    (broken / "saved_model.pb").write_bytes((half_plus[3] / "saved_model.pb").read_bytes())
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})
    assert client.statuses("m")[0].error_code == "OK"


def test_a_failed_version_that_is_replaced_is_retried(
    start: Start, half_plus: dict[int, Path], base_path: Path
) -> None:
    client = start({"m": base_path})
    broken = saved_models.publish(half_plus[3], base_path, 2, saved_models.garble_graph)
    client.wait_for_states("m", {2: "END", 1: "AVAILABLE"})
    broken.rename(base_path / "broken")
    saved_models.publish(half_plus[3], base_path, 2)
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})


def test_the_first_calls_of_openvino_block_no_thread() -> None:
    code = (
        "import sys, threading; from serving.model_server.saved_model import openvino; sys.setswitchinterval(1e-6)\n"
        "together = threading.Barrier(8)\n"
        "def call(): together.wait(); openvino.Type.f32.to_dtype()\n"
        "for _ in range(8): threading.Thread(target=call).start()"
    )
    assert python(code).returncode == 0


def test_a_model_outlives_its_base_path(start: Start, base_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    client = start({"m": base_path})
    base_path.rename(base_path.with_name("elsewhere"))
    wait_until(lambda: "waiting for its base path" in caplog.text, lambda: caplog.text)
    assert client.half_plus("m") == (2.5, 1)


def change_a_byte(version: Path) -> None:
    """Another constant: a model that loads and answers, and isn't the one that was exported."""
    content = (version / saved_models.VARIABLES).read_bytes()
    (version / saved_models.VARIABLES).write_bytes(bytes([content[0] ^ 1]) + content[1:])


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
    client = start({"m": base_path})
    saved_models.publish(base_path / "1", base_path, 2, break_it)
    client.wait_for_states("m", {2: "END", 1: "AVAILABLE"})
    assert client.half_plus("m") == (2.5, 1)
    newest = client.statuses("m")[0]
    assert newest.error_code == "DATA_LOSS"
    assert words in newest.error_message


def test_a_card_is_needed_only_where_required(start: Start, half_plus: dict[int, Path], base_path: Path) -> None:
    write_card(base_path / "1", {})
    lenient = start({"m": base_path})
    strict = start({"m": base_path}, require_model_cards=True)
    saved_models.publish(half_plus[3], base_path, 2)
    lenient.wait_for_states("m", {2: "AVAILABLE", 1: "END"})
    strict.wait_for_states("m", {2: "END", 1: "AVAILABLE"})
    newest = strict.statuses("m")[0]
    assert newest.error_code == "FAILED_PRECONDITION"
    assert "cards are required" in newest.error_message


def test_an_unload_waits_for_requests(start: Start, half_plus: dict[int, Path], base_path: Path, gate: Gate) -> None:
    client = start({"m": base_path})
    slow = gate.request(client)
    saved_models.publish(half_plus[2], base_path, 2)
    client.wait_for_states("m", {2: "AVAILABLE", 1: "UNLOADING"})
    gate.opened.set()
    assert slow.result(SECONDS).model_spec.version.value == 1
    client.wait_for_states("m", {2: "AVAILABLE", 1: "END"})


def test_a_reload_says_why_a_new_model_cannot_be_loaded(start: Start, models: dict[str, Path], base_path: Path) -> None:
    saved_models.garble_graph(base_path / "1")
    client = start({"half": models["half"]})
    with refused("UNKNOWN", "model m version 1", "DATA_LOSS"):
        client.reload(config({"half": models["half"], "m": base_path})).result()
    assert client.half_plus("half") == (3.5, 2)


def test_a_reload_whose_client_left_blocks_none(start: Start, base_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    client = start({"m": base_path})
    monkeypatch.setattr("grpc._server._Context.add_callback", lambda *_: False)
    client.reload(config({"m": base_path, "without a version": base_path / "nowhere"})).result()


def test_a_signature_that_initialises_and_huge_shapes_are_refused(start: Start, base_path: Path) -> None:
    client = start({"m": base_path})
    with refused("INTERNAL", "__saved_model_init_op"):
        client.predict("m", {}, signature="__saved_model_init_op")
    for shape in ((5_000_000, 100), (1,) * 65, (0, 2**40, 2**40)):
        with refused("INVALID_ARGUMENT", "tensor parsing error: x"):
            client.predict("m", {"x": tensor(shape, float_val=[1])})


def test_a_full_server_is_exhausted(start: Start, base_path: Path, gate: Gate) -> None:
    client = start({"m": base_path}, grpc_max_threads=2)
    running = gate.request(client)
    futures = [client.predicting("m", X) for _ in range(5)]
    wait_until(lambda: sum(future.done() for future in futures) == 4)
    gate.opened.set()
    failures = [error.code() for future in (running, *futures) if (error := future.exception(SECONDS)) is not None]
    assert failures == [grpc.StatusCode.RESOURCE_EXHAUSTED] * 4


def test_rows_run_in_batches_of_sizes_that_are_warmed_up(start: Start, models: dict[str, Path]) -> None:
    """``witness`` answers each row with the number of rows that it ran with."""
    client = start({"witness": models["witness"]})
    for rows, sizes in ((0, set()), (1, {1}), (5, {8}), (64, {32}), (200, {32, 8})):
        found = output(client.predict("witness", {"x": np.zeros(rows, np.float32)}), "rows")
        assert len(found) == rows
        assert set(found) == sizes
    with refused("INVALID_ARGUMENT", "257", "256"):
        client.predict("witness", {"x": np.zeros(257, np.float32)})


def test_a_stop_lets_calls_in_progress_finish(base_path: Path, gate: Gate) -> None:
    options = ServerOptions((ModelConfig("m", base_path),), shutdown_grace_seconds=SECONDS)
    with ExitStack() as server, connected(server.enter_context(running(options, Event()))) as client:
        slow = gate.request(client)
        stopping = threading.Thread(target=server.close)
        stopping.start()

        def refuses() -> bool:
            with suppress(grpc.RpcError):
                client.states("m")
                return False
            return True

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


def test_options_and_flags_reach_the_server(models: dict[str, Path], sockets: Path, tmp_path: Path) -> None:
    (tmp_path / "models.config").write_text(config({"half": models["half"]}))
    socket = sockets / "serve.sock"
    flags = (
        f"--model_config_file={tmp_path / 'models.config'}",
        f"--grpc_socket_path={socket}",
        "--enable_batching=true",
        "--tensorflow_inter_op_parallelism=2",
        "--grpc_channel_arguments=grpc.max_connection_age_ms=30000",
        "--max-batch-size=4",
    )
    with ModelServerProcess(EMBEDDED, flags, f"unix:{socket}") as server, connected(server.target) as client:
        assert client.half_plus("half") == (3.5, 2)
        with refused("INVALID_ARGUMENT", "5", "4"):
            client.predict("half", {"x": np.zeros(5, np.float32)})
    assert server.process.returncode == 0
    assert "listens on" in server.log
    assert "Traceback" not in server.log


@pytest.mark.parametrize(
    ("folder", "policy", "words"),
    [
        ("m/1", "", "no version is under its base path BASE/m/1, which holds: assets, fingerprint.pb, saved_model.pb"),
        ("zeros", "", "no version is under its base path BASE/zeros, which holds: 00000001"),
        (
            "m",
            "model_version_policy { specific { versions: 9 } }",
            "version 9 is not under its base path BASE/m, which holds: 1",
        ),
    ],
)
def test_a_base_path_without_a_version_that_counts_is_named(
    half_plus: dict[int, Path], tmp_path: Path, folder: str, policy: str, words: str
) -> None:
    shutil.copytree(half_plus[2], tmp_path / "m" / "1")
    (tmp_path / "zeros" / "00000001").mkdir(parents=True)
    (tmp_path / "models.config").write_text(config({"m": tmp_path / folder}, {"m": policy}))
    server = ServerProcess("-m", "digitgan", "serve", "--port", "0", "--config", tmp_path / "models.config")
    try:
        wait_until(lambda: words.replace("BASE", str(tmp_path)) in server.log, lambda: server.log)
    finally:
        assert server.stop() == 0


@pytest.fixture
async def in_process() -> AsyncIterator[ModelClient]:
    """A client of the package's generator alone, in this process."""
    with running_models((ModelConfig(GENERATOR, MODELS_DIR / GENERATOR),)) as transport:
        client = ModelClient(transport)
        with anyio.fail_after(SECONDS):
            while True:
                with suppress(ModelNotServedError):  # yet
                    await client.predict(GENERATOR, NOISE_ROWS, timeout_s=SECONDS)
                    break
                await anyio.sleep(0.05)
        yield client
        await client.close()


@pytest.mark.anyio
async def test_a_call_in_process_is_answered_or_fails_with_its_error(in_process: ModelClient) -> None:
    answer = await in_process.predict(GENERATOR, NOISE_ROWS, timeout_s=SECONDS)
    assert (answer.version, answer.outputs[IMAGES].shape) == (3, (2, 28, 28, 1))
    with pytest.raises(ModelNotServedError):
        await in_process.predict(DISCRIMINATOR, np.zeros((1, 28, 28, 1), np.uint8), timeout_s=SECONDS)
    with pytest.raises(VersionNotFoundError):
        await in_process.predict(GENERATOR, NOISE_ROWS, version=9, timeout_s=SECONDS)


@pytest.mark.anyio
async def test_a_call_in_process_whose_time_runs_out_before_its_turn_is_not_run(
    in_process: ModelClient, gate: Gate
) -> None:
    async with anyio.create_task_group() as busy:
        for _ in range(REQUESTS_AT_ONCE):
            busy.start_soon(lambda: in_process.predict(GENERATOR, NOISE_ROWS, timeout_s=SECONDS))
        await anyio.to_thread.run_sync(wait_until, lambda: gate.runs == REQUESTS_AT_ONCE)
        with pytest.raises(DeadlineError):
            await in_process.predict(GENERATOR, NOISE_ROWS, timeout_s=0.1)
        gate.opened.set()
    await in_process.predict(GENERATOR, NOISE_ROWS, timeout_s=SECONDS)
    assert gate.runs == REQUESTS_AT_ONCE + 1


INPUTS = {
    NOISE: noise_from_seeds(range(1000)),
    IMAGES: np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8),
    PAGES: np.array([0, 1, 15, 16, 2**31 - 1, -1]),
}


@pytest.fixture(scope="module")
def generator() -> Iterator[SavedModel]:
    with closing(load(pretrained(GENERATOR))) as loaded:
        yield loaded


def draw(model: SavedModel, noise: NDArray[np.float32], size: int = 256) -> NDArray[np.uint8]:
    """Returns the images of ``noise``, computed in batches of ``size``."""
    batches = [{NOISE: noise[at : at + size]} for at in range(0, len(noise), size)]
    return np.concatenate([outputs[IMAGES] for outputs in model.run(SIGNATURE, *batches)])


@pytest.mark.parametrize(("name", "signature"), SIGNATURES)
def test_outputs_are_tensorflows_but_for_rounding(name: str, signature: str) -> None:
    wanted = SIGNATURES[name, signature].input.name
    inputs = {wanted: INPUTS[wanted]}
    with closing(load(pretrained(name))) as loaded:
        (ours,) = loaded.run(signature, inputs)
    saved = tf.saved_model.load(str(pretrained(name))).signatures[signature]
    theirs = saved(**{key: tf.constant(value) for key, value in inputs.items()})
    assert ours.keys() == theirs.keys()
    for key, found in ours.items():
        expected = theirs[key].numpy()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if wanted == PAGES:
            np.testing.assert_array_equal(found, expected)
        elif name == GENERATOR:
            difference = np.abs(found.astype(int) - expected)
            assert difference.max() <= 1
            assert (difference > 0).sum() <= found.size / 20_000, "docs/seeds.md promises it"
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_pixels_are_the_same_to_the_bit_in_batches_of_one_size(generator: SavedModel) -> None:
    noise = noise_from_seeds(range(64))
    with closing(load(pretrained(GENERATOR))) as again:
        for size in (1, 8):
            np.testing.assert_array_equal(draw(generator, noise, size), draw(again, noise, size))
    shuffled = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(draw(generator, noise[shuffled], 8), draw(generator, noise, 8)[shuffled])


def test_a_model_that_was_loaded_and_saved_again_makes_the_same_pixels(tmp_path: Path, generator: SavedModel) -> None:
    """What is computed while it loads then lies in a call of a call."""
    saved_models.save_again(pretrained(GENERATOR), tmp_path / "1")
    noise = noise_from_seeds(range(8))
    with closing(load(tmp_path / "1")) as again:
        np.testing.assert_array_equal(draw(again, noise), draw(generator, noise))
