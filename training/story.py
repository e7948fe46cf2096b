"""The story of a run: the same seeds from noise to digits, what the losses did, and what was measured on the way."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from serving.contract import IMAGE_SIDE
from serving.files import write_atomically
from training import plots
from training.evaluation.statistics import LEGIBLE
from training.metrics import MetricsLog, evaluations, loss_of
from training.samples import GRID_SIDE, SAMPLES, SCALE, enlarged, read_grid, sheet
from training.stability import Stability, verdict

TIME_LAPSE_FILE: Final = "story.png"
MILESTONES_FILE: Final = "milestones.png"
METRICS_PLOT_FILE: Final = "metrics.png"
STORY_FILE: Final = "story.json"

FRAME_MS: Final = 700
LAST_FRAME_MS: Final = 4000
CAPTION: Final = 36
"""Height of the line below each frame, in pixels."""
MARGIN: Final = 230
"""Width of the text beside each row of the still grid, in pixels."""
COLUMNS: Final = 10
ROWS: Final = 10

BACKGROUND_LEVEL: Final = 25
"""A pixel up to here, a tenth of full ink, is background. Of MNIST's pixels 83 % are."""
NOISE: Final = "noise"
STAGES: Final = (("first shapes", 0.2), ("patterns", 0.5), ("sharper", 0.8), ("mature", 1.0))
"""The course deck's four stages, each with the share of legible digits at which it is over."""

Images = NDArray[np.uint8]
Classify = Callable[[Images], NDArray[np.floating[Any]]]
"""From images uint8 [N, 28, 28] to the probabilities of the ten digits, floats [N, 10]."""


@dataclass(frozen=True)
class Milestone:
    """How a run's fixed seeds looked after some step.

    Attributes:
        step: the step.
        digits: uint8 [64, 28, 28], the images of the seeds 0 to 63.
        background: share of their pixels that are background.
        legible: share of them that the classifier is sure of; None where no classifier looked.
        stage: NOISE, or one of STAGES; None where it isn't known.
    """

    step: int
    digits: Images
    background: float
    legible: float | None
    stage: str | None


@dataclass(frozen=True)
class Story:
    """A run, told.

    Attributes:
        milestones: by step.
        stability: the verdict on the losses.
        time_lapse: an animated PNG, or None where the run has no pictures.
        losses: a PNG, or None where the run has no log.
        metrics: a PNG, or None where the run was not evaluated on the way.
        evaluations: the figures on the way, by step.
    """

    milestones: tuple[Milestone, ...]
    stability: Stability
    time_lapse: bytes | None
    losses: bytes | None
    metrics: bytes | None
    evaluations: tuple[dict[str, Any], ...]


def stage(background: float, legible: float | None) -> str | None:
    """Names the stage that images are at by what is measured in them, whatever the step.

    While less than half of their pixels are background they are noise: no stroke stands out. (A classifier that never
    saw noise can be very sure of it, so this comes first.) From then on the share of legible digits decides.

    Args:
        background: share of pixels that are background.
        legible: share of images that the classifier is sure of; None where no classifier looked.
    """
    if background < 0.5:
        return NOISE
    if legible is None:
        return None
    return next(name for name, end in STAGES if legible < end or end == 1.0)


def tell(run: Path, classify: Classify | None = None, floor: Mapping[str, Any] | None = None) -> Story:
    """Tells a run's story, as far as it has come.

    Args:
        run: a run directory.
        classify: reads digits; without it the stages after the noise have no names.
        floor: the figures of real digits in place of generated ones, to draw beside those of the run.
    """
    milestones = tuple(_milestone(path, classify) for path in sorted((run / SAMPLES).glob("step-*.png")))
    rows, on_the_way, loss = MetricsLog.rows(run), evaluations(run), loss_of(run)
    return Story(
        milestones=milestones,
        stability=verdict(rows, loss),
        time_lapse=time_lapse(milestones) if milestones else None,
        losses=plots.losses(rows, loss) if rows else None,
        metrics=plots.metrics(on_the_way, floor) if on_the_way else None,
        evaluations=tuple(on_the_way),
    )


