"""The models that an evaluation measures: those of a run, or of a base directory."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving import contract
from serving.errors import UserError
from serving.noise import noise_from_seeds
from serving.storage import newest_version
from serving.versions.model_card import find_card
from training.config import CONFIG_FILE
from training.data import Images, in_batches

BATCH: Final = 256
MODELS: Final = "models"


class Source:
    """The newest generator and discriminator of a run or of a base directory of models (then ``run`` is None)."""

    def __init__(self, path: Path) -> None:
        """Loads the models. Raises UserError if there is no generator."""
        self.version_dir = find_generator(path)
        self.run = path if (path / CONFIG_FILE).is_file() else None
        training = find_card(self.version_dir).get("training") or {}
        self.facts = {  # What evaluation.json says of the generator.
            "kind": "run" if self.run else "models",
            "version": int(self.version_dir.name),
            "preset": training.get("preset"),
            "steps": training.get("steps"),
        }
        self._generator = _load(self.version_dir)
        discriminator = newest_version(self.version_dir.parents[1] / contract.DISCRIMINATOR)
        self._discriminator: Any = _load(discriminator) if discriminator else None
        self.has_score = discriminator is not None

    def generate(self, noise: NDArray[np.float32]) -> Images:
        """Generates images uint8 [N, 28, 28] from noise float32 [N, 100]."""
        images: Images = self._generator(noise)[contract.IMAGES].numpy()
        return images[..., 0]

    def images(self, count: int) -> Images:
        """Generates the images of the seeds 0 … count-1, uint8 [count, 28, 28]."""
        images: Images = in_batches(lambda seeds: self.generate(noise_from_seeds(seeds)), range(count), BATCH)
        return images

    def score(self, images: Images) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Computes logits and probabilities of being real, float32 [N] each, of images uint8 [N, 28, 28]."""
        outputs = in_batches(self._discriminator, images[..., None])
        return outputs[contract.LOGITS], outputs[contract.PROBABILITIES]


def find_generator(path: Path) -> Path:
    """Returns the version directory of the newest generator of a run or of a base directory, or raises UserError."""
    base = path / MODELS if (path / CONFIG_FILE).is_file() else path
    version_dir = newest_version(base / contract.GENERATOR)
    if version_dir is None:
        raise UserError(
            f"{base} holds no {contract.GENERATOR}/<version>. Name a base directory of models, or a run with models, "
            "which digitgan export RUN makes"
        )
    return version_dir


def _load(version_dir: Path) -> Callable[[Any], Any]:
    """Loads the serving signature of a SavedModel, as a function of an array."""
    import tensorflow as tf

    try:
        saved = tf.saved_model.load(str(version_dir))
    except OSError as error:
        raise UserError(f"{version_dir} holds no model that can be loaded: {error}") from error
    # Reading the signature from the model each time keeps the model, and so its variables.
    return lambda rows: saved.signatures[contract.SIGNATURE](tf.constant(rows))
