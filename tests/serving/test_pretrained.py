"""What ships is what was trained: whole, and as long as it says."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.peers.model import weights
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, MODELS, SIGNATURE
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card, verify
from serving.versions.quality_gate import Thresholds, shortfalls
from tests.support.pixels import assert_same_pixels
from training.config import DEFAULT_PRESET
from training.gan.networks import LEAK

RUN = {"training.images": {"min": 55_000}, "training.steps": {"min": 15_000}}
SHIPPED: dict[str, Thresholds] = {
    GENERATOR: {
        **RUN,
        "evaluation.images": {"min": 10_000},
        "evaluation.figures.frechet_distance": {"max": 0.33},
        "evaluation.figures.precision": {"min": 0.73},
        "evaluation.figures.recall": {"min": 0.76},
        "evaluation.figures.density": {"min": 0.78},
        "evaluation.figures.coverage": {"min": 0.81},
        "seed_index.seeds": {"min": 65_536},
    },
    DISCRIMINATOR: {
        **RUN,
        "detector.test.auc": {"min": 0.95},
        "detector.test.expected_calibration_error": {"max": 0.03},
        **{f"detector.test.kinds.{kind}": {"min": 0.99} for kind in ("noise", "blank", "inverted", "shuffled")},
    },
    CLASSIFIER: {
        "training.images": {"min": 55_000},
        "test.images": {"min": 10_000},
        "test.accuracy": {"min": 0.994},
        "test.expected_calibration_error": {"max": 0.01},
    },
}
"""What the models are, and how good: bounds of figures in their cards."""


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_files_are_those_of_the_model_card_which_says_how_good_they_are(name: str) -> None:
    version = MODELS_DIR / name / "1"
    verify(version)
    card = read_card(version)
    assert shortfalls(card, SHIPPED[name]) == []
    if name != CLASSIFIER:
        assert card["training"]["preset"] == DEFAULT_PRESET


def test_the_plain_network_that_benchmarks_give_to_other_servers_makes_the_same_pixels() -> None:
    version = MODELS_DIR / GENERATOR / "1"
    plain = {name: np.float32(values) for name, values in weights(version).items()}
    noise = noise_from_seeds(range(500))
    maps = tf.reshape(tf.nn.leaky_relu(noise @ plain["dense_kernel"] + plain["dense_bias"], LEAK), [-1, 7, 7, 256])
    for name, side, channels, stride in (("first", 7, 128, 1), ("second", 14, 64, 2)):
        maps = tf.nn.conv2d_transpose(maps, plain[f"{name}_kernel"], [500, side, side, channels], stride)
        maps = tf.nn.leaky_relu(maps + plain[f"{name}_bias"], LEAK)
    drawn = np.tanh(tf.nn.conv2d_transpose(maps, plain["last_kernel"], [500, 28, 28, 1], 2))
    served = tf.saved_model.load(str(version)).signatures[SIGNATURE](tf.constant(noise))[IMAGES]
    assert_same_pixels(served.numpy(), np.rint(drawn * 127.5 + 127.5))
