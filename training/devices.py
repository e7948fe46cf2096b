"""What a run computes on: one CPU, one GPU, several GPUs, or several machines."""

import os
from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorflow as tf


def prepare_tensorflow() -> None:
    """Sets how this process computes. Every command that computes calls it first; calling it again changes nothing.

    - In float32 without TF32. By default, TensorFlow rounds the operands of matrix products and convolutions to a
      10-bit mantissa on GPUs since Ampere. Pixels then move by up to a level, so a saved graph would no longer equal
      its network.
    - Deterministically, so that a resumed run can equal an uninterrupted one.
    - In GPU memory that is allocated when it is needed, so that other processes can share the card. A program that
      has used its GPUs already keeps the memory that it has.
    """
    tf.config.experimental.enable_tensor_float_32_execution(False)
    tf.config.experimental.enable_op_determinism()
    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):
            tf.config.experimental.set_memory_growth(gpu, True)


def strategy() -> Any:
    """Prepares TensorFlow, and returns the distribution strategy for the devices of this machine.

    Several machines where TF_CONFIG describes a cluster (MultiWorkerMirroredStrategy), several GPUs
    (MirroredStrategy), otherwise TensorFlow's default, which uses the GPU if there is one.

    Call it before anything else touches TensorFlow.
    """
    prepare_tensorflow()
    if os.environ.get("TF_CONFIG"):
        return tf.distribute.MultiWorkerMirroredStrategy()
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def is_chief(strategy: Any) -> bool:
    """Whether this process's files count: it is the only one, or the cluster's chief (worker 0 without a chief)."""
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return True
    kind, index = resolver.task_type, resolver.task_id
    return kind == "chief" or (kind == "worker" and index == 0 and "chief" not in resolver.cluster_spec().jobs)


def scratch(run: Path, strategy: Any) -> Path:
    """Where a worker that isn't the chief writes what nobody will read."""
    resolver = strategy.cluster_resolver
    return run / f".{resolver.task_type}-{resolver.task_id}"


class Agreement:
    """Workers of a cluster agree, between two steps, whether to stop: if one of them wants to, all do.

    A signal reaches one worker of several. If that one alone left, the others would wait for it in the next step, and
    nobody could save the state, in which all take part.
    """

    def __init__(self, strategy: Any) -> None:
        """A process on its own agrees with itself at once."""
        resolver = strategy.cluster_resolver
        self._alone = resolver is None or not resolver.cluster_spec()

        @tf.function(autograph=False)  # type: ignore[untyped-decorator]
        def count(wish: Any) -> Any:
            return strategy.reduce(tf.distribute.ReduceOp.SUM, strategy.run(tf.identity, args=(wish,)), axis=None)

        self._count = count

    def __call__(self, wish: bool) -> bool:
        """Returns whether anybody wishes it. All workers have to call it equally often."""
        return wish if self._alone else bool(self._count(tf.constant(float(wish))) > 0)


def describe() -> str:
    """The device that TensorFlow computes on, in words."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"CPU, {os.cpu_count()} cores"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return f"{len(gpus)} × {names[0]}" if len(gpus) > 1 else str(names[0])
