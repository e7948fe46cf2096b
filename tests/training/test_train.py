"""The command: a run from its first step to its models, stopped and resumed."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from serving.model_card import read_card

STEPS = 14
ARGUMENTS = ("--batch-size", "16", "--log-every", "4", "--seed", "5", "--index-seeds", "300")


def digitgan(*arguments: str | Path, check: bool = True) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "digitgan", *map(str, arguments)]
    return subprocess.run(command, check=check, capture_output=True, text=True, timeout=200)


@pytest.fixture(scope="module")
def uninterrupted(digits_npz: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    run = tmp_path_factory.mktemp("runs") / "uninterrupted"
    done = digitgan("train", "--data", digits_npz, "--steps", str(STEPS), "--run", run, *ARGUMENTS)
    assert f"digitgan up --models {run / 'models'}" in done.stdout
    return run


def state(run: Path) -> dict[str, NDArray[np.float32]]:
    """Every variable in a run's last checkpoint."""
    reader = tf.train.load_checkpoint(tf.train.latest_checkpoint(str(run / "checkpoints")))
    names = [
        name for name in reader.get_variable_to_shape_map() if not name.startswith(("_CHECKPOINTABLE", "save_counter"))
    ]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def test_a_run_explains_itself(uninterrupted: Path, digits_npz: Path) -> None:
    config = json.loads((uninterrupted / "config.json").read_text())
    assert config["preset"] == "best"
    assert config["data"] == str(digits_npz)
    assert (config["steps"], config["recipe"]["batch_size"], config["seed"]) == (STEPS, 16, 5)
    rows = [json.loads(line) for line in (uninterrupted / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12, 14]
    for row in rows:
        assert set(row) == {
            "step", "epoch", "generator_loss", "discriminator_loss", "accuracy_real", "accuracy_fake",
        }  # fmt: skip
        assert 0 < row["generator_loss"] < 5
        assert 0 <= row["accuracy_real"] <= 1
    assert {path.name for path in (uninterrupted / "samples").iterdir()} == {"step-000001.png", "step-000014.png"}
    assert (uninterrupted / "losses.png").stat().st_size > 10_000


def test_the_run_is_exported(uninterrupted: Path) -> None:
    for name in ("generator", "discriminator"):
        card = read_card(uninterrupted / "models" / name / "1")
        assert card["training"]["steps"] == STEPS
        assert card["training"]["images"] == 1375
        assert card["training"]["data"] == "digits.npz"
        assert card["last_interval"]["step"] == STEPS
    card = read_card(uninterrupted / "models" / "generator" / "1")
    assert sum(card["seed_index"]["digits"]) == 300
    detector = read_card(uninterrupted / "models" / "discriminator" / "1")["detector"]
    assert detector["config"]["steps"] == STEPS
    assert 0 <= detector["test"]["auc"] <= 1
    assert (uninterrupted / "models" / "classifier" / "1" / "saved_model.pb").exists()
    assert (uninterrupted / "models" / "models.config").exists()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_stopped_and_resumed_run_equals_one_left_alone(
    uninterrupted: Path, digits_npz: Path, tmp_path: Path, number: signal.Signals
) -> None:
    run = tmp_path / "stopped"
    command = [
        sys.executable,
        "-m",
        "digitgan",
        "train",
        "--data",
        str(digits_npz),
        "--steps",
        str(STEPS),
        "--run",
        str(run),
    ]
    with subprocess.Popen([*command, *ARGUMENTS], stdout=subprocess.PIPE, text=True) as process:
        deadline = time.monotonic() + 120
        while not (run / "samples" / "step-000001.png").exists():
            assert time.monotonic() < deadline, "the first step never ended"
            assert process.poll() is None
            time.sleep(0.005)
        process.send_signal(number)
        output, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number
    assert f"digitgan train --run {run} --resume" in output
    stopped_at = int(state(run)["trainer/generator_optimizer/_iterations/.ATTRIBUTES/VARIABLE_VALUE"])
    assert 1 <= stopped_at < STEPS
    assert not (run / "models").exists()

    digitgan("train", "--run", run, "--resume", "--index-seeds", "0")
    expected, resumed = state(uninterrupted), state(run)
    assert expected.keys() == resumed.keys()
    assert any("averages" in name for name in expected)
    for name, value in expected.items():
        assert value.tobytes() == resumed[name].tobytes(), f"{name} differs after a stop at step {stopped_at}"
    assert (run / "metrics.jsonl").read_text() == (uninterrupted / "metrics.jsonl").read_text()
    for picture in ("step-000001.png", "step-000014.png"):
        assert (run / "samples" / picture).read_bytes() == (uninterrupted / "samples" / picture).read_bytes()


def test_export_publishes_the_next_version_of_a_run(uninterrupted: Path, tmp_path: Path) -> None:
    command = ("export", uninterrupted, "--models", tmp_path)
    first = digitgan(*command, "--mount-point", "/srv/models", "--index-seeds", "300")
    assert "Published version 1" in first.stdout
    again = digitgan(*command, "--index-seeds", "300")
    assert "Published version 2" in again.stdout
    detectors = [read_card(tmp_path / "discriminator" / version)["detector"] for version in "12"]
    assert detectors[0] == detectors[1], "the detector of the run is trained once"
    plain = digitgan(*command, "--index-seeds", "0", "--no-detector")
    assert "Published version 3" in plain.stdout
    assert "detector" not in read_card(tmp_path / "discriminator" / "3")
    assert "seed_index" not in read_card(tmp_path / "generator" / "3")
    assert {path.name for path in (tmp_path / "classifier").iterdir()} == {"1"}
    one, two = (read_card(tmp_path / "generator" / version)["files"]["saved_model.pb"]["bytes"] for version in "12")
    assert one == two


def test_bfloat16_and_xla_train_too(digits_npz: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    digitgan(
        "train", "--data", digits_npz, "--steps", "3", "--run", run, "--preset", "deck", "--batch-size", "8",
        "--mixed-precision", "--xla", "--index-seeds", "0",
    )  # fmt: skip
    card = read_card(run / "models" / "generator" / "1")
    assert card["training"]["mixed_precision"] is True
    assert card["training"]["recipe"]["ema_decay"] == 0


def test_a_dry_run_prints_the_configuration_and_writes_nothing(digits_npz: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    done = digitgan("train", "--data", digits_npz, "--epochs", "2", "--run", run, "--dry-run")
    assert json.loads(done.stdout)["steps"] == 22
    assert not run.exists()


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--data", "nowhere.npz"], "nowhere.npz does not exist"),
        (["--data", "DIGITS", "--steps", "3", "--epochs", "1"], "--epochs and --steps"),
        (["--data", "DIGITS", "--preset", "worst"], "--preset must be one of deck, dcgan, best"),
        (["--resume"], "there is no run in runs/ yet"),
    ],
)
def test_a_mistake_is_told_in_a_sentence(
    digits_npz: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], told: str
) -> None:
    monkeypatch.chdir(tmp_path)
    done = digitgan("train", *[str(digits_npz) if word == "DIGITS" else word for word in arguments], check=False)
    assert done.returncode == 2
    assert told in done.stderr
    assert "Traceback" not in done.stderr
    assert list(tmp_path.iterdir()) == []
