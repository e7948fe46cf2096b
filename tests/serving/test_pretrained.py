"""What ships is what was trained: whole, and as long as it says."""

import numpy as np
import pytest
import tensorflow as tf

from benchmarks.peers.model import weights
from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, IMAGES, MODELS, SIGNATURE
from serving.noise import noise_from_seeds
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card, verify
from tests.pixels import assert_same_pixels
from training.config import DEFAULT_PRESET
from training.gan.networks import LEAK


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_files_are_those_of_the_model_card(name: str) -> None:
    version = MODELS_DIR / name / "1"
    verify(version)
    named = set(read_card(version)["files"]) | {"model.json"}
    assert {path.relative_to(version).as_posix() for path in version.rglob("*") if path.is_file()} == named


def test_the_shipped_classifier_reads_mnists_test_images() -> None:
    card = read_card(MODELS_DIR / CLASSIFIER / "1")
    assert card["training"]["images"] == 55_000
    assert card["test"]["images"] == 10_000
    assert card["test"]["accuracy"] > 0.994
    assert card["test"]["expected_calibration_error"] < 0.01


@pytest.mark.parametrize("name", [GENERATOR, DISCRIMINATOR])
def test_the_shipped_models_are_of_one_long_run_of_the_default_preset(name: str) -> None:
    training = read_card(MODELS_DIR / name / "1")["training"]
    assert training["preset"] == DEFAULT_PRESET
    assert training["images"] == 55_000
    assert training["steps"] >= 15_000


def test_the_shipped_generator_is_measured_and_its_seeds_are_known() -> None:
    card = read_card(MODELS_DIR / GENERATOR / "1")
    evaluation = card["evaluation"]
    assert evaluation["images"] == 10_000
    figures, reference = evaluation["figures"], evaluation["reference"]
    assert figures["frechet_distance"] < 2.5 * reference["frechet_distance"]
    for name in ("precision", "recall", "density", "coverage"):
        assert figures[name] > 0.85 * reference[name]
    assert sum(card["seed_index"]["digits"]) == card["seed_index"]["seeds"] == 65_536


def test_the_shipped_discriminator_is_a_calibrated_detector() -> None:
    test = read_card(MODELS_DIR / DISCRIMINATOR / "1")["detector"]["test"]
    assert test["auc"] >= 0.95
    assert test["expected_calibration_error"] <= 0.03
    for kind in ("noise", "blank", "inverted", "shuffled"):
        assert test["kinds"][kind] >= 0.99


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
