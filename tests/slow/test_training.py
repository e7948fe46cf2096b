"""Training with the preset ``best``, stopped and resumed; and in bfloat16, compiled by XLA."""

import signal
from pathlib import Path

from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card
from tests.support.commands import digitgan
from tests.training.test_run import ARGUMENTS, STEPS, assert_same_run, data, state, stopped

__all__ = ["data"]


def test_a_stopped_and_resumed_run_of_the_default_preset_equals_one_left_alone(data: Path, tmp_path: Path) -> None:
    run, other = tmp_path / "run", tmp_path / "stopped"
    options = ("--data", data, "--steps", str(STEPS), *ARGUMENTS)
    digitgan("train", "--run", run, *options, "--no-export")
    stopped(signal.SIGTERM, other, *options)
    digitgan("train", "--run", other, "--resume", "--no-export")
    assert any("averages" in name for name in state(run))
    assert_same_run(run, other)


def test_bfloat16_and_xla_train_too(digits_npz: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    digitgan(
        "train", "--data", digits_npz, "--steps", "3", "--run", run, "--set", "ema_decay=0", "--set", "batch_size=8",
        "--mixed-precision", "--set", "xla=true", "--classifier", MODELS_DIR,
        "--index-seeds", "20", "--detector-steps", "2",
    )  # fmt: skip
    card = read_card(run / "models" / GENERATOR / "1")
    assert card["training"]["mixed_precision"] is True
    assert card["training"]["recipe"]["ema_decay"] == 0
