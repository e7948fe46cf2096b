"""Paths through noise: from point to point along straight lines or arcs.

Normal noise of many dimensions lies near a sphere. A straight line between two points leaves the sphere, so the
generator gets lengths that it was not trained on, and its digits become pale. An arc stays on the sphere (White 2016,
"Sampling Generative Networks", section 2.1; formula: Shoemake 1985, "Animating Rotation with Quaternion Curves").
"""

from collections.abc import Callable
from typing import Any, Final, Literal

import numpy as np
from numpy.typing import NDArray

Noise = NDArray[np.float32]
Method = Literal["slerp", "lerp"]

_LARGEST: Final = float(np.finfo(np.float32).max)
"""Points of an arc can be greater than its ends, and too great for float32."""

_LEAST_SINE: Final = 1e-6
"""Below this, float32 does not distinguish the angle from 0 or 180 degrees, where no single arc connects the ends."""


def lerp(start: Noise, end: Noise, shares: NDArray[Any]) -> Noise:
    """Returns the points at ``shares`` (0 to 1, [N]) of the straight line between two, float32 [D]: float32 [N, D]."""
    share = shares[:, np.newaxis].astype(np.float64)
    return np.asarray((1 - share) * start + share * end, np.float32)


def slerp(start: Noise, end: Noise, shares: NDArray[Any]) -> Noise:
    """Returns the points at ``shares`` (0 to 1, [N]) of the arc between two, float32 [D]: float32 [N, D].

    The lengths of the ends are blended. Where there is not exactly one arc (the ends are parallel or opposite, or one
    is zero), it is the straight line.
    """
    ends = np.stack([start, end]).astype(np.float64)
    lengths = np.linalg.norm(ends, axis=1)
    if not lengths.all():
        return lerp(start, end, shares)
    directions = ends / lengths[:, np.newaxis]
    angle = np.arccos(np.clip(directions[0] @ directions[1], -1, 1))
    if np.sin(angle) < _LEAST_SINE:
        return lerp(start, end, shares)
    share = shares[:, np.newaxis].astype(np.float64)
    weights = np.sin((1 - share) * angle), np.sin(share * angle)
    arc = (weights[0] * ends[0] + weights[1] * ends[1]) / np.sin(angle)
    return np.asarray(np.clip(arc, -_LARGEST, _LARGEST), np.float32)


METHODS: Final[dict[Method, Callable[[Noise, Noise, NDArray[Any]], Noise]]] = {"slerp": slerp, "lerp": lerp}


def length(points: int, steps: int, loop: bool) -> int:
    """Returns how many points :func:`path` gives."""
    return points * steps if loop else (points - 1) * steps + 1


def path(points: Noise, steps: int, method: Method, loop: bool) -> Noise:
    """Returns a path through all ``points``, float32 [K ≥ 2, D]: float32 [length(K, steps, loop), D].

    There are ``steps`` ≥ 1 from each point to the next one. A ``loop`` continues from the last point to the first,
    which is not repeated.
    """
    shares = np.arange(steps) / steps
    starts = points if loop else points[:-1]
    legs = [
        METHODS[method](start, end, shares) for start, end in zip(starts, np.roll(points, -1, axis=0), strict=False)
    ]
    return np.concatenate(legs if loop else [*legs, points[-1:]])
