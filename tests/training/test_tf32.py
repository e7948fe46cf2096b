"""TF32 is off wherever pixels are computed, so that a saved graph equals its network on a GPU too."""

from contextlib import suppress
from pathlib import Path

import pytest
import tensorflow as tf

from digitgan.cli import app
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from training import job


@pytest.mark.parametrize("command", ["train", "export", "evaluate", "report", "train-classifier"])
def test_every_command_that_computes_prepares_tensorflow(command: str, digits_npz: Path, tmp_path: Path) -> None:
    settings = {"batch_size": 8, "classifier": str(MODELS_DIR), "evaluate_every": 0}
    config, _ = job.resolve(tmp_path, digits_npz, preset="deck", steps=1, overrides=settings)
    config.write(tmp_path)
    arguments = {
        "train": ["--run", str(tmp_path), "--resume", "--no-export"],
        "export": [str(tmp_path)],
        "evaluate": [str(MODELS_DIR), "--data", str(digits_npz), "--classifier", "NOWHERE"],
        "report": [str(tmp_path)],
        "train-classifier": ["--data", str(digits_npz), "--models", "/proc/nowhere"],
    }
    tf.config.experimental.enable_tensor_float_32_execution(True)  # TensorFlow's default.
    with suppress(UserError, OSError):
        app([command, *arguments[command]], standalone_mode=False)
    assert not tf.config.experimental.tensor_float_32_execution_enabled()
