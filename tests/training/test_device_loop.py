"""Batches are the same stream from any step on, wherever a call ends."""

from typing import Any

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from tests.support.commands import python
from training.device_loop import DeviceLoop, batch_rows, on_device


def rows(examples: int, steps: int, first: int = 0, seed: int = 0) -> NDArray[np.int64]:
    return np.asarray(batch_rows(examples, 8, seed, first, steps))


def test_every_example_is_used_once_an_epoch_and_each_epoch_has_an_order_of_its_own() -> None:
    """20 examples in batches of 8: five batches are two epochs, the third of them lying across both."""
    seen = rows(20, 5)
    assert seen.shape == (5, 8)
    first, second = seen.ravel()[:20], seen.ravel()[20:]
    assert sorted(first) == sorted(second) == list(range(20))
    assert list(first) != list(second)
    assert not np.array_equal(rows(20, 5, seed=1), seen)
    assert rows(3, 4).shape == (4, 8)  # A batch may be larger than the training set.


def build_loop(xla: bool = False) -> DeviceLoop:
    """A loop whose step returns its number and the rows of its batch."""

    def step(number: Any, rows: Any) -> Any:
        return tf.cast(tf.concat([[tf.cast(number, tf.int64)], rows], axis=0), tf.float32)

    return DeviceLoop(step, 20, 8, seed=0, figures=9, xla=xla)


@pytest.mark.parametrize("xla", [False, True])
@pytest.mark.parametrize(("first", "ends"), [(0, [9]), (0, [1, 4, 9]), (5, [2, 5, 9]), (7, [9])])
def test_steps_see_the_same_batches_wherever_calls_end(xla: bool, first: int, ends: list[int]) -> None:
    loop = build_loop(xla)
    loop.build()
    calls = list(loop.run(first, ends))
    reached = first + np.cumsum([len(call) for call in calls])
    assert {end for end in ends if end > first} <= set(reached)
    expected = np.column_stack([np.arange(first, 9), rows(20, 9)[first:]])
    np.testing.assert_array_equal(np.concatenate(calls), expected)


@pytest.mark.parametrize("xla", [False, True])
def test_images_on_the_device_are_gathered_unchanged(xla: bool) -> None:
    images = np.random.default_rng(0).integers(0, 256, (5, 28, 28), np.uint8)
    found = tf.function(on_device(images), jit_compile=xla)(tf.constant([4, 0, 4], tf.int64))
    np.testing.assert_array_equal(found, images[[4, 0, 4]][..., None])


def test_a_stop_ends_the_loop_after_a_call() -> None:
    numbers: list[float] = []

    def stopped() -> bool:
        return 4 in numbers

    for call in build_loop().run(0, [5, 10**6], stopped):
        numbers.extend(call[:, 0].tolist())
    assert numbers == [0, 1, 2, 3, 4]


def test_a_call_is_of_many_steps() -> None:
    assert len(list(build_loop().run(0, [2000]))) < 200


TRAIN = """
import zlib
from dataclasses import replace
import numpy as np
from training import devices
from training.config import PRESETS, TrainingConfig
from training.gan.step import Trainer

strategy = devices.strategy()
recipe = replace(PRESETS["best"], batch_size=32, augmentation=0.5)
trainer = Trainer(TrainingConfig("best", recipe, seed=0, steps=6, images=1800, data="", data_sha256=""), strategy)
images = np.random.default_rng(0).integers(0, 256, (1800, 28, 28), np.uint8)
for _ in trainer.loop(images).run(0, [6]):
    pass
print(zlib.crc32(b"".join(weight.numpy().tobytes() for weight in trainer.generator.trainable_variables)))
"""


def test_every_process_computes_the_same_weights() -> None:
    """Each process optimises its graphs anew, and a run may continue in another one."""
    first, second = (python(TRAIN) for _ in range(2))
    assert first.stdout == second.stdout != "", first.stderr
