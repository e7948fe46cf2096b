"""A run's story as it is served with the generator: one JSON document, small enough to travel with every version.

``docs/story.md`` tells what is in it. It comes through the model server as the signature ``story``, in pages of bytes
(serving/contract.py), so whoever hosts the model needs no other file.
"""

import base64
import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray
from PIL import Image

from serving.contract import PAGES, STORY, STORY_BYTES, STORY_PAGE
from training.config import TrainingConfig
from training.metrics import METRICS, MetricsLog, loss_of
from training.samples import GRID_SIDE, sheet
from training.stability import guesses
from training.story import Milestone, Story

POINTS: Final = 400
"""At most so many points of the log are told."""
_DIGITS: Final = 5
"""Significant digits of a number in the document."""


def document(run: Path, config: TrainingConfig, story: Story, chosen_step: int | None) -> bytes:
    """Returns the document of a run, UTF-8.

    Args:
        run: the run directory.
        config: the run's.
        story: the run's story, with at least one milestone.
        chosen_step: the step whose generator is published; None: the last one's.
    """
    rows, loss = MetricsLog.rows(run), loss_of(run)
    generator_guess, discriminator_guess = guesses(loss)
    told = {
        "run": {
            "preset": config.preset,
            "loss": loss,
            "steps": story.milestones[-1].step,
            "epochs": _rounded(config.epochs_at(story.milestones[-1].step)),
            "batch_size": config.recipe.batch_size,
            "images": config.images,
            "chosen_step": chosen_step,
        },
        "seeds": GRID_SIDE**2,
        "milestones": [_milestone(each, config) for each in story.milestones],
        "log": thinned(rows),
        "guessing": {"generator_loss": _rounded(generator_guess), "discriminator_loss": _rounded(discriminator_guess)},
        "stability": _plain(asdict(story.stability)),
        "evaluations": [_plain({k: v for k, v in each.items() if k != "floor"}) for each in story.evaluations],
    }
    return json.dumps(told, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def thinned(rows: Sequence[Mapping[str, float]]) -> dict[str, list[float | None]]:
    """Returns a run's log by column, ``step`` and METRICS, in at most POINTS points.

    Each point is the mean of the lines in an interval. The intervals are equally long in the square root of the step,
    so that the early steps, where most happens, keep more points. A mean that is not finite is null.
    """
    if not rows:
        return {name: [] for name in ("step", *METRICS)}
    steps = np.array([row["step"] for row in rows], np.float64)
    place = np.sqrt(steps / steps[-1]) * POINTS
    _, starts = np.unique(np.minimum(place.astype(int), POINTS - 1), return_index=True)
    columns = {name: np.array([row[name] for row in rows], np.float64) for name in ("step", *METRICS)}
    counts = np.diff([*starts, len(rows)])
    return {
        name: [_rounded(float(mean)) for mean in np.add.reduceat(column, starts) / counts]
        for name, column in columns.items()
    }


def facts(story: bytes) -> dict[str, Any]:
    """What the model card tells of a story: its length and its SHA-256."""
    return {"bytes": len(story), "sha256": hashlib.sha256(story).hexdigest()}


def graph(story: bytes) -> Any:
    """The signature ``story`` as a tf.function (serving/contract.py tells what it takes and gives).

    Page numbers out of range are taken for the nearest page.
    """
    pages = -(-len(story) // STORY_PAGE)
    table: NDArray[np.uint8] = np.zeros(pages * STORY_PAGE, np.uint8)
    table[: len(story)] = np.frombuffer(story, np.uint8)
    paged = table.reshape(pages, STORY_PAGE)

    @tf.function(input_signature=[tf.TensorSpec([None], tf.int64, PAGES)])  # type: ignore[untyped-decorator]
    def tell(page_numbers: Any) -> dict[str, Any]:
        found = tf.clip_by_value(page_numbers, 0, pages - 1)
        return {STORY: tf.gather(tf.constant(paged), found), STORY_BYTES: tf.zeros_like(found) + len(story)}

    return tell


def _milestone(milestone: Milestone, config: TrainingConfig) -> dict[str, Any]:
    file = BytesIO()
    Image.fromarray(sheet(milestone.digits, GRID_SIDE)).save(file, "PNG", optimize=True)
    return {
        "step": milestone.step,
        "epoch": _rounded(config.epochs_at(milestone.step)),
        "stage": milestone.stage,
        "legible": milestone.legible,
        "png": base64.b64encode(file.getvalue()).decode(),
    }


def _plain(value: Any) -> Any:
    """Returns what JSON can hold: numbers rounded, those that are not finite as None."""
    if isinstance(value, Mapping):
        return {key: _plain(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(one) for one in value]
    return _rounded(value) if isinstance(value, float) else value


def _rounded(number: float) -> float | None:
    return float(f"{number:.{_DIGITS}g}") if math.isfinite(number) else None
