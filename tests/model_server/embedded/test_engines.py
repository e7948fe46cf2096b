"""The engines beside each other, on the package's own models."""

from collections.abc import Iterator
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from serving.contract import (
    CLASSIFIER,
    DISCRIMINATOR,
    FEATURES,
    GENERATOR,
    IMAGES,
    NOISE,
    PAGES,
    SEED_INDEX,
    SIGNATURE,
    STORY,
)
from serving.model_server.engines import Engine, loader
from serving.model_server.servable import Servable
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from tests.story_models import save_again

Loaded = dict[Engine, Servable]


@pytest.fixture(scope="module")
def models() -> Iterator[dict[str, Loaded]]:
    with ExitStack() as stack:
        yield {
            name: {engine: stack.enter_context(closing(loader(engine)(MODELS_DIR / name / "1"))) for engine in Engine}
            for name in (GENERATOR, DISCRIMINATOR, CLASSIFIER)
        }


def outputs(loaded: Loaded, signature: str, **inputs: NDArray[Any]) -> Iterator[tuple[str, NDArray[Any], NDArray[Any]]]:
    """Gives each output's name, and what OpenVINO and TensorFlow make of it."""
    ours, theirs = (loaded[engine].run(signature, inputs) for engine in (Engine.OPENVINO, Engine.TENSORFLOW))
    assert ours.keys() == theirs.keys()
    for name, found in ours.items():
        assert (found.dtype, found.shape) == (theirs[name].dtype, theirs[name].shape)
        yield name, found, theirs[name]


def test_pixels_are_the_same_but_where_rounding_tips(models: dict[str, Loaded]) -> None:
    """docs/seeds.md tells how often that is."""
    for _, ours, theirs in outputs(models[GENERATOR], SIGNATURE, **{NOISE: noise_from_seeds(range(256))}):
        difference = np.abs(ours.astype(int) - theirs)
        assert difference.max() <= 1
        assert (difference > 0).mean() < 1e-4


@pytest.mark.parametrize(
    ("name", "signature"), [(DISCRIMINATOR, SIGNATURE), (CLASSIFIER, SIGNATURE), (CLASSIFIER, FEATURES)]
)
def test_what_is_read_from_images_is_the_same_but_for_rounding(
    models: dict[str, Loaded], name: str, signature: str
) -> None:
    images = np.random.default_rng(0).integers(0, 256, (64, 28, 28, 1), np.uint8)
    for _, ours, theirs in outputs(models[name], signature, **{IMAGES: images}):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("signature", [SEED_INDEX, STORY])
def test_tables_are_the_same(models: dict[str, Loaded], signature: str) -> None:
    for _, ours, theirs in outputs(models[GENERATOR], signature, **{PAGES: np.array([0, 1, 15, 16, 2**31 - 1, -1])}):
        np.testing.assert_array_equal(ours, theirs)


def test_pixels_do_not_depend_on_the_number_of_threads() -> None:
    noise = noise_from_seeds(range(64))
    load = loader(Engine.OPENVINO)
    with closing(load(MODELS_DIR / GENERATOR / "1", 1)) as one, closing(load(MODELS_DIR / GENERATOR / "1", 2)) as two:
        alone, together = (each.run(SIGNATURE, {NOISE: noise})[IMAGES] for each in (one, two))
    np.testing.assert_array_equal(alone, together)


def test_a_model_that_was_loaded_and_saved_again_makes_the_same_pixels(tmp_path: Path) -> None:
    """What is computed while it loads then lies in a call of a call."""
    save_again(MODELS_DIR / GENERATOR / "1", tmp_path / "1")
    noise = noise_from_seeds(range(8))
    load = loader(Engine.OPENVINO)
    with closing(load(MODELS_DIR / GENERATOR / "1")) as first, closing(load(tmp_path / "1")) as again:
        ours, theirs = (each.run(SIGNATURE, {NOISE: noise})[IMAGES] for each in (first, again))
    np.testing.assert_array_equal(ours, theirs)
