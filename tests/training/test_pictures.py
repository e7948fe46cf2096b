"""Milestones, pixels and plots."""

import json
from pathlib import Path

import numpy as np
from PIL import Image

from tests.training.test_config import CONFIG
from training.config import METRICS
from training.gan.networks import build_generator
from training.pixels import to_pixels
from training.run import metrics, samples
from training.run.milestones import milestones


def test_milestones_are_the_decks_and_then_epochs_thinned() -> None:
    config = CONFIG.lengthened(CONFIG.step_of_epoch(30))
    epochs = [config.step_of_epoch(epoch) for epoch in (*range(5, 11), 15, 20, 25, 30)]
    assert sorted(milestones(config)) == [1, 200, 300, 600, 700, 900, 1000, *epochs]


def test_a_short_run_is_pictured_at_its_end() -> None:
    assert milestones(CONFIG.lengthened(50)) == {1, 50}


def test_every_pixel_value_survives_the_way_there_and_back() -> None:
    values = np.arange(256, dtype=np.uint8)
    np.testing.assert_array_equal(to_pixels(values.astype(np.float32) / 127.5 - 1), values)


def test_the_ends_and_the_middle_of_the_range() -> None:
    """+1 is 255, not 0; beyond the ends is clamped; the middle, 127.5, rounds half to even."""
    np.testing.assert_array_equal(to_pixels(np.array([-2, -1, 0, 1, 2], np.float32)), [0, 0, 128, 255, 255])


def test_a_grid_shows_64_seeds_at_twice_their_size(tmp_path: Path) -> None:
    samples.write_grid(tmp_path / "grid.png", build_generator())
    with Image.open(tmp_path / "grid.png") as grid:
        assert (grid.mode, grid.size) == ("L", (448, 448))


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / metrics.METRICS_FILE
    log = metrics.RunLog(path, first_step=0)
    for step in (10, 20, 30):
        log.append(step, step / 100, {"generator_loss": 0.7})
    with path.open("a") as file:
        file.write('{"step": 40, "ep')  # A crash cut this line short.
    assert [row["step"] for row in metrics.log_rows(tmp_path)] == [10, 20, 30]
    metrics.RunLog(path, first_step=20)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]


def test_the_plot_is_a_picture(tmp_path: Path) -> None:
    log = metrics.RunLog(tmp_path / metrics.METRICS_FILE, first_step=0)
    for step in range(1, 6):
        log.append(step, step / 100, dict(zip(METRICS, (1 / step, 1 + 1 / step, 0.5, 0.6), strict=True)))
    metrics.plot(tmp_path, "relativistic")
    with Image.open(tmp_path / "losses.png") as plot:
        assert plot.size == (960, 690)
        assert len(set(plot.convert("RGB").get_flattened_data())) > 50
