"""The embedded server's SavedModels beside TensorFlow, on the package's own models."""

from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from numpy.typing import NDArray

from serving.contract import GENERATOR, IMAGES, NOISE, PAGES, SEED_INDEX, SIGNATURE, SIGNATURES, STORY
from serving.model_server.saved_model import SavedModel, load
from serving.noise import noise_from_seeds
from tests.serving.model_server.saved_models import save_again
from tests.support.pretrained import pretrained

INPUTS = {
    NOISE: noise_from_seeds(range(1000)),
    IMAGES: np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8),
    PAGES: np.array([0, 1, 15, 16, 2**31 - 1, -1]),
}


@pytest.fixture(scope="module")
def generator() -> Iterator[SavedModel]:
    with closing(load(pretrained(GENERATOR))) as loaded:
        yield loaded


def draw(model: SavedModel, noise: NDArray[np.float32], size: int = 256) -> NDArray[np.uint8]:
    """Returns the images of ``noise``, computed in batches of ``size``."""
    batches = [{NOISE: noise[at : at + size]} for at in range(0, len(noise), size)]
    return np.concatenate([outputs[IMAGES] for outputs in model.run(SIGNATURE, *batches)])


@pytest.mark.parametrize(("name", "signature"), SIGNATURES)
def test_outputs_are_tensorflows_but_for_rounding(name: str, signature: str) -> None:
    inputs = {SIGNATURES[name, signature].input.name: INPUTS[SIGNATURES[name, signature].input.name]}
    with closing(load(pretrained(name))) as loaded:
        (ours,) = loaded.run(signature, inputs)
    saved = tf.saved_model.load(str(pretrained(name))).signatures[signature]
    theirs = saved(**{key: tf.constant(value) for key, value in inputs.items()})
    assert ours.keys() == theirs.keys()
    for output, found in ours.items():
        expected = theirs[output].numpy()
        assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
        if signature in (SEED_INDEX, STORY):
            np.testing.assert_array_equal(found, expected)
        elif name == GENERATOR:
            difference = np.abs(found.astype(int) - expected)
            assert difference.max() <= 1
            assert (difference > 0).sum() <= found.size / 20_000, "docs/seeds.md promises it"
        else:
            np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-3)


def test_pixels_are_the_same_to_the_bit_in_batches_of_one_size(generator: SavedModel) -> None:
    noise = noise_from_seeds(range(64))
    with closing(load(pretrained(GENERATOR))) as again:
        for size in (1, 8):
            np.testing.assert_array_equal(draw(generator, noise, size), draw(again, noise, size))
    shuffled = np.random.default_rng(0).permutation(64)
    np.testing.assert_array_equal(draw(generator, noise[shuffled], 8), draw(generator, noise, 8)[shuffled])


def test_a_model_that_was_loaded_and_saved_again_makes_the_same_pixels(tmp_path: Path, generator: SavedModel) -> None:
    """What is computed while it loads then lies in a call of a call."""
    save_again(pretrained(GENERATOR), tmp_path / "1")
    noise = noise_from_seeds(range(8))
    with closing(load(tmp_path / "1")) as again:
        np.testing.assert_array_equal(draw(again, noise), draw(generator, noise))
