"""The quality gate: what passes, what falls short and by how much, and what a thresholds file may say."""

import json
from pathlib import Path

import pytest

from serving.contract import MODELS
from serving.errors import UserError
from serving.versions.quality_gate import read_thresholds, shortfalls

CARD = {"evaluation": {"figures": {"frechet_distance": 1.25, "coverage": float("nan")}}}


@pytest.mark.parametrize(
    ("figure", "bounds", "found"),
    [
        ("evaluation.figures.frechet_distance", {"min": 1.25, "max": 1.25}, None),
        ("evaluation.figures.frechet_distance", {"max": 1.0}, "distance is 1.25, and has to be at most 1"),
        ("evaluation.figures.frechet_distance", {"min": 1.5}, "is 1.25, and has to be at least 1.5"),
        ("evaluation.figures.coverage", {"min": 0.8}, "coverage is nan, and has to be at least 0.8"),
        ("evaluation.auc", {"min": 0.9}, "has no evaluation.auc, which has to be at least 0.9"),
        ("evaluation.figures", {"min": 0.9, "max": 2}, "figures, which has to be at least 0.9 and at most 2"),
    ],
)
def test_a_figure_passes_on_its_bound_and_not_beyond(figure: str, bounds: dict[str, float], found: str | None) -> None:
    sentences = shortfalls(CARD, {figure: bounds})
    assert len(sentences) == (found is not None)
    assert (found or "") in "".join(sentences)


def test_the_default_gate_leaves_no_model_out() -> None:
    """tests/serving/test_roll_out.py promotes those of the package."""
    assert {name for name, thresholds in read_thresholds().items() if thresholds} == set(MODELS)


@pytest.mark.parametrize(
    ("content", "complaint"),
    [
        ("{", "Expecting"),
        ("[]", "an object for each model"),
        ('{"generator": {"a.b": {}}}', "generator: a.b"),
        ('{"generator": {"a.b": {"most": 1}}}', "generator: a.b"),
        ('{"generator": {"a.b": {"max": "1"}}}', "generator: a.b: max: should be a number"),
        (json.dumps({"generator": {"a.b": {"min": float("nan")}}}), "generator: a.b: min: should be a number"),
    ],
)
def test_a_wrong_thresholds_file_is_refused_with_the_field(tmp_path: Path, content: str, complaint: str) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(content)
    with pytest.raises(UserError) as raised:
        read_thresholds(path)
    assert str(path) in str(raised.value)
    assert complaint in str(raised.value)
