"""The quality gate: what passes, what falls short and by how much, and what a thresholds file may say."""

import json
from pathlib import Path

import pytest

from serving.contract import MODELS
from serving.pretrained import MODELS_DIR
from serving.versions.model_card import read_card
from serving.versions.quality_gate import Threshold, ThresholdsError, read_thresholds, shortfalls

CARD = {"evaluation": {"figures": {"frechet_distance": 1.25, "coverage": float("nan")}}}


def test_a_figure_on_the_bound_passes() -> None:
    assert shortfalls(CARD, (Threshold("evaluation.figures.frechet_distance", 1.25, 1.25),)) == []


@pytest.mark.parametrize(
    ("threshold", "told"),
    [
        (
            Threshold("evaluation.figures.frechet_distance", None, 1.0),
            "distance is 1.25, and has to be at most 1",
        ),
        (Threshold("evaluation.figures.frechet_distance", 1.5, None), "is 1.25, and has to be at least 1.5"),
        (Threshold("evaluation.figures.coverage", 0.8, None), "coverage is nan, and has to be at least 0.8"),
        (
            Threshold("evaluation.auc", 0.9, None),
            "doesn't tell evaluation.auc, which has to be at least 0.9",
        ),
        (Threshold("evaluation.figures", 0.9, None), "doesn't tell evaluation.figures"),
    ],
)
def test_what_falls_short_is_told_with_its_figure(threshold: Threshold, told: str) -> None:
    (found,) = shortfalls(CARD, (threshold,))
    assert told in found


def test_the_models_in_the_package_pass_the_default_gate_and_none_is_left_out() -> None:
    thresholds = read_thresholds()
    assert thresholds.keys() == MODELS.keys()
    for model in MODELS:
        assert thresholds[model]
        assert shortfalls(read_card(MODELS_DIR / model / "1"), thresholds[model]) == []


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ("{", "Expecting"),
        ("[]", "an object for each model"),
        ('{"generator": {"a.b": {}}}', "generator: a.b"),
        ('{"generator": {"a.b": {"most": 1}}}', "generator: a.b"),
        ('{"generator": {"a.b": {"max": "1"}}}', "generator: a.b: max: should be a number"),
        (json.dumps({"generator": {"a.b": {"min": float("nan")}}}), "generator: a.b: min: should be a number"),
    ],
)
def test_a_wrong_thresholds_file_is_told_with_the_field(tmp_path: Path, content: str, told: str) -> None:
    path = tmp_path / "thresholds.json"
    path.write_text(content)
    with pytest.raises(ThresholdsError) as raised:
        read_thresholds(path)
    assert str(path) in str(raised.value)
    assert told in str(raised.value)
