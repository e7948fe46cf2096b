"""The story of a run, from pictures and logs as a run writes them: small, complete, and what the run says."""

import base64
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.support.pictures import Handwritten, Pixels, pixels_of
from tests.training.test_config import CONFIG
from training.config import METRICS
from training.report.story import FRAME_MS, LAST_FRAME_MS, build_story, caption, encode, stage, time_lapse
from training.run import samples
from training.run.metrics import EVALUATIONS_FILE, METRICS_FILE, POINTS, RunLog, read_log, thinned

STEPS = (1, 200, 1000)
EVALUATION = {"step": 500, "epoch": 5.0, "frechet_distance": 80.0, "legible": math.nan, "reference": {"legible": 1}}


def write_run(run: Path, *grids: Pixels, evaluations: Iterable[Mapping[str, Any]] = (EVALUATION,)) -> None:
    """Writes the pictures, log and evaluations of a run with milestones after STEPS."""
    (run / "samples").mkdir(parents=True)
    for step, digits in zip(STEPS, grids, strict=True):
        picture = samples.png_of(samples.enlarged(samples.sheet(digits, 8)))
        (run / "samples" / f"step-{step:06}.png").write_bytes(picture)
    log = RunLog(run / METRICS_FILE, 0)
    for step in range(10, 1001, 10):
        log.append(step, step / 100, dict(zip(METRICS, (0.9, 1.2, 0.7, 0.6), strict=True)))
    (run / EVALUATIONS_FILE).write_text("".join(json.dumps(each) + "\n" for each in evaluations))


def brightness(images: Pixels) -> NDArray[np.float64]:
    """Reads digits: sure of images with bright ink in them, of noise too, unsure of all others."""
    sure = images.max(axis=(1, 2)) > 200
    probabilities = np.full((len(images), 10), 0.1)
    probabilities[sure] = np.eye(10)[3]
    return probabilities


@pytest.fixture(scope="module")
def run(handwritten: Handwritten, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose pictures go from noise by dim digits to bright ones."""
    run = tmp_path_factory.mktemp("runs") / "run"
    digits = handwritten[0][:64]
    noise = np.random.default_rng(0).integers(0, 256, digits.shape, np.uint8)
    write_run(run, noise, digits // 2, digits)
    return run


@pytest.fixture(scope="module")
def story(run: Path) -> dict[str, Any]:
    return build_story(run, CONFIG, brightness, {"step": 500})


def test_the_story_is_what_the_run_says(story: dict[str, Any], handwritten: Handwritten) -> None:
    assert (story["run"]["steps"], story["run"]["chosen_step"]) == (1000, 500)
    stages = [(each["step"], each["stage"]) for each in story["milestones"]]
    assert stages == [(1, "noise"), (200, "first shapes"), (1000, "mature")]
    assert [caption(milestone)[:8] for milestone in story["milestones"][::2]] == ["noise", "mature, "]
    grid = pixels_of(base64.b64decode(story["milestones"][2]["png"]))
    assert grid.shape == (224, 224)
    np.testing.assert_array_equal(grid[28:56, :28], handwritten[0][8])
    assert story["guessing"] == {"generator_loss": 0.69315, "discriminator_loss": 1.3863}
    assert story["stability"]["state"] == "stable"
    evaluation = {"step": 500, "epoch": 5.0, "frechet_distance": 80.0, "legible": None}
    assert json.loads(encode(story)) == story | {"evaluations": [evaluation]}


@pytest.mark.parametrize(
    ("background", "legible", "name"),
    [
        (0.07, 1.0, "noise"),  # A classifier may be sure of noise.
        (0.8, 0.0, "first shapes"),
        (0.8, 0.2, "patterns"),
        (0.8, 0.5, "sharper"),
        (0.8, 0.8, "mature"),
    ],
)
def test_the_ends_of_the_stages(background: float, legible: float, name: str) -> None:
    assert stage(background, legible) == name


def test_the_time_lapse_shows_each_milestone_and_holds_the_last(story: dict[str, Any], run: Path) -> None:
    with Image.open(BytesIO(time_lapse(story))) as film:
        assert film.format == "PNG"
        assert film.n_frames == len(STEPS)  # type: ignore[attr-defined]
        assert film.info["loop"] == 0
        durations = []
        for frame, step in enumerate(STEPS):
            film.seek(frame)
            durations.append(film.info["duration"])
            digits = samples.read_grid(run / "samples" / f"step-{step:06}.png")
            np.testing.assert_array_equal(np.asarray(film.convert("L"))[:56:2, :56:2], digits[0])
    assert durations == [FRAME_MS, FRAME_MS, LAST_FRAME_MS]


def test_milestones_are_the_decks_and_then_epochs_thinned() -> None:
    config = replace(CONFIG, steps=CONFIG.step_of_epoch(30))
    epochs = [config.step_of_epoch(epoch) for epoch in (*range(5, 11), 15, 20, 25, 30)]
    assert sorted(samples.milestones(config)) == [1, 200, 300, 600, 700, 900, 1000, *epochs]
    assert samples.milestones(replace(CONFIG, steps=50)) == {1, 50}


def test_an_empty_run_has_a_story_too(tmp_path: Path) -> None:
    story = build_story(tmp_path, CONFIG, brightness)
    assert (story["milestones"], story["evaluations"], story["log"]["step"]) == ([], [], [])
    assert story["stability"]["state"] == "unclear"
    assert json.loads(encode(story)) == story


def test_a_long_log_is_thinned_to_means_with_more_of_the_early_steps_and_a_short_one_is_kept_whole() -> None:
    log = thinned([{"step": step, **dict.fromkeys(METRICS, float(step))} for step in range(1, 20_001)])
    assert len(log["step"]) <= POINTS
    assert log["generator_loss"] == log["step"]  # The means are those of the same lines.
    steps = np.array(log["step"], np.float64)
    assert (np.diff(steps) > 0).all()
    assert (steps < 5000).sum() == pytest.approx(len(steps) / 2, rel=0.05)
    losses = {10: 0.5, 20: math.nan, 30: 0.25}
    rows = [{"step": step, **dict.fromkeys(METRICS, loss)} for step, loss in losses.items()]
    assert thinned(rows)["generator_loss"] == [0.5, None, 0.25]
    assert thinned([])["step"] == []


def test_a_resumed_log_drops_what_will_be_written_again(tmp_path: Path) -> None:
    path = tmp_path / METRICS_FILE
    log = RunLog(path, first_step=0)
    for step in (10, 20, 30):
        log.append(step, step / 100, {"generator_loss": 0.7})
    with path.open("ab") as file:
        file.write(b'{"step": 40, "\xff')  # A crash cut this line short.
    assert [row["step"] for row in read_log(path)] == [10, 20, 30]
    RunLog(path, first_step=20)
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [10, 20]
