"""The models in the package, and a generator that tells a story besides."""

import base64
import io
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from PIL import Image

from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from training.publish.signatures import story_signature


def story() -> dict[str, Any]:
    """A story of three milestones, the digits of which are of one shade each: 50, 100, 150."""
    steps = list(range(10, 1001, 10))
    return {
        "run": {
            "preset": "best",
            "loss": "relativistic",
            "steps": 1000,
            "epochs": 2.5,
            "batch_size": 128,
            "images": 55_000,
            "chosen_step": 1000,
        },
        "seeds": 64,
        "milestones": [
            {"step": step, "epoch": step / 400, "stage": stage, "legible": legible, "png": _png(shade)}
            for step, stage, legible, shade in (
                (1, "noise", 0.0, 50),
                (200, "patterns", 0.4, 100),
                (1000, "mature", 0.9, 150),
            )
        ],
        "log": {
            "step": steps,
            "generator_loss": [1 - step / 4000 for step in steps],
            "discriminator_loss": [0.5 + step / 8000 for step in steps],
            "accuracy_real": [0.8] * len(steps),
            "accuracy_fake": [0.7] * len(steps),
        },
        "guessing": {"generator_loss": 0.69315, "discriminator_loss": 0.69315},
        "stability": {"state": "stable", "words": "Both losses were flat."},
        "evaluations": [
            {"step": 500, "epoch": 1.25, "frechet_distance": 12.5, "legible": 0.5, "coverage": 0.25},
            {"step": 1000, "epoch": 2.5, "frechet_distance": 6.5, "legible": 0.9, "coverage": 0.75},
        ],
    }


def _png(shade: int) -> str:
    file = io.BytesIO()
    Image.fromarray(np.full((224, 224), shade, np.uint8)).save(file, "PNG")
    return base64.b64encode(file.getvalue()).decode()


def save_again(version: Path, target: Path, **signatures: Any) -> None:
    """Loads the SavedModel in a version directory and saves it, with more ``signatures``, in ``target``."""
    module = tf.Module()
    module.saved = tf.saved_model.load(str(version))
    tf.saved_model.save(module, str(target), signatures={**module.saved.signatures, **signatures})


def save(models: Path, content: bytes | None = None) -> None:
    """Copies the package's models to ``models``; the generator gets a story, by default :func:`story`."""
    shutil.copytree(MODELS_DIR, models, ignore=shutil.ignore_patterns(GENERATOR))
    told = story_signature(content or json.dumps(story()).encode()).graph
    save_again(MODELS_DIR / GENERATOR / "1", models / GENERATOR / "1", story=told)
