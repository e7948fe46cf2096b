"""Both ways through the frequency domain give the convolution itself."""

from typing import Any

import numpy as np
import pytest
from scipy.signal import correlate2d

from training.convolution import four_product_transforms, three_product_transforms

SIDE = 7


def direct(x: Any, kernel: Any, transposed: bool) -> Any:
    """The "same" convolution of one channel, from its definition: Keras's is a correlation."""
    return correlate2d(x, kernel[::-1, ::-1] if transposed else kernel, mode="same")


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("taps", [3, 5])
def test_products_of_transforms_are_the_convolution(taps: int, transposed: bool) -> None:
    rng = np.random.default_rng(0)
    x, kernel = rng.normal(size=(SIDE, SIDE)), rng.normal(size=(taps, taps))
    expected = direct(x, kernel, transposed).ravel()

    of_map, of_kernel, back = three_product_transforms(SIDE, taps, transposed)
    np.testing.assert_allclose(back @ ((of_map @ x.ravel()) * (of_kernel @ kernel.ravel())), expected, atol=1e-12)

    of_map, of_kernel, back = four_product_transforms(SIDE, taps, transposed)
    maps, kernels = (of_map @ x.ravel()).reshape(-1, 1, 2), (of_kernel @ kernel.ravel()).reshape(-1, 2, 1)
    np.testing.assert_allclose(back @ (maps * kernels).ravel(), expected, atol=1e-12)


def test_they_take_as_many_products_as_they_say() -> None:
    assert len(three_product_transforms(SIDE, 5, True)[0]) == 121
    assert len(four_product_transforms(SIDE, 5, True)[1]) == 82
    assert len(four_product_transforms(SIDE, 3, True)[1]) == 64
