"""TF32 is off in every command that computes: a saved graph equals its network on a GPU too (see test_export)."""

from contextlib import suppress
from pathlib import Path

import pytest
import tensorflow as tf

from digitgan.cli import app
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from training import job


@pytest.fixture
def run(digits_npz: Path, tmp_path: Path) -> Path:
    """A run directory that holds nothing but its configuration."""
    settings = {"batch_size": 8, "classifier": str(MODELS_DIR), "evaluate_every": 0}
    config, _ = job.resolve(tmp_path, digits_npz, preset="deck", steps=1, overrides=settings)
    config.write(tmp_path)
    return tmp_path


@pytest.mark.parametrize("command", ["train", "export", "evaluate", "report", "train-classifier"])
def test_every_command_that_computes_prepares_tensorflow(command: str, run: Path, digits_npz: Path) -> None:
    arguments = {
        "train": ["--run", str(run), "--resume", "--no-export"],
        "export": [str(run)],
        "evaluate": [str(MODELS_DIR), "--data", str(digits_npz), "--classifier", "NOWHERE"],
        "report": [str(run)],
        "train-classifier": ["--data", str(digits_npz), "--models", "/proc/nowhere"],
    }
    tf.config.experimental.enable_tensor_float_32_execution(True)
    with suppress(UserError, OSError):
        app([command, *arguments[command]], standalone_mode=False)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
