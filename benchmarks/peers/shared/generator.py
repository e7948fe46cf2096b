"""The part that every peer has in common: seeds to noise, ONNX Runtime, pixels to PNG.

Written as anyone would: NumPy's own normal numbers, Pillow for the files.
"""

import base64
import io
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import onnxruntime
from PIL import Image


class Generator:
    """The plain network, on ONNX Runtime with its defaults."""

    def __init__(self) -> None:
        self._session = onnxruntime.InferenceSession(os.environ["GENERATOR_ONNX"], providers=["CPUExecutionProvider"])

    def images(self, seeds: Sequence[int]) -> Any:
        """Returns a digit for each seed: uint8 [N, 28, 28, 1]."""
        noise = np.stack([np.random.default_rng(seed).standard_normal(100, np.float32) for seed in seeds])
        return self._session.run(["images"], {"noise": noise})[0]

    def digits(self, seeds: Sequence[int]) -> list[str]:
        """Returns a digit for each seed as a PNG in base64."""
        return [base64.b64encode(png(image)).decode() for image in self.images(seeds)]


def png(image: Any) -> bytes:
    """Returns uint8 [28, 28, 1] as a PNG."""
    file = io.BytesIO()
    Image.fromarray(image[..., 0]).save(file, "PNG", compress_level=1)
    return file.getvalue()
