"""XLA compiles the step of recipes without feature discriminators only."""

from dataclasses import replace

import pytest

from training.config import PRESETS, ConfigError, TrainingConfig


def test_xla_with_feature_discriminators_is_refused_at_once() -> None:
    config = TrainingConfig("best", PRESETS["best"], seed=0, steps=1, images=1, data="keras", data_sha256="")
    with pytest.raises(ConfigError, match="feature_weight=0"):
        replace(config, xla=True)
    replace(config, xla=True, recipe=replace(config.recipe, feature_weight=0.0))
