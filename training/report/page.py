"""Renders the report: one HTML file from an evaluation, its pictures and the story of a run."""

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from serving.contract import GENERATOR
from serving.errors import UserError
from serving.files import write_atomically
from serving.storage import newest_version
from serving.versions.model_card import find_card
from training.config import TrainingConfig
from training.evaluation.figures import MEASURES
from training.evaluation.source import MODELS
from training.report import criteria
from training.report.pictures import COMPARED, png_uri
from training.report.story import Classify, build_story, caption, time_lapse
from training.run import plots

REPORT_FILE: Final = "report.html"
EVALUATION_FILE: Final = "evaluation.json"
PICTURES_FILE: Final = "pictures.json"
STORY_FILE: Final = "story.json"


def report(folder: Path, run: Path | None, classify: Classify) -> Path:
    """Writes report.html and a run's story, and returns the report's path. Raises UserError for an unreadable file."""
    evaluation = _read_json(folder / EVALUATION_FILE)
    story, config, newest = None, None, None
    if run:
        newest = newest_version(run / MODELS / GENERATOR)
        config = TrainingConfig.read(run)
        story = build_story(run, config, classify, find_card(newest).get("chosen"))
        write_atomically(run / STORY_FILE, json.dumps(story, indent=2) + "\n")
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("template.html").render(
        subject=run.resolve().name if run else "models",
        newest=newest.name if newest else None,
        evaluation=evaluation,
        measures=MEASURES,
        criteria=criteria,
        results=criteria.results(evaluation) if evaluation else {},
        pictures=_read_json(folder / PICTURES_FILE),
        compared=COMPARED,
        story=story,
        caption=caption,
        plots={name: png_uri(png) for name, png in _plots(evaluation, story).items()},
        settings=_settings(evaluation or {}, asdict(config) if config else {}),
    )
    write_atomically(folder / REPORT_FILE, page)
    return folder / REPORT_FILE


def _read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None if there is no file. Raises UserError, with the path, for any other content."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error


def _plots(evaluation: Mapping[str, Any] | None, story: Mapping[str, Any] | None) -> dict[str, bytes]:
    """Draws the plots that there is data for, as PNGs by name."""
    drawn: dict[str, bytes] = {}
    if story and story["milestones"]:
        drawn["time_lapse"] = time_lapse(story)
    if story and story["log"]["step"]:
        drawn["losses"] = plots.losses(story["log"], *story["guessing"].values())
    if story and (on_the_way := story["evaluations"]):
        drawn["metrics"] = plots.metrics(on_the_way, on_the_way[-1]["reference"])
    if evaluation and (score := evaluation.get("score")):
        drawn["reliability"] = plots.reliability(score["reliability"])
        drawn["logits"] = plots.logits(score["logits"])
    return drawn


def _settings(evaluation: Mapping[str, Any], config: Mapping[str, Any]) -> dict[str, Any]:
    """What the configuration and the evaluation say about themselves, without the path of the data."""
    facts: dict[str, Any] = {}
    for name, value in config.items():
        facts |= value if name == "recipe" else {name: Path(value).name if name == "data" else value}
    for part in ("source", "classifier"):
        facts |= {f"{part}: {name}": value for name, value in (evaluation.get(part) or {}).items()}
    return {name.replace("_", " "): value for name, value in facts.items() if value is not None}
