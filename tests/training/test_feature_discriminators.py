"""What the feature discriminators see: features of digit classifiers, all of about the same size."""

from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf

from tests.support.pictures import Handwritten
from training.config import PRESETS, TrainingConfig
from training.gan import feature_discriminators
from training.gan.feature_discriminators import FeatureDiscriminators


def test_features_are_centred_and_have_a_length_of_about_1(
    handwritten: Handwritten, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(feature_discriminators, "FEATURE_EPOCHS", 1)
    images, labels = handwritten
    recipe = replace(PRESETS["best"], batch_size=64)
    config = TrainingConfig("best", recipe, seed=0, steps=100, images=len(images), data="keras", data_sha256="")
    discriminators = FeatureDiscriminators(config)
    discriminators.prepare(images[:64], labels[:64])
    features = discriminators.features(tf.constant(images[:64, :, :, None] / np.float32(127.5) - 1))
    assert [each.shape[1] for each in features] == [4 * 4 * 128, 128, 128, 10]
    for each in features:
        assert 0.3 < float(tf.reduce_mean(tf.norm(each, axis=1))) < 3
        assert abs(float(tf.reduce_mean(each))) < 1e-3
