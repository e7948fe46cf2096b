"""Many training steps in one call to the device, which keeps the images and shuffles them itself.

images_of = on_device(images)
loop = DeviceLoop(lambda number, rows: [train(images_of(rows))], len(images), batch_size=128, seed=0, figures=1)
for losses in loop.run(0, [1000]):  # float32 [steps of this call, 1]
    advance(len(losses), "")
"""

import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import IMAGE_SHAPE
from training.data import Images
from training.devices import agreement

CALL_S: Final = 1.0
"""About how long a call lasts. Signals and the progress bar wait for its end."""
MOST_STEPS: Final = 500
"""The most steps of a call."""


def on_device(images: Images) -> Callable[[Any], Any]:
    """Copies images, uint8 [N, 28, 28], to the device. Returns what gathers rows of them: uint8 [rows, 28, 28, 1]."""
    words = tf.constant(images.reshape(len(images), -1).view(np.int64))  # On a GPU, TensorFlow gathers no bytes.
    return lambda rows: tf.reshape(tf.bitcast(tf.gather(words, rows), tf.uint8), [-1, *IMAGE_SHAPE])


class DeviceLoop:
    """Runs a training step on batches that depend only on the seed and the number of the step, wherever a call ends."""

    def __init__(
        self,
        step: Callable[[Any, Any], Any],
        examples: int,
        batch_size: int,
        seed: int,
        *,
        figures: int,
        strategy: Any = None,
        xla: bool = False,
    ) -> None:
        """Builds the loop around a step, which runs in a tf.function, one of ``strategy``'s replicas each.

        From the number of the step, int32, and this replica's rows of the examples, int64 [N], it gives float32
        [figures]. ``batch_size`` is that of all replicas together.
        """
        strategy = strategy or tf.distribute.get_strategy()
        # XLA compiles the whole loop, so that the host starts nothing between two steps. Several replicas exchange
        # their gradients, so there it compiles the step alone.
        alone = strategy.num_replicas_in_sync == 1
        on_replica = tf.function(
            lambda number, rows: step(number, own_rows(rows)), autograph=False, jit_compile=xla and not alone
        )

        @tf.function(autograph=False, jit_compile=xla and alone)  # type: ignore[untyped-decorator]
        def run_steps(first: Any, steps: Any, rows: Any) -> Any:
            def one_step(k: Any, found: Any) -> tuple[Any, Any]:
                per_replica = strategy.run(on_replica, args=(first + k, rows[k]))
                return k + 1, found.write(k, strategy.experimental_local_results(per_replica)[0])

            found = tf.TensorArray(tf.float32, MOST_STEPS, element_shape=[figures])
            _, found = tf.while_loop(lambda k, _: k < steps, one_step, (tf.constant(0), found))
            return found.stack()

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def call(first: Any, steps: Any) -> Any:
            rows = tf.pad(batch_rows(examples, batch_size, seed, first, steps), [[0, MOST_STEPS - steps], [0, 0]])
            return run_steps(first, steps, tf.ensure_shape(rows, [MOST_STEPS, batch_size]))

        self._call = call
        self._agreed = agreement(strategy)

    def build(self) -> None:
        """Builds and compiles the steps, and runs none."""
        self._call(tf.constant(0), tf.constant(0))

    def run(
        self, first: int, ends: Iterable[int], stopped: Callable[[], bool] = lambda: False
    ) -> Iterator[NDArray[np.float32]]:
        """Runs the steps from ``first`` on, in calls of about CALL_S, until ``stopped()`` or the last of ``ends``.

        A call also ends at each of ``ends``, ascending. Yields what its steps returned: float32 [steps, figures].
        """
        step, affordable = first, 1
        for end in ends:
            while step < end:
                steps = self._agreed(0 if stopped() else min(affordable, end - step))
                if not steps:
                    return
                started = time.monotonic()
                found = self._call(tf.constant(step), tf.constant(steps)).numpy()[:steps]
                affordable = int(np.clip(steps * CALL_S / (time.monotonic() - started), 1, MOST_STEPS))
                step += steps
                yield found


def own_rows(values: Any) -> Any:
    """This replica's rows of what is drawn for the whole batch."""
    context = tf.distribute.get_replica_context()
    by_replica = tf.reshape(values, [context.num_replicas_in_sync, -1, *values.shape[1:]])
    return by_replica[context.replica_id_in_sync_group]


def batch_rows(examples: int, batch_size: int, seed: int, first: Any, steps: Any) -> Any:
    """Returns the rows of the examples in each batch, from a step on: int64 [steps, batch_size].

    Each epoch has an order of its own. Epochs are joined before they are cut into batches, so every example is used
    exactly once an epoch.
    """
    begin = tf.cast(first, tf.int64) * batch_size
    end = begin + tf.cast(steps, tf.int64) * batch_size
    numbers = tf.range(examples, dtype=tf.int64)

    def order(epoch: Any) -> Any:
        return tf.random.experimental.stateless_shuffle(numbers, [seed, tf.cast(epoch, tf.int32)])

    epochs = tf.range(begin // examples, (end - 1) // examples + 1)
    orders = tf.reshape(tf.map_fn(order, epochs, fn_output_signature=tf.int64), [-1])
    within = begin % examples
    return tf.reshape(orders[within : within + end - begin], [-1, batch_size])
