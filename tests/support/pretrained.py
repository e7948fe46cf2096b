"""The versions of the pretrained models."""

from pathlib import Path
from typing import Final

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR
from serving.pretrained import MODELS_DIR

VERSIONS: Final = {GENERATOR: 3, DISCRIMINATOR: 4, CLASSIFIER: 1}


def pretrained(model: str) -> Path:
    """Returns the version directory of a model."""
    return MODELS_DIR / model / str(VERSIONS[model])
