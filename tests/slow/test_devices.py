"""Several replicas train as one does."""

import json
from pathlib import Path

import numpy as np

from tests.support.commands import python

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
    """Within rounding, without dropout, whose masks differ from replica to replica."""
    done = python(PROGRAM, str(digits_npz))
    assert done.returncode == 0, done.stderr
    one, two = np.array(json.loads(done.stdout.splitlines()[-1]))
    assert one.shape == (4, 4)
    np.testing.assert_allclose(one, two, rtol=1e-3)
    assert len(np.unique(one[:, 0])) == 4
