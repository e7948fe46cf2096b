"""The average of a run's generators: of the last half, and with statistics of its own."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from serving.noise import noise_from_seeds
from tests.training.test_config import CONFIG as BASE
from training.config import PRESETS, ConfigError
from training.gan.networks import build_generator, write_weights
from training.run.metrics import EVALUATIONS_FILE, RunLog
from training.run.selection import GENERATORS, average_of, kept_generators

CONFIG = replace(BASE, recipe=replace(PRESETS["best"], batch_size=16))


def test_the_last_half_is_averaged_and_its_statistics_are_its_own(tmp_path: Path) -> None:
    networks = {step: build_generator() for step in (100, 200, 300, 400)}
    log = RunLog(tmp_path / EVALUATIONS_FILE, 0)
    (tmp_path / GENERATORS).mkdir()
    for step, network in networks.items():
        write_weights(tmp_path / GENERATORS / f"step-{step:06}.npz", network.get_weights())
        log.append(step, 1, {"frechet_distance": 1.0})
    generator, steps = average_of(kept_generators(tmp_path), CONFIG) or pytest.fail("no average")
    assert steps == [200, 300, 400]
    for index, weight in enumerate(generator.trainable_variables):
        mean = np.mean([networks[step].trainable_variables[index] for step in steps], axis=0)
        np.testing.assert_allclose(weight, mean, rtol=1e-5, atol=1e-7)
    # With statistics of its own, what it computes in training and in serving is nearly the same; with the networks'
    # initial ones, variance 1, it isn't.
    noise = noise_from_seeds(range(512))
    served, trained = (np.asarray(generator(noise, training=training)) for training in (False, True))
    assert np.abs(served - trained).mean() < 0.1 * np.abs(trained).mean()
    assert average_of({step: networks[step] for step in (100, 400)}, CONFIG) is None, "one alone has no average"
    # Without the weights of one, another one would be published in its place.
    last = tmp_path / GENERATORS / "step-000400.npz"
    missing = ": the weights of a generator that was measured"
    for spoil, words in ((lambda: last.write_bytes(b"PK"), " is damaged"), (last.unlink, missing)):
        spoil()
        with pytest.raises(ConfigError, match=rf"step-000400\.npz{words}"):
            kept_generators(tmp_path)
