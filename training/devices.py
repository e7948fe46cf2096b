"""What a run computes on: one CPU, one GPU, several GPUs, or several machines."""

import os
import signal
import socket
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import tensorflow as tf

_cluster = tf.distribute.cluster_resolver.TFConfigClusterResolver  # Without TF_CONFIG, the cluster is empty.


def prepare_tensorflow() -> None:
    """Sets how this process computes. Every command that computes calls it first; calling it again changes nothing."""
    # TF32 rounds operands to a 10-bit mantissa. Pixels of a saved graph would differ from those of its network.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    # A resumed run equals an uninterrupted one. TensorFlow's arithmetic optimiser changes the order of sums, and may
    # choose another order in each process.
    tf.config.experimental.enable_op_determinism()
    tf.config.optimizer.set_experimental_options({"arithmetic_optimization": False})
    for gpu in tf.config.list_physical_devices("GPU"):
        with suppress(RuntimeError):  # The program has used the GPU already.
            tf.config.experimental.set_memory_growth(gpu, True)  # Other processes can share the card.


def strategy(alone: bool = False, workers_timeout_s: float = 600.0) -> Any:
    """Prepares TensorFlow, and returns the strategy for TF_CONFIG's cluster or else for the devices of this machine.

    Call it before anything else uses TensorFlow. ``alone`` leaves the other workers of the cluster out. Raises
    TimeoutError, which names them, for workers that do not start in time.
    """
    prepare_tensorflow()
    resolver = _cluster()
    if (cluster := resolver.cluster_spec().as_dict()) and not alone:
        own = cluster[resolver.task_type][resolver.task_id]
        others = [each for workers in cluster.values() for each in workers if each != own]
        _wait_for_workers(own, others, workers_timeout_s)
        on_sigterm = signal.getsignal(signal.SIGTERM)
        distributed = tf.distribute.MultiWorkerMirroredStrategy()
        signal.signal(signal.SIGTERM, on_sigterm)  # TensorFlow's handler ignores the signal.
        return distributed
    if len(tf.config.list_physical_devices("GPU")) > 1:
        return tf.distribute.MirroredStrategy()
    return tf.distribute.get_strategy()


def _wait_for_workers(own: str, others: Sequence[str], timeout_s: float) -> None:
    """Listens at ``own`` until every other worker listens. TensorFlow itself would wait an hour without a message."""
    started = reported = time.monotonic()
    dual = socket.has_dualstack_ipv6()
    family = socket.AF_INET6 if dual else socket.AF_INET
    with socket.create_server(("", int(own.rpartition(":")[2])), family=family, dualstack_ipv6=dual, reuse_port=True):
        while missing := [other for other in others if not _listens(other)]:
            now = time.monotonic()
            if now - started > timeout_s:
                raise TimeoutError(
                    f"no answer from {', '.join(missing)} in {timeout_s:g} s. Start all workers of TF_CONFIG together"
                )
            if now - reported > 30 or reported == started:
                reported = now
                print(f"Waiting for {', '.join(missing)}", file=sys.stderr, flush=True)
            time.sleep(0.5)


def _listens(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        with socket.create_connection((host.strip("[]"), int(port)), timeout=5):
            return True
    except OSError:
        return False


def is_chief() -> bool:
    """Whether this process's files count: it is the only one, or the cluster's chief (worker 0 without a chief)."""
    resolver = _cluster()
    jobs = resolver.cluster_spec().jobs
    return not jobs or (resolver.task_type, resolver.task_id) == ("chief" if "chief" in jobs else "worker", 0)


def scratch(run: Path) -> Path:
    """A directory for what a worker that is not the chief must write and no program reads."""
    resolver = _cluster()
    return run / f".{resolver.task_type}-{resolver.task_id}"


def agreement(strategy: Any) -> Callable[[int], int]:
    """Returns how workers agree on the number of their next steps: the least that any proposes, and 0 is to stop.

    A signal reaches one worker, but steps and checkpoints need all of them. All workers have to ask equally often.
    """
    resolver = strategy.cluster_resolver
    if resolver is None or not resolver.cluster_spec():
        return lambda steps: steps

    @tf.function(autograph=False)  # type: ignore[untyped-decorator]
    def least(steps: Any) -> Any:
        return tf.reduce_min(strategy.gather(strategy.run(tf.identity, args=(steps,)), axis=0))

    return lambda steps: int(least(tf.constant([steps])))


def describe() -> str:
    """The device that TensorFlow computes on, in words."""
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return f"CPU, {os.cpu_count()} cores"
    names = [tf.config.experimental.get_device_details(gpu).get("device_name", "GPU") for gpu in gpus]
    return f"{len(gpus)} × {names[0]}" if len(gpus) > 1 else str(names[0])
