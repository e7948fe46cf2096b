"""From a seed to its noise: 100 standard normal numbers, the same bits on every machine and release.

``docs/seeds.md`` specifies the four steps: words of Philox4x64-10, probabilities, their normal quantiles by AS 241
(Wichura 1988, routine PPND16), and rounding to float32. They use only operations that IEEE 754 defines to the last bit.
So the logarithm is computed here: those of C libraries and of NumPy's vector code differ between machines.
"""

import threading
from collections.abc import Sequence
from typing import Any, Final

import numpy as np
from numpy.polynomial.polynomial import polyval
from numpy.typing import NDArray

from serving.contract import MAX_SEED, NOISE_DIM

_Float64s = NDArray[np.float64]

_SPLIT: Final = 0.425
"""PPND16 treats |u − 1/2| up to here as the centre, and the rest as tails."""

_SPLIT_SQUARED: Final = 0.180625  # not _SPLIT * _SPLIT, which rounds to its neighbour


_CENTRE: Final = np.array(
    [
        (3.3871328727963666080e0, 1.0),
        (1.3314166789178437745e2, 4.2313330701600911252e1),
        (1.9715909503065514427e3, 6.8718700749205790830e2),
        (1.3731693765509461125e4, 5.3941960214247511077e3),
        (4.5921953931549871457e4, 2.1213794301586595867e4),
        (6.7265770927008700853e4, 3.9307895800092710610e4),
        (3.3430575583588128105e4, 2.8729085735721942674e4),
        (2.5090809287301226727e3, 5.2264952788528545610e3),
    ]
)
"""The coefficients of a numerator and its denominator, from the power 0 upwards."""
_TAIL: Final = np.array(
    [
        (1.42343711074968357734e0, 1.0),
        (4.63033784615654529590e0, 2.05319162663775882187e0),
        (5.76949722146069140550e0, 1.67638483018380384940e0),
        (3.64784832476320460504e0, 6.89767334985100004550e-1),
        (1.27045825245236838258e0, 1.48103976427480074590e-1),
        (2.41780725177450611770e-1, 1.51986665636164571966e-2),
        (2.27238449892691845833e-2, 5.47593808499534494600e-4),
        (7.74545014278341407640e-4, 1.05075007164441684324e-9),
    ]
)
_FAR_TAIL: Final = np.array(
    [
        (6.65790464350110377720e0, 1.0),
        (5.46378491116411436990e0, 5.99832206555887937690e-1),
        (1.78482653991729133580e0, 1.36929880922735805310e-1),
        (2.96560571828504891230e-1, 1.48753612908506148525e-2),
        (2.65321895265761230930e-2, 7.86869131145613259100e-4),
        (1.24266094738807843860e-3, 1.84631831751005468180e-5),
        (2.71155556874348757815e-5, 1.42151175831644588870e-7),
        (2.01033439929228813265e-7, 2.04426310338993978564e-15),
    ]
)

_SQRT_HALF: Final = 0.7071067811865476
_LN_2: Final = 0.6931471805599453
_ATANH: Final = tuple(1.0 / (2 * i + 1) for i in range(12))
"""atanh(s)/s = 1 + s²/3 + s⁴/5 + …; with |s| ≤ 0.172 the first term left out is below 10^-19."""


class _Philox(threading.local):
    """A thread's own generator: setting its state takes an eighth of the time of constructing one for each seed."""

    def __init__(self) -> None:
        self.generator = np.random.Philox(key=0)
        self.start: Any = self.generator.state
        self.key = self.start["state"]["key"]


_PHILOX: Final = _Philox()


def noise_from_seeds(seeds: Sequence[int]) -> NDArray[np.float32]:
    """Returns the noise of each seed: float32 [N, 100], standard normal.

    A row depends on its own seed only, not on its batch. Any number of threads may call this.

    Raises ValueError, naming position and value, for a seed that isn't an integer from 0 to 2^53 − 1.
    """
    words = np.empty((len(seeds), NOISE_DIM), np.uint64)
    philox, start, key = _PHILOX.generator, _PHILOX.start, _PHILOX.key
    for position, seed in enumerate(seeds):
        if type(seed) is not int or not 0 <= seed <= MAX_SEED:
            raise ValueError(f"seed {position}: {seed!r} is not an integer from 0 to {MAX_SEED}")
        key[0] = seed
        philox.state = start
        words[position] = philox.random_raw(NOISE_DIM)
    return _normal(words).astype(np.float32)


def _normal(words: NDArray[np.uint64]) -> _Float64s:
    """Returns a standard normal number for each 64-bit word, in the same shape."""
    # q = u − 1/2 is exact, while u itself would round to 1 for the largest words.
    q = (((words >> np.uint64(11)).astype(np.int64) - 2**52) + 0.5) * 2.0**-53
    z = np.empty_like(q)
    in_tail = np.abs(q) > _SPLIT
    centre, tail = q[~in_tail], q[in_tail]
    z[~in_tail] = centre * np.divide(*polyval(_SPLIT_SQUARED - centre * centre, _CENTRE))
    r = np.sqrt(-_log(0.5 - np.abs(tail)))
    magnitude = np.divide(*polyval(r - 1.6, _TAIL))
    far = r > 5.0  # about one number in 36 billion
    if far.any():
        magnitude[far] = np.divide(*polyval(r[far] - 5.0, _FAR_TAIL))
    z[in_tail] = np.copysign(magnitude, tail)
    return z


def _log(x: _Float64s) -> _Float64s:
    """Returns the natural logarithm of positive numbers, to 1 or 2 units in the last place."""
    m, e = np.frexp(x)
    low = m < _SQRT_HALF
    m = np.where(low, m * 2, m)
    e = e - low
    s = (m - 1) / (m + 1)
    logarithm: _Float64s = e * _LN_2 + 2 * s * polyval(s * s, _ATANH)
    return logarithm
