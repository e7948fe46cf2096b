"""Milestones, pixels and logs."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from tests.training.test_config import CONFIG
from training.gan.networks import to_pixels
from training.run import metrics
from training.run.samples import milestones


def test_milestones_are_the_decks_and_then_epochs_thinned() -> None:
    config = replace(CONFIG, steps=CONFIG.step_of_epoch(30))
    epochs = [config.step_of_epoch(epoch) for epoch in (*range(5, 11), 15, 20, 25, 30)]
    assert sorted(milestones(config)) == [1, 200, 300, 600, 700, 900, 1000, *epochs]
    assert milestones(replace(CONFIG, steps=50)) == {1, 50}


def test_every_pixel_value_survives_the_way_there_and_back() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_pixels(values.astype(np.float32) / 127.5 - 1), values)

    # +1 is 255, not 0; beyond the ends is clamped; the middle, 127.5, rounds half to even.
    np.testing.assert_array_equal(to_pixels(np.array([-2, -1, 0, 1, 2], np.float32)), [0, 0, 128, 255, 255])


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / metrics.METRICS_FILE
    log = metrics.RunLog(path, first_step=0)
    for step in (10, 20, 30):
        log.append(step, step / 100, {"generator_loss": 0.7})
    with path.open("a") as file:
        file.write('{"step": 40, "ep')  # A crash cut this line short.
    assert [row["step"] for row in metrics.read_log(path)] == [10, 20, 30]
    metrics.RunLog(path, first_step=20)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]
