"""The training loop: steps, log, pictures, checkpoints, and an orderly stop at any time."""

import signal
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

import tensorflow as tf

from training.bar import task_bar
from training.config import METRICS, ConfigError, TrainingConfig
from training.data import Dataset
from training.devices import is_chief, scratch
from training.evaluation.classifier import EvaluationClassifier
from training.gan.step import Trainer
from training.run import metrics, samples
from training.run.selection import Validation

CHECKPOINTS: Final = "checkpoints"


def train(
    config: TrainingConfig, dataset: Dataset, run: Path, strategy: Any, classifier: EvaluationClassifier | None
) -> tuple[Trainer, signal.Signals | None]:
    """Trains from the run directory's last checkpoint, or from the beginning where there is none, to the end.

    SIGINT and SIGTERM, to any worker, end it within about a second, with a checkpoint from which the next call
    continues. ``classifier`` measures the generator; it is None for a worker that is not the chief. Returns the
    networks, and the signal that stopped the run before its end, if one did.
    """
    trainer = Trainer(config, strategy)
    state = tf.train.Checkpoint(trainer=trainer)
    loop = trainer.loop(dataset.training[0])
    if latest := tf.train.latest_checkpoint(str(run / CHECKPOINTS)):
        _restore(state, latest)
    elif trainer.feature_discriminators:
        with ThreadPoolExecutor(1) as beside:  # XLA compiles for about as long as the feature networks learn.
            built = beside.submit(loop.build)
            trainer.feature_discriminators.prepare(*dataset.training)
        built.result()
    first_step = trainer.step
    if first_step > config.steps:
        raise ConfigError(f"steps: the run has {first_step} steps behind it already, more than {config.steps}")
    # Every worker takes part in writing a checkpoint, but only the chief's files count.
    run = run if is_chief() else scratch(run)
    checkpoints = tf.train.CheckpointManager(state, run / CHECKPOINTS, max_to_keep=3)
    (run / samples.SAMPLES).mkdir(parents=True, exist_ok=True)
    config.write(run)
    log = metrics.RunLog(run / metrics.METRICS_FILE, first_step)
    validation = Validation(dataset, classifier) if config.evaluate_every and classifier else None
    evaluations = metrics.RunLog(run / metrics.EVALUATIONS_FILE, first_step)
    pictured = samples.milestones(config)
    measured = _multiples(config.evaluate_every, config.steps)
    saved = _multiples(config.checkpoint_every, config.steps)
    step = first_step
    with _stop_signal() as stopped_by, task_bar("step", config.steps, first_step) as advance:
        for means in loop.run(first_step, sorted(pictured | measured | saved), lambda: bool(stopped_by)):
            for row in means:
                step += 1
                if step % config.log_every == 0 or step == config.steps:
                    log.append(step, config.epochs_at(step), dict(zip(METRICS, row.tolist(), strict=True)))
            g_loss, d_loss, real, fake = row
            losses = f"G {g_loss:.3f}  D {d_loss:.3f}  D right on real {real:4.0%}, on fake {fake:4.0%}"
            advance(len(means), f"epoch {config.epochs_at(step):6.2f}  {losses}")
            if step in measured or step in pictured:
                generator = trainer.averaged_generator()
            if step in pictured:
                samples.write_grid(run / samples.SAMPLES / f"step-{step:06}.png", generator)
            if validation and step in measured:
                validation.keep(run, evaluations, step, config.epochs_at(step), generator)
                metrics.plot(run, config.recipe.loss)
            if step in saved:
                checkpoints.save(step)
        stopped = bool(stopped_by) or step < config.steps
        if step not in saved:
            checkpoints.save(step)
        metrics.plot(run, config.recipe.loss)
    # Another worker's signal was SIGTERM, as far as one can tell.
    return trainer, (stopped_by or [signal.SIGTERM])[0] if stopped else None


def _multiples(every: int, steps: int) -> set[int]:
    """Every so many steps, and the last one; none for 0."""
    return {*range(every, steps, every), steps} if every else set()


def is_complete(config: TrainingConfig, run: Path) -> bool:
    """Whether the run's last checkpoint is that of the last step, so that there is nothing left to train."""
    latest = tf.train.latest_checkpoint(str(run / CHECKPOINTS))
    return latest is not None and latest.endswith(f"-{config.steps}")


def restore(config: TrainingConfig, run: Path, strategy: Any) -> Trainer:
    """Returns the networks of a run's last checkpoint. Raises ConfigError if there is none."""
    latest = tf.train.latest_checkpoint(str(run / CHECKPOINTS))
    if latest is None:
        raise ConfigError(f"{run} has no checkpoint yet")
    trainer = Trainer(config, strategy)
    _restore(tf.train.Checkpoint(trainer=trainer), latest)
    return trainer


def _restore(state: Any, checkpoint: str) -> None:
    try:
        state.restore(checkpoint).assert_consumed()
    except (tf.errors.OpError, IndexError, AssertionError) as error:
        names = Path(checkpoint).with_name("checkpoint")
        raise ConfigError(f"{checkpoint} is damaged, or of other networks; {names} may name an older one") from error


@contextmanager
def _stop_signal() -> Iterator[list[signal.Signals]]:
    """Notes the first SIGINT or SIGTERM in the list it yields; a second one has its ordinary effect."""
    noted: list[signal.Signals] = []
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}

    def note(number: int, _frame: object) -> None:
        noted.append(signal.Signals(number))
        for each, handler in before.items():
            signal.signal(each, handler)

    for number in before:
        signal.signal(number, note)
    try:
        yield noted
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
