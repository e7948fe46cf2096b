"""What the client's methods return."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Digits:
    """Generated digits, made by ``version`` of ``model``.

    ``pixels``: uint8 [N, 28·scale, 28·scale], 0 black and 255 white. ``seeds``: uint64 [N]; None for digits from noise.
    ``labels``: uint8 [N], 0 to 9, what the classifier reads; ``confidences``: float32 [N], its probability of that.
    Both are None unless labels were requested.
    """

    pixels: NDArray[np.uint8]
    seeds: NDArray[np.uint64] | None
    labels: NDArray[np.uint8] | None
    confidences: NDArray[np.float32] | None
    model: str
    version: int

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True, eq=False)
class LabelledDigits:
    """A part of a dataset, in the order of the seeds.

    ``pixels``, ``seeds``, ``labels`` and ``confidences`` are as those of ``Digits``. ``logits``: float32 [N], the
    discriminator's: the higher, the more real. ``versions``: the three models', by name.
    """

    pixels: NDArray[np.uint8]
    seeds: NDArray[np.uint64]
    labels: NDArray[np.uint8]
    confidences: NDArray[np.float32]
    logits: NDArray[np.float32]
    versions: dict[str, int]

    def __len__(self) -> int:
        return len(self.pixels)


@dataclass(frozen=True)
class Saved:
    """A file of digits, complete. ``model`` and ``version`` made them."""

    path: Path
    model: str
    version: int


@dataclass(frozen=True)
class Score:
    """What the discriminator thinks of one image.

    ``probability``: of being real, calibrated. ``logit``: the raw output, higher for real images. ``verdict``: "real"
    if the probability is above ½; None without ink. ``fitted``: whether the image was fitted into 28×28 pixels first.
    ``digit``: what the classifier reads, 0 to 9, with ``confidence``; None without ``labels``, or without ink.
    """

    probability: float
    logit: float
    verdict: Literal["real", "fake"] | None
    fitted: bool
    digit: int | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class Scores:
    """Scores, in the order of the images, by ``version`` of ``model``."""

    scores: tuple[Score, ...]
    model: str
    version: int

    def __len__(self) -> int:
        return len(self.scores)

    @property
    def probabilities(self) -> NDArray[np.float64]:
        """float64 [N]."""
        return np.array([score.probability for score in self.scores])

    @property
    def logits(self) -> NDArray[np.float64]:
        """float64 [N]."""
        return np.array([score.logit for score in self.scores])


@dataclass(frozen=True)
class ModelVersion:
    """One version of a model. ``card``: how it was made; None if the gateway doesn't show it."""

    version: int
    state: str
    card: dict[str, Any] | None


@dataclass(frozen=True)
class Model:
    """A model that the gateway needs, its versions newest first."""

    name: str
    versions: tuple[ModelVersion, ...]
