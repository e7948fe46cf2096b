"""The page: one HTML file with everything in it, from an evaluation, its pictures and a run's story."""

import json
from collections.abc import Mapping
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

from serving.files import write_atomically
from training.config import CONFIG_FILE
from training.metrics import evaluations
from training.report import sections
from training.report.criteria import conclusion
from training.report.elements import element, html
from training.report.pictures import Pictures
from training.story import Classify, tell, write_story

REPORT_FILE: Final = "report.html"
EVALUATION_FILE: Final = "evaluation.json"


def write_report(
    evaluation: Mapping[str, Any] | None,
    out: Path,
    *,
    run: Path | None = None,
    pictures: Pictures | None = None,
    classify: Classify | None = None,
) -> Path:
    """Writes report.html, and a run's story into the run.

    Whatever is None leaves its sections with a sentence on what is missing.

    Args:
        evaluation: the content of evaluation.json.
        out: the directory to write into.
        run: the run directory whose story is told; story.png, milestones.png, metrics.png and story.json are written
            there.
        pictures: the digits to show (:func:`training.report.choose`).
        classify: from images uint8 [N, 28, 28] to probabilities [N, 10]; names the stages of the story.

    Returns:
        The path of report.html.
    """
    floor, floor_note = _floor(evaluation, run)
    story = tell(run, classify, floor) if run else None
    if run and story:
        write_story(run, story)
    config = _config(run)
    score = evaluation.get("score") if evaluation else None
    parts = {
        "figures": ("The figures", sections.figures(evaluation)),
        "story": ("The story of the run", sections.story(story, floor_note)),
        "digits": ("Digit by digit", sections.by_digit(pictures)),
        "walks": ("Walks between seeds", sections.walks(pictures)),
        "nearest": ("Learnt by heart?", sections.nearest(pictures)),
        "least-legible": ("The least legible", sections.least_legible(pictures)),
        "score": ("The score", sections.score(score)),
        "how": ("How each figure is computed", sections.explanations()),
        "provenance": ("Whose digits these are", sections.provenance(evaluation, config)),
    }
    subject = run.resolve().name if run else "models"
    page = Template(files("training.report").joinpath("template.html").read_text("utf-8")).substitute(
        title=escape(f"Digits worth serving? {subject}"),
        subject=escape(subject),
        conclusion=escape(
            conclusion(evaluation)
            if evaluation
            else "Not evaluated yet: the story so far is below, the figures are to come."
        ),
        contents=html([element("li", element("a", title, href=f"#{name}")) for name, (title, _) in parts.items()]),
        sections=html(
            [element("section", element("h2", title), *content, id=name) for name, (title, content) in parts.items()]
        ),
    )
    write_atomically(out / REPORT_FILE, page)
    return out / REPORT_FILE


def read_evaluation(directory: Path) -> dict[str, Any] | None:
    """The content of a directory's evaluation.json, or None where there is none.

    Raises ValueError, naming the file, if it is no JSON object.
    """
    path = directory / EVALUATION_FILE
    if not path.exists():
        return None
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except (ValueError, TypeError) as error:
        raise ValueError(f"{path} can't be read: {error}") from error


def _floor(evaluation: Mapping[str, Any] | None, run: Path | None) -> tuple[Mapping[str, Any] | None, str]:
    """The floor to draw beside the evaluations on the way, and what is said of it.

    It is their own where their lines tell it as ``floor``, and otherwise that of the evaluation.
    """
    on_the_way = evaluations(run) if run else []
    if on_the_way and (own := on_the_way[-1].get("floor")):
        return dict(own), "Dotted: the floor, real digits in the place of generated ones."
    if evaluation and (floor := evaluation.get("floor")):
        return floor, (
            f"Dotted: the floor of the evaluation above, with {evaluation['images']:,} images against the "
            f"{evaluation['reference']} images; with fewer images the Fréchet distance has a higher one."
        )
    return None, ""


def _config(run: Path | None) -> dict[str, Any] | None:
    """What a run says about itself, without the path of its data on the machine that it ran on."""
    if run is None or not (run / CONFIG_FILE).exists():
        return None
    config: dict[str, Any] = json.loads((run / CONFIG_FILE).read_text("utf-8"))
    return {**config, "data": Path(config.get("data", "")).name}
