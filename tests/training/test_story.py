"""A run's story, from pictures and logs as a run writes them."""

import json
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from training import samples
from training.metrics import MetricsLog
from training.story import (
    FRAME_MS,
    LAST_FRAME_MS,
    ROWS,
    Milestone,
    describe,
    main_milestones,
    stage,
    tell,
    write_story,
)

Images = NDArray[np.uint8]
STEPS = (1, 200, 1000)


class Network:
    """Makes given pixels of any noise, in -1 … 1, as a Keras generator does."""

    def __init__(self, digits: Images) -> None:
        self._digits = digits

    def __call__(self, noise: Any, training: bool) -> NDArray[np.float32]:
        assert not training
        return (self._digits[: len(noise), ..., None] / 127.5 - 1).astype(np.float32)


def brightness(images: Images) -> NDArray[np.float64]:
    """Reads digits: sure of images with bright ink in them, of noise too, unsure of all others."""
    sure = images.max(axis=(1, 2)) > 200
    probabilities = np.full((len(images), 10), 0.1)
    probabilities[sure] = np.eye(10)[3]
    return probabilities


@pytest.fixture
def run(handwritten: tuple[Images, NDArray[np.uint8]], tmp_path: Path) -> Path:
    """A run whose pictures go from noise by dim digits to bright ones."""
    (tmp_path / "samples").mkdir()
    digits = handwritten[0][:64]
    noise = np.random.default_rng(0).integers(0, 256, digits.shape, np.uint8)
    for step, images in zip(STEPS, (noise, digits // 2, digits), strict=True):
        samples.write_grid(tmp_path / "samples" / f"step-{step:06}.png", Network(images))
    log = MetricsLog(tmp_path, 0)
    for step in range(10, 1001, 10):
        log.append(step, step / 100, [0.9, 1.2, 0.7, 0.6])
    evaluation = {"step": 500, "epoch": 5.0, "frechet_distance": 80.0, "precision": 0.5, "legible": 0.3}
    (tmp_path / "evaluations.jsonl").write_text(json.dumps(evaluation) + "\n")
    return tmp_path


def test_a_grid_is_read_back_as_it_was_written(handwritten: tuple[Images, Any], tmp_path: Path) -> None:
    samples.write_grid(tmp_path / "grid.png", Network(handwritten[0]))
    np.testing.assert_array_equal(samples.read_grid(tmp_path / "grid.png"), handwritten[0][:64])


def test_the_stages_are_named_by_what_is_measured(run: Path) -> None:
    story = tell(run, brightness)
    assert [each.step for each in story.milestones] == list(STEPS)
    assert [each.stage for each in story.milestones][:2] == ["noise", "first shapes"]
    last = story.milestones[-1]
    assert last.stage == stage(last.background, last.legible) == "mature"
    assert describe(last) == f"mature, {100 * (last.legible or 0):.0f} % legible"


@pytest.mark.parametrize(
    ("background", "legible", "name"),
    [
        (0.07, 1.0, "noise"),  # A classifier may be sure of what is no digit at all.
        (0.8, 0.0, "first shapes"),
        (0.8, 0.2, "patterns"),
        (0.8, 0.5, "sharper"),
        (0.8, 0.8, "mature"),
        (0.8, 1.0, "mature"),
        (0.3, None, "noise"),
        (0.8, None, None),
    ],
)
def test_the_ends_of_the_stages(background: float, legible: float | None, name: str | None) -> None:
    assert stage(background, legible) == name


def test_the_time_lapse_shows_each_milestone_and_holds_the_last(run: Path) -> None:
    story = tell(run, brightness)
    assert story.time_lapse
    with Image.open(BytesIO(story.time_lapse)) as film:
        assert film.format == "PNG"
        assert film.n_frames == len(STEPS)  # type: ignore[attr-defined]
        assert film.info["loop"] == 0
        durations = []
        for frame, milestone in enumerate(story.milestones):
            film.seek(frame)
            durations.append(film.info["duration"])
            np.testing.assert_array_equal(np.asarray(film.convert("L"))[:56:2, :56:2], milestone.digits[0])
    assert durations == [FRAME_MS, FRAME_MS, LAST_FRAME_MS]


def test_a_story_is_written_into_its_run(run: Path) -> None:
    write_story(run, tell(run, brightness))
    with Image.open(run / "milestones.png") as still:
        assert still.size == (230 + 10 * 56, len(STEPS) * 56)
        shown = np.asarray(still)[112::2, 230::2][:28, :28]
    np.testing.assert_array_equal(shown, samples.read_grid(run / "samples" / "step-001000.png")[0])
    with Image.open(run / "metrics.png") as plot:
        assert plot.width == 960
    facts = json.loads((run / "story.json").read_text())
    assert facts["stability"]["state"] == "stable"
    assert [each["stage"] for each in facts["milestones"]] == ["noise", "first shapes", "mature"]


def test_without_a_classifier_the_later_stages_have_no_names(run: Path) -> None:
    milestones = tell(run).milestones
    assert [each.stage for each in milestones] == ["noise", None, None]
    assert describe(milestones[1]) == ""


def test_an_empty_run_has_a_story_too(tmp_path: Path) -> None:
    story = tell(tmp_path)
    assert story.milestones == ()
    assert (story.time_lapse, story.losses, story.metrics) == (None, None, None)
    assert story.stability.state == "short"
    write_story(tmp_path, story)
    assert [path.name for path in tmp_path.iterdir()] == ["story.json"]


def test_a_long_run_shows_its_first_its_last_and_some_between() -> None:
    steps = [1, 200, 300, 600, 700, 900, 1000, *range(1172, 23441, 234)]
    milestones = [Milestone(step, np.zeros((64, 28, 28), np.uint8), 0.8, 0.5, "sharper") for step in steps]
    chosen = [each.step for each in main_milestones(milestones)]
    assert chosen[0] == 1
    assert chosen[1] == 200
    assert chosen[-1] == steps[-1]
    assert len(chosen) == ROWS
    assert chosen == sorted(set(chosen))
