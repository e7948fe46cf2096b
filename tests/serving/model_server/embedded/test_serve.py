"""``digitgan serve``: its options, TensorFlow Serving's flags, and what it says while it waits."""

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.serving.model_server.client import Client, refused
from tests.serving.model_server.process import config
from tests.support.processes import ServerProcess
from tests.support.waiting import wait_until


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
    server = ServerProcess("-m", "digitgan", "serve", *flags)
    try:
        wait_until(lambda: "listens on" in server.log, lambda: server.log)
        with Client(f"unix:{socket}") as client:
            assert client.half_plus("half") == (3.5, 2)
            with refused("INVALID_ARGUMENT", "5", "4"):
                client.predict("half", {"x": np.zeros(5, np.float32)})
    finally:
        assert server.stop() == 0
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
    server = ServerProcess("-m", "digitgan", "serve", "--port", "0", "--config", str(tmp_path / "models.config"))
    try:
        wait_until(lambda: words.replace("BASE", str(tmp_path)) in server.log, lambda: server.log)
    finally:
        assert server.stop() == 0
