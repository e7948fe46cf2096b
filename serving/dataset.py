"""What a dataset of digits consists of: the record that it is sent as, and how many digits of each class it has."""

from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray

from serving.contract import CLASSES, IMAGE_SIDE

Records = NDArray[np.void]
"""Records, [N]: see ``record``."""

Balance = Literal["uniform", "mnist", "natural"]

CONFIDENCE_FLOOR: Final = 0.99
"""The least confidence of a digit in a dataset, unless the caller says otherwise."""

MNIST_CLASSES: Final = (5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949)
"""The training images of each digit in MNIST, 60,000 together (counted in LeCun, Cortes & Burges's label file)."""


def record(scale: int = 1) -> np.dtype[np.void]:
    """Returns the dtype of one digit of a dataset, its pixels enlarged: little-endian and without gaps.

    ``seed``; ``digit``, 0 to 9, as the classifier reads it; ``confidence``, the classifier's probability of that;
    ``logit``, the discriminator's (the higher, the more real); ``pixels``, uint8 [28·scale, 28·scale].
    """
    side = IMAGE_SIDE * scale
    return np.dtype(
        [("seed", "<u8"), ("digit", "u1"), ("confidence", "<f4"), ("logit", "<f4"), ("pixels", "u1", (side, side))]
    )


def quotas(count: int, balance: Balance) -> list[int] | None:
    """Returns how many of ``count`` digits each class has; None where that is left to the generator ("natural").

    Shares that don't come out even are rounded by the largest remainder, the smaller digit first.
    """
    if balance == "natural":
        return None
    weights = MNIST_CLASSES if balance == "mnist" else (1,) * CLASSES
    parts = [divmod(count * weight, sum(weights)) for weight in weights]
    found = [whole for whole, _ in parts]
    by_remainder = sorted(range(CLASSES), key=lambda digit: -parts[digit][1])
    for digit in by_remainder[: count - sum(found)]:
        found[digit] += 1
    return found
