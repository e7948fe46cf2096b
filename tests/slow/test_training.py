"""Training with the preset ``best``, stopped and resumed; in bfloat16, compiled by XLA; and on two replicas."""

import json
import signal
from pathlib import Path

import numpy as np

from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card
from tests.support.commands import digitgan, python
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
        "--index-seeds", "20",
    )  # fmt: skip
    card = read_card(run / "models" / GENERATOR / "1")
    assert card["training"]["mixed_precision"] is True
    assert card["training"]["recipe"]["ema_decay"] == 0


# TensorFlow's devices are laid out once a process, so this needs one of its own.
PROGRAM = """
import json, sys
from pathlib import Path
import tensorflow as tf
(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
from training import job
from training.gan.step import Trainer
config, dataset = job.resolve(
    Path("unused"), Path(sys.argv[1]), steps=4, overrides={"batch_size": 16, "dropout": 0.0, "log_every": 1}
)
losses = []
for strategy in (tf.distribute.get_strategy(), tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])):
    trainer = Trainer(config, strategy)
    losses.append([row.tolist() for means in trainer.loop(dataset.x_train).run(0, [4]) for row in means])
    assert trainer.step == 4
print(json.dumps(losses))
"""


def test_two_replicas_have_the_losses_of_one(digits_npz: Path) -> None:
    """Up to rounding. There is no dropout, because each replica has other masks."""
    done = python(PROGRAM, str(digits_npz))
    assert done.returncode == 0, done.stderr
    one, two = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert one.shape == (4, 4)
    np.testing.assert_allclose(one, two, rtol=1e-3)
    assert len(np.unique(one[:, 0])) == 4
