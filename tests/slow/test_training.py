"""Training with the preset ``best``, stopped and resumed; in bfloat16, compiled by XLA; on two replicas, or workers."""

import json
import signal
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card
from tests.support.commands import digitgan, python
from tests.support.processes import ServerProcess, wait_until
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


DEADLINE_S = 300.0
SETTINGS = ("--set=batch_size=4", "--set=log_every=1", "--set=checkpoint_every=5", "--set=classifier=package")
LONG = ("--steps", "500", "--no-export")
SHORT = ("--steps", "4", "--index-seeds", "64")


@contextmanager
def job(run: Path, data: Path, *arguments: str, workers: Sequence[int] = (0, 1)) -> Iterator[list[ServerProcess]]:
    """Workers as k8s/overlays/training-workers starts them; those that are left at the end are killed."""
    with socket.create_server(("127.0.0.1", 0)) as one, socket.create_server(("127.0.0.1", 0)) as other:
        cluster = {"worker": [f"127.0.0.1:{each.getsockname()[1]}" for each in (one, other)]}
    command = ("-m", "digitgan", "train", "--data", data, "--run", run, "--resume", "--preset", "deck", *SETTINGS)
    started = []
    try:
        for index in workers:
            config = {"TF_CONFIG": json.dumps({"cluster": cluster, "task": {"type": "worker", "index": index}})}
            started.append(ServerProcess(*command, *arguments, environment=config, ready="The training in"))
        yield started
    finally:
        for worker in started:
            worker.stop(signal.SIGKILL)
            print(worker.log[-4000:])


def rows(run: Path, *running: ServerProcess) -> dict[int, Any]:
    """The whole lines of the run's log, by step. Fails once one of ``running`` has ended."""
    assert not [worker.process.returncode for worker in running if worker.process.poll() is not None]
    try:
        lines = (run / "metrics.jsonl").read_text().split("\n")[:-1]
    except OSError:
        return {}
    return {row["step"]: row for row in map(json.loads, lines)}


def checkpoints(run: Path) -> list[int]:
    return sorted(int(path.stem.removeprefix("ckpt-")) for path in (run / "checkpoints").glob("ckpt-*.index"))


@pytest.mark.timeout(1200)
def test_a_killed_worker_ends_the_job_which_resumes_and_one_that_is_told_to_stop_stops_it(
    digits_npz: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with job(run, digits_npz, *LONG) as workers:
        wait_until(lambda: len(rows(run, *workers)) >= 7 and checkpoints(run), seconds=DEADLINE_S)
        workers[1].process.kill()
        assert workers[0].process.wait(DEADLINE_S) not in (0, 128 + signal.SIGTERM)
    killed, saved = rows(run), checkpoints(run)[-1]
    assert saved % 5 == 0
    with job(run, digits_npz, *LONG) as workers:
        wait_until(lambda: len(rows(run, *workers)) > len(killed), seconds=DEADLINE_S)
        workers[1].process.terminate()
        assert [worker.process.wait(DEADLINE_S) for worker in workers] == [128 + signal.SIGTERM] * 2
    resumed = rows(run)
    assert list(resumed) == list(range(1, len(resumed) + 1))
    assert checkpoints(run)[-1] == len(resumed)
    assert {step: resumed[step] for step in killed} == killed, "what was lost is computed again, the same"


@pytest.mark.timeout(1200)
def test_a_first_worker_that_is_evicted_while_it_publishes_finishes_without_the_other(
    digits_npz: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    with job(run, digits_npz, *SHORT, "--index-seeds", "1000000") as (first, second):
        assert second.process.wait(DEADLINE_S) == 0
        assert first.process.poll() is None, "the first worker makes the index of digits"
        first.process.terminate()
        first.process.wait(DEADLINE_S)
    assert not (run / "models").exists()
    with job(run, digits_npz, *SHORT, workers=[0]) as (first,):
        assert first.process.wait(DEADLINE_S) == 0
    assert read_card(run / "models" / GENERATOR / "1")["training"]["steps"] == 4
    with job(run, digits_npz, *SHORT, workers=[1]) as (second,):
        second.wait_until_ready()
        assert second.process.wait(DEADLINE_S) == 0
