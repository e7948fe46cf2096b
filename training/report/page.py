"""Renders the report: one HTML file from an evaluation, its pictures and the story of a run."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from serving.contract import GENERATOR
from serving.errors import UserError
from serving.files import write_atomically
from serving.storage import newest_version
from serving.versions.model_card import CardError, read_card
from training.config import CONFIG_FILE, TrainingConfig
from training.evaluation.source import MODELS
from training.report import criteria
from training.report.pictures import COMPARED, png_uri
from training.report.story import Classify, build_story, caption, time_lapse
from training.run import plots

REPORT_FILE: Final = "report.html"
EVALUATION_FILE: Final = "evaluation.json"
PICTURES_FILE: Final = "pictures.json"
STORY_FILE: Final = "story.json"


def report(out: Path, evaluated: Path, run: Path | None, classify: Classify | None) -> Path:
    """Writes report.html, and the story of a run into the run. Returns the path of report.html.

    A section without its data names the command that makes the data. Raises UserError for a file that can't be read.

    Args:
        out: the directory for report.html.
        evaluated: the directory that may hold evaluation.json and pictures.json.
        run: the run directory; None for a report of models.
        classify: a digit classifier, which names the stages of the story.
    """
    evaluation = read_json(evaluated / EVALUATION_FILE)
    conclusion = criteria.conclusion(evaluation) if evaluation else "Not evaluated yet."
    story, config = None, None
    if run:
        newest = newest_version(run / MODELS / GENERATOR)
        story = build_story(run, TrainingConfig.read(run), classify, _chosen(newest))
        config = read_json(run / CONFIG_FILE)
        write_atomically(run / STORY_FILE, json.dumps(story, indent=2) + "\n")
        if evaluation and newest and str(evaluation["source"]["version"]) != newest.name:
            conclusion += (
                f" These are the figures of version {evaluation['source']['version']}. Version {newest.name} is not "
                "evaluated yet; run: digitgan evaluate RUN"
            )
    environment = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    reference, note = _reference(evaluation, story)
    page = environment.get_template("template.html").render(
        subject=run.resolve().name if run else "models",
        evaluation=evaluation,
        reference=(evaluation or {}).get("reference"),
        criteria=criteria,
        conclusion=conclusion,
        pictures=read_json(evaluated / PICTURES_FILE),
        compared=COMPARED,
        story=story,
        caption=caption,
        progress=_progress(story) if story else "",
        reference_note=note,
        plots=_plots(evaluation, story, reference),
        settings=_settings(evaluation, config),
    )
    write_atomically(out / REPORT_FILE, page)
    return out / REPORT_FILE


def read_json(path: Path) -> dict[str, Any] | None:
    """Reads a JSON object; None if there is no file. Raises UserError, with the path, for any other content."""
    try:
        return dict(json.loads(path.read_text("utf-8")))
    except FileNotFoundError:
        return None
    except (ValueError, TypeError) as error:
        raise UserError(f"{path} can't be read: {error}") from error


def _chosen(version_dir: Path | None) -> dict[str, Any] | None:
    """What a generator's model card says about its choice."""
    try:
        return read_card(version_dir).get("chosen") if version_dir else None
    except CardError:
        return None


def _plots(
    evaluation: Mapping[str, Any] | None, story: Mapping[str, Any] | None, reference: Mapping[str, Any] | None
) -> dict[str, str]:
    """Draws the plots that there is data for, as data URIs by name."""
    drawn: dict[str, bytes] = {}
    if story and story["milestones"]:
        drawn["time_lapse"] = time_lapse(story)
    if story and story["log"]["step"]:
        drawn["losses"] = plots.losses(story["log"], *story["guessing"].values())
    if story and story["evaluations"]:
        drawn["metrics"] = plots.metrics(story["evaluations"], reference)
    if evaluation and (score := evaluation.get("score")):
        drawn["reliability"] = plots.reliability(score["reliability"])
        drawn["logits"] = plots.logits(score["logits"])
    return {name: png_uri(png) for name, png in drawn.items()}


def _reference(
    evaluation: Mapping[str, Any] | None, story: Mapping[str, Any] | None
) -> tuple[Mapping[str, Any] | None, str]:
    """The figures of real images for the plot of the evaluations on the way, and a note on them."""
    on_the_way = story["evaluations"] if story else []
    if on_the_way and (own := on_the_way[-1].get("reference")):
        return own, "Dotted: the reference, as many real digits."
    if evaluation and (reference := evaluation.get("reference")):
        return reference, (
            f"Dotted: the reference of the evaluation above, with {evaluation['images']:,} images; with fewer images "
            "real digits have a greater Fréchet distance."
        )
    return None, ""


def _progress(story: Mapping[str, Any]) -> str:
    """How the Fréchet distance changed during the run, and which generator is published, in words."""
    measured, chosen = story["evaluations"], story["run"].get("chosen")
    if not measured:
        return ""
    first, last, best = measured[0], measured[-1], min(measured, key=lambda row: float(row["frechet_distance"]))
    words = (
        f"The Fréchet distance went from {first['frechet_distance']:.1f} at step {first['step']:,} to "
        f"{last['frechet_distance']:.2f} at step {last['step']:,}. It was smallest at step {best['step']:,}: "
        f"{best['frechet_distance']:.2f}. "
    )
    if not chosen:
        return words + "The run's models/ has no generator yet."
    if "average_of" in chosen:
        return words + (
            f"The published generator is the average of {chosen['average_of']} generators, from step "
            f"{chosen['from_step']:,} to {chosen['step']:,}; its distance is {chosen['validation']:.2f}."
        )
    return words + f"The published generator is the one of step {chosen['step']:,}."


def _settings(evaluation: Mapping[str, Any] | None, config: Mapping[str, Any] | None) -> dict[str, Any]:
    """What the configuration and the evaluation say about themselves, without the path of the data."""
    facts = _flat(config)
    if "data" in facts:
        facts["data"] = Path(facts["data"]).name
    for part in ("source", "classifier"):
        facts |= {f"{part}: {name}": value for name, value in _flat((evaluation or {}).get(part)).items()}
    return {name.replace("_", " "): value for name, value in facts.items()}


def _flat(mapping: Mapping[str, Any] | None) -> dict[str, Any]:
    """Merges the mappings inside a mapping into it, and leaves out null values."""
    facts: dict[str, Any] = {}
    for name, value in (mapping or {}).items():
        if isinstance(value, Mapping):
            facts |= _flat(value)
        elif value is not None:
            facts[name] = value
    return facts
