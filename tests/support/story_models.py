"""The models in the package, and a generator with a story of its training."""

import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import tensorflow as tf

from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from tests.support.pretrained import pretrained
from tests.training.test_config import CONFIG
from tests.training.test_story import brightness, write_run
from training.publish.signatures import story_signature
from training.report.story import build_story, encode


def story() -> dict[str, Any]:
    """The story of a run whose milestones show noise, squares of the shade 100, and squares of the shade 250."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 28, 28), np.uint8)
    squares = np.zeros_like(noise)
    squares[:, 8:20, 8:20] = 1
    with TemporaryDirectory() as directory:
        run = Path(directory, "run")
        rows = ({"step": step, "epoch": step / 100, "legible": step / 1000, "coverage": 0.5} for step in (500, 1000))
        write_run(run, noise, squares * 100, squares * 250, evaluations=rows)
        return build_story(run, CONFIG, brightness, {"step": 1000})


def save_again(version: Path, target: Path, **signatures: Any) -> None:
    """Loads the SavedModel in a version directory and saves it, with more ``signatures``, in ``target``."""
    module = tf.Module()
    module.saved = tf.saved_model.load(str(version))
    tf.saved_model.save(module, str(target), signatures={**module.saved.signatures, **signatures})


def save(models: Path) -> None:
    """Copies the package's models to ``models``; the generator gets a story."""
    shutil.copytree(MODELS_DIR, models, ignore=shutil.ignore_patterns(GENERATOR))
    graph = story_signature(encode(story())).graph
    save_again(pretrained(GENERATOR), models / GENERATOR / "1", story=graph)
