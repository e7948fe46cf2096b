"""Convolutions as matrix products: strides taken apart into phases, and transforms to the frequency domain and back.

A 5×5 kernel on a 7×7 map takes 25 products for each output and pair of channels, a third of them with padding. By the
convolution theorem (for networks: Mathieu, Henaff & LeCun 2014) it takes one complex product for each frequency
instead, and a real 9×9 map has 41 of them, the others being their mirror images. The transforms are so short that they
are plain matrix products.
"""

from collections.abc import Iterator
from functools import cache
from typing import Any, Final

import numpy as np
import tensorflow as tf
from numpy.typing import NDArray

Matrix = NDArray[np.float64]
STRIDE: Final = 2


def split_phases(kernel: Any) -> Any:
    """Cuts a kernel for stride 2 into those for stride 1 between the four phases of the larger map and the smaller one.

    "Same" padding puts one pixel more after the larger map than before it, which zeros before the kernel even out.

    Args:
        kernel: float [k, k, a, b], k odd.

    Returns:
        float [(k+1)/2, (k+1)/2, 4·a, b].
    """
    side, _, a, b = kernel.shape
    taps = (side + 1) // STRIDE
    split = tf.reshape(tf.pad(kernel, [[1, 0], [1, 0], [0, 0], [0, 0]]), [taps, STRIDE, taps, STRIDE, a, b])
    return tf.reshape(tf.transpose(split, [0, 2, 1, 3, 4, 5]), [taps, taps, STRIDE**2 * a, b])


@cache
def three_product_transforms(side: int, taps: int, transposed: bool) -> tuple[Matrix, Matrix, Matrix]:
    """The stride-1 convolution with "same" padding, with three real products for each frequency (Gauss).

    It is of_map @ x times of_kernel @ kernel, elementwise, and ``back`` of that. With x = a + bi and k = c + di,
    (a + b) · c, b · (c + d) and a · (d - c) give the product's real part, first less second, and its imaginary part,
    first plus third. Frequencies that are their own conjugates have no imaginary part and take one product.

    Args:
        side: of the map.
        taps: of the kernel; odd.
        transposed: whether it is the transposed convolution.

    Returns:
        float64 [products, side²], [products, taps²] and [side², products].
    """
    of_map, of_kernel, back = [], [], []
    for own_conjugate, (a, b), (c, d), (real, imaginary) in _frequencies(side, taps, transposed):
        if own_conjugate:
            of_map += [a]
            of_kernel += [c]
            back += [real]
        else:
            of_map += [a + b, b, a]
            of_kernel += [c, c + d, d - c]
            back += [2 * (real + imaginary), -2 * real, 2 * imaginary]
    return np.array(of_map), np.array(of_kernel), np.array(back).T.copy()


@cache
def four_product_transforms(side: int, taps: int, transposed: bool) -> tuple[Matrix, Matrix, Matrix]:
    """The same convolution with four real products for each frequency, which share their operands.

    That is a third more products than Gauss's three, and a third less of the kernel to read from memory. Each frequency
    has two rows of the map's transform, a and b, and two of the kernel's, c and d; every row of the one is multiplied
    with both of the other. Frequencies that are their own conjugates share two rows between two of them.

    Returns:
        float64 [2·frequencies, side²], [2·frequencies, taps²] and [side², 4·frequencies], the products' order being
        frequency, row of the kernel's transform, row of the map's.
    """
    of_map, of_kernel, back = [], [], []
    alone = []
    for own_conjugate, (a, b), (c, d), (real, imaginary) in _frequencies(side, taps, transposed):
        if own_conjugate:
            alone += [(a, c, real)]
        else:
            of_map += [a, b]
            of_kernel += [c, d]
            back += [2 * real, 2 * imaginary, 2 * imaginary, -2 * real]
    if len(alone) % 2:
        alone += [tuple(np.zeros_like(each) for each in alone[0])]
    for (a, c, real), (b, d, other_real) in zip(alone[::2], alone[1::2], strict=True):
        of_map += [a, b]
        of_kernel += [c, d]
        back += [real, 0 * real, 0 * real, other_real]
    return np.array(of_map), np.array(of_kernel), np.array(back).T.copy()


def _frequencies(side: int, taps: int, transposed: bool) -> Iterator[tuple[bool, Any, Any, Any]]:
    """The discrete Fourier transforms' frequencies, one of each conjugate pair, for maps and kernels that are real.

    Their length leaves a map's padding out of reach of the circular convolution.

    Yields:
        Whether the frequency is its own conjugate, and the real and the imaginary part of its row for the map, of that
        for the kernel, and of its column for the way back.
    """
    half = taps // 2
    length = side + half
    # What Keras calls a convolution is a correlation; its transposed convolution is one in the textbook's sense.
    offsets = np.arange(taps) - half if transposed else half - np.arange(taps)
    for u in range(length):
        for v in range(length):
            conjugate = (-u % length, -v % length)
            if (u, v) <= conjugate:
                of_map = _wave(u, v, np.arange(side), length)
                back = (of_map[0] / length**2, of_map[1] / length**2)
                yield (u, v) == conjugate, of_map, _wave(u, v, offsets, length), back


def _wave(u: int, v: int, positions: NDArray[np.int64], length: int) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Real and imaginary part of exp(-2πi (u·y + v·x) / length) over a square of positions: float64 [positions²]."""
    angles = 2 * np.pi * (u * positions[:, None] + v * positions).ravel() / length
    return np.cos(angles), -np.sin(angles)