def write_story(run: Path, story: Story) -> None:
    """Writes what there is of a story into the run directory: story.png, milestones.png, metrics.png and story.json."""
    if story.time_lapse:
        write_atomically(run / TIME_LAPSE_FILE, story.time_lapse)
        write_atomically(run / MILESTONES_FILE, _still(main_milestones(story.milestones)))
    if story.metrics:
        write_atomically(run / METRICS_PLOT_FILE, story.metrics)
    facts = {
        "stability": story.stability.figures,
        "milestones": [
            {"step": each.step, "background": each.background, "legible": each.legible, "stage": each.stage}
            for each in story.milestones
        ],
    }
    write_atomically(run / STORY_FILE, json.dumps(facts, indent=2) + "\n")


def main_milestones(milestones: Sequence[Milestone]) -> list[Milestone]:
    """At most ROWS of them, the first and the last among them, nearly evenly spaced by the logarithm of the step."""
    if len(milestones) <= ROWS:
        return list(milestones)
    logs = np.log([each.step for each in milestones])
    targets = np.linspace(logs[1], logs[-1], ROWS - 1)  # After the first step nothing is pictured for long.
    chosen = {0, *(int(np.argmin(np.abs(logs - target))) for target in targets)}
    return [milestones[i] for i in sorted(chosen)]


def time_lapse(milestones: Sequence[Milestone]) -> bytes:
    """An animated PNG with a frame a milestone: the 64 seeds, the step, and what was measured. It plays forever.

    Args:
        milestones: by step, at least one.
    """
    frames = [_frame(each) for each in milestones]
    png = BytesIO()
    frames[0].save(
        png,
        format="PNG",
        save_all=True,
        append_images=frames[1:],
        duration=[FRAME_MS] * (len(frames) - 1) + [LAST_FRAME_MS],
        loop=0,
    )
    return png.getvalue()


def _milestone(path: Path, classify: Classify | None) -> Milestone:
    digits = read_grid(path)
    background = float((digits <= BACKGROUND_LEVEL).mean())
    legible = float((classify(digits).max(axis=1) >= LEGIBLE).mean()) if classify else None
    return Milestone(int(path.stem.removeprefix("step-")), digits, background, legible, stage(background, legible))


def describe(milestone: Milestone) -> str:
    """What is said beside a milestone: its stage, and its share of legible digits where that has a meaning."""
    words = [milestone.stage] if milestone.stage else []
    if milestone.legible is not None and milestone.stage != NOISE:
        words.append(f"{100 * milestone.legible:.0f} % legible")
    return ", ".join(words)


def _frame(milestone: Milestone) -> Image.Image:
    grid = enlarged(sheet(milestone.digits, GRID_SIDE))
    width = grid.width
    frame = Image.new("L", (width, width + CAPTION))
    frame.paste(grid, (0, 0))
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(18)
    draw.text((8, width + CAPTION / 2), f"step {milestone.step:,}", fill=255, font=font, anchor="lm")
    draw.text((width - 8, width + CAPTION / 2), describe(milestone), fill=190, font=font, anchor="rm")
    return frame


def _still(milestones: Sequence[Milestone]) -> bytes:
    """A row a milestone, a column a seed, on black, as a PNG."""
    height = IMAGE_SIDE * SCALE
    still = Image.new("L", (MARGIN + COLUMNS * height, len(milestones) * height))
    draw, large, small = ImageDraw.Draw(still), ImageFont.load_default(18), ImageFont.load_default(14)
    for row, each in enumerate(milestones):
        draw.text((10, height * (row + 0.3)), f"step {each.step:,}", fill=255, font=large, anchor="lm")
        draw.text((10, height * (row + 0.7)), describe(each), fill=190, font=small, anchor="lm")
        still.paste(enlarged(sheet(each.digits[:COLUMNS], COLUMNS)), (MARGIN, height * row))
    png = BytesIO()
    still.save(png, format="PNG")
    return png.getvalue()
