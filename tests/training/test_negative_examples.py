"""Negative examples: each kind is what its name says, and none is a real digit."""

import numpy as np

from tests.support.pictures import Handwritten
from training.evaluation.negative_examples import NEGATIVE_EXAMPLES, TURNS, mixed


def test_the_kinds_are_what_their_names_say(handwritten: Handwritten) -> None:
    images = handwritten[0][:80]
    made = {name: make(images, np.random.default_rng(0)) for name, make in NEGATIVE_EXAMPLES.items()}
    for name, others in made.items():
        assert (others.shape, others.dtype) == (images.shape, images.dtype), name
        assert not (others == images).all((1, 2)).any() or name in ("mirrored", "upside_down"), name
    assert {0, 255} < set(made["blank"][:, 0, 0].tolist())
    assert (np.sort(made["shuffled"].reshape(80, -1)) == np.sort(images.reshape(80, -1))).all()
    assert (made["mirrored"][0] == images[0, :, ::-1]).all()
    assert (made["upside_down"][0] == images[0, ::-1]).all()
    for image, moved in zip(images, made["shifted"], strict=True):
        assert any(
            (np.pad(image, 8)[8 - down :, 8 - right :][:28, :28] == moved).all()
            for down in range(-8, 9)
            for right in range(-8, 9)
            if max(abs(down), abs(right)) >= 4
        )


def test_a_mixture_holds_no_real_digit(handwritten: Handwritten) -> None:
    images, labels = handwritten
    order = np.random.default_rng(1).permutation(len(images))
    made = mixed(images[order], labels[order], np.random.default_rng(0))
    assert (made.shape, made.dtype) == (images.shape, images.dtype)
    known = {image.tobytes() for image in images}
    same = [position for position, image in enumerate(made) if image.tobytes() in known]
    assert len(same) < 10, "only a mixture of two digits may be a digit, by chance"
    assert {TURNS[position % len(TURNS)] for position in same} <= {"overlaid", "half_and_half"}
    upside_down = {image[::-1].tobytes() for image in images}
    assert 0.1 < np.mean([image.tobytes() in upside_down for image in made]) < 0.2
    np.testing.assert_array_equal(made, mixed(images[order], labels[order], np.random.default_rng(0)))
    assert mixed(images[:3], labels[:3], np.random.default_rng(0)).shape == (3, 28, 28)
