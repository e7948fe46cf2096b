"""The pretrained models that ship with the package, in TensorFlow Serving's layout."""

from pathlib import Path
from typing import Final

MODELS_DIR: Final = Path(__file__).parent
"""The base directory: ``MODELS_DIR/generator/1/saved_model.pb`` and so on."""
