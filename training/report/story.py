"""The story of a run: story.json, GET /story, and the source of the report's and the studio's pictures."""

import base64
import json
from collections.abc import Callable, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont

from training.config import METRICS, TrainingConfig
from training.evaluation.statistics import legible_share
from training.gan.losses import chance_losses
from training.run.metrics import EVALUATIONS_FILE, METRICS_FILE, read_log, rounded, thinned
from training.run.samples import GRID_SIDE, SAMPLES, enlarged, png_of, read_grid, sheet
from training.run.stability import verdict

FRAME_MS: Final = 700
LAST_FRAME_MS: Final = 4000
CAPTION: Final = 36
"""Height of the line below each frame, in pixels."""

BACKGROUND_LEVEL: Final = 25
"""A pixel up to this level, a tenth of full ink, is background. Of MNIST's pixels 83 % are."""
NOISE: Final = "noise"
STAGES: Final = (("first shapes", 0.2), ("patterns", 0.5), ("sharper", 0.8), ("mature", 1.0))
"""The course deck's four stages, each with the share of legible digits at which it ends."""

Classify = Callable[[NDArray[np.uint8]], NDArray[np.floating[Any]]]
"""From images uint8 [N, 28, 28] to the probabilities of the ten digits, floats [N, 10]."""


def build_story(
    run: Path, config: TrainingConfig, classify: Classify, chosen: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """Builds the story of a run so far. ``chosen`` is what the model card says of the choice of the generator."""
    rows = read_log(run / METRICS_FILE)
    milestones = [_milestone(path, config, classify) for path in sorted((run / SAMPLES).glob("step-*.png"))]
    steps = max([0, *(each["step"] for each in milestones), *(int(row["step"]) for row in rows[-1:])])
    return {
        "run": {
            "preset": config.preset,
            "loss": config.recipe.loss,
            "steps": steps,
            "epochs": rounded(config.epochs_at(steps)),
            "batch_size": config.recipe.batch_size,
            "images": config.images,
            "chosen_step": chosen["step"] if chosen else None,
            "chosen": chosen,
        },
        "seeds": GRID_SIDE**2,
        "milestones": milestones,
        "log": thinned(rows),
        "guessing": dict(zip(METRICS[:2], map(rounded, chance_losses(config.recipe.loss)), strict=True)),
        "stability": _rounded(verdict(rows, config.recipe.loss)),
        "evaluations": _rounded(read_log(run / EVALUATIONS_FILE)),
    }


def encode(story: Mapping[str, Any]) -> bytes:
    """Encodes a story as it is served: compact JSON in UTF-8, without the reference figures of each evaluation."""
    on_the_way = [{k: v for k, v in each.items() if k != "reference"} for each in story["evaluations"]]
    content = {**story, "evaluations": on_the_way}
    return json.dumps(content, ensure_ascii=False, separators=(",", ":"), allow_nan=False).encode()


def stage(background: float, legible: float) -> str:
    """Names the stage of images by their shares of background pixels and of legible digits."""
    if background < 0.5:  # A classifier that never saw noise can be very sure of it.
        return NOISE
    return next(name for name, end in STAGES if legible < end or end == 1.0)


def caption(milestone: Mapping[str, Any]) -> str:
    """Describes a milestone: its stage, and its share of legible digits where that has a meaning."""
    if milestone["stage"] == NOISE:
        return NOISE
    return f"{milestone['stage']}, {100 * milestone['legible']:.0f} % legible"


def time_lapse(story: Mapping[str, Any]) -> bytes:
    """Draws an endless animated PNG with a frame for each milestone, at least one: the 64 seeds, step and caption."""
    first, *others = (_frame(each) for each in story["milestones"])
    durations = [*[FRAME_MS] * len(others), LAST_FRAME_MS]
    png = BytesIO()
    first.save(png, format="PNG", save_all=True, append_images=others, duration=durations, loop=0)
    return png.getvalue()


def _frame(milestone: Mapping[str, Any]) -> Image.Image:
    with Image.open(BytesIO(base64.b64decode(milestone["png"]))) as picture:
        grid = Image.fromarray(enlarged(np.asarray(picture)))
    width = grid.width
    frame = Image.new("L", (width, width + CAPTION))
    frame.paste(grid, (0, 0))
    draw, font = ImageDraw.Draw(frame), ImageFont.load_default(18)
    draw.text((8, width + CAPTION / 2), f"step {milestone['step']:,}", fill=255, font=font, anchor="lm")
    draw.text((width - 8, width + CAPTION / 2), caption(milestone), fill=190, font=font, anchor="rm")
    return frame


def _milestone(path: Path, config: TrainingConfig, classify: Classify) -> dict[str, Any]:
    step, digits = int(path.stem.removeprefix("step-")), read_grid(path)
    legible = legible_share(classify(digits))
    return {
        "step": step,
        "epoch": rounded(config.epochs_at(step)),
        "stage": stage(float((digits <= BACKGROUND_LEVEL).mean()), legible),
        "legible": legible,
        "png": base64.b64encode(png_of(sheet(digits, GRID_SIDE))).decode(),
    }


def _rounded(value: Any) -> Any:
    """Rounds the numbers in a JSON value; those that are not finite become None."""
    return json.loads(json.dumps(value), parse_float=lambda text: rounded(float(text)), parse_constant=lambda _: None)
