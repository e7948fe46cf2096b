"""Versions on disk: directories of models, copies, model cards, the quality gate, and the models that ship."""

import shutil
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from serving.contract import CLASSIFIER, DISCRIMINATOR, GENERATOR, MODELS
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from serving.storage import find_versions
from serving.tf_serving import model_config
from serving.tf_serving.model_config import ConfigError, ModelConfig
from serving.tf_serving.server_config import MODELS_CONFIG
from serving.versions.model_card import CardError, read_card, verify, write_card
from serving.versions.model_copy import add_versions
from serving.versions.quality_gate import Thresholds, read_thresholds, shortfalls
from tests.support.pretrained import VERSIONS, pretrained
from training.config import DEFAULT_PRESET

VERSION_0 = b" model_version_policy { specific { versions: 0 } }"


def one_model(fields: bytes) -> bytes:
    return b'model_config_list { config { model_platform: "tensorflow" ' + fields + b" } }"


@pytest.mark.parametrize(
    ("read", "content", "complaint"),
    [
        (model_config.read, None, "No such file"),
        (model_config.read, b"\xff\xfe", "codec can't decode"),
        (model_config.read, b"", "no model_config_list"),
        (model_config.read, b"model_config_list {", "Expected"),
        (model_config.read, b"model_config_list { config { nam: 'a' } }", "nam"),
        (model_config.read, one_model(b'base_path: "/m"'), "no name"),
        (model_config.read, one_model(b'name: "m"'), "absolute"),
        (model_config.read, one_model(b'name: "m" base_path: "/m"' + VERSION_0), "from 1 upwards"),
        (read_thresholds, b"{", "Expecting"),
        (read_thresholds, b"[]", "an object for each model"),
        (read_thresholds, b'{"generator": {"a.b": {}}}', "generator: a.b"),
        (read_thresholds, b'{"generator": {"a.b": {"most": 1}}}', "generator: a.b"),
        (read_thresholds, b'{"generator": {"a.b": {"max": "1"}}}', "generator: a.b: max: should be a number"),
        (read_thresholds, b'{"generator": {"a.b": {"min": NaN}}}', "generator: a.b: min: should be a number"),
    ],
)
def test_a_wrong_file_is_refused_with_its_reason(
    tmp_path: Path, read: Callable[[Path], object], content: bytes | None, complaint: str
) -> None:
    path = tmp_path / "file"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"{path}.*: .*{complaint}"):
        read(path)


def test_a_directory_of_models_serves_each_that_has_a_version(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for version in ("b/1", "a/2", "a/10", "empty", "half-written/3.tmp"):
        (tmp_path / "models" / version).mkdir(parents=True)
    (tmp_path / "models" / "models.config").touch()
    monkeypatch.chdir(tmp_path)
    assert model_config.from_directory(Path("models")) == (
        ModelConfig("a", tmp_path / "models/a"),
        ModelConfig("b", tmp_path / "models/b"),
    )
    for place in (tmp_path / "models/b/1", tmp_path / "missing"):
        with pytest.raises(ConfigError, match="holds no models"):
            model_config.from_directory(place)


def add(source: Path, target: Path) -> list[str]:
    said: list[str] = []
    add_versions(source, target, PurePosixPath("/models"), said.append)
    return said


def labels(base: Path) -> dict[str, dict[str, int]]:
    return {one.name: dict(one.labels) for one in model_config.read(base / MODELS_CONFIG)}


def test_an_empty_volume_gets_the_label_stable_which_stays_when_a_missing_version_is_copied(tmp_path: Path) -> None:
    add(MODELS_DIR, tmp_path)
    assert {name: set(find_versions(tmp_path / name)) for name in MODELS} == {name: {VERSIONS[name]} for name in MODELS}
    assert labels(tmp_path) == {name: {"stable": VERSIONS[name]} for name in MODELS}
    assert {one.name: one.specific for one in model_config.read(tmp_path / MODELS_CONFIG)} == {
        name: {VERSIONS[name]} for name in MODELS
    }
    assert sorted(path.name for path in (tmp_path / GENERATOR).iterdir()) == ["3"]  # no remains of the copy
    config = (tmp_path / MODELS_CONFIG).read_bytes()
    moved = tmp_path / GENERATOR / "4"
    (tmp_path / GENERATOR / "3").rename(moved)
    inode = moved.stat().st_ino
    said = add(MODELS_DIR, tmp_path)
    assert set(find_versions(tmp_path / GENERATOR)) == {3, 4}
    assert (tmp_path / MODELS_CONFIG).read_bytes() == config
    assert moved.stat().st_ino == inode
    assert [line for line in said if "copied" in line] == ["generator version 3: copied"]


def test_another_version_of_the_same_number_stays_and_is_a_failure(tmp_path: Path) -> None:
    add(MODELS_DIR, tmp_path)
    version = tmp_path / GENERATOR / "3"
    write_card(version, {**read_card(version), "preset": "another"})
    with pytest.raises(UserError, match="generator 3"):
        add(MODELS_DIR, tmp_path)
    assert read_card(version)["preset"] == "another"


def test_a_damaged_version_is_not_published(tmp_path: Path) -> None:
    source = tmp_path / "source"
    shutil.copytree(MODELS_DIR, source)
    (source / GENERATOR / "3" / "saved_model.pb").write_bytes(b"short")
    with pytest.raises(CardError, match="SHA-256"):
        add(source, tmp_path / "volume")
    assert not find_versions(tmp_path / "volume" / GENERATOR)
    assert not (tmp_path / "volume" / MODELS_CONFIG).exists()


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


RUN = {"training.images": {"min": 55_000}, "training.steps": {"min": 15_000}}
SHIPPED: dict[str, Thresholds] = {
    GENERATOR: {
        **RUN,
        "evaluation.images": {"min": 10_000},
        "evaluation.figures.frechet_distance": {"max": 0.16},
        "evaluation.figures.precision": {"min": 0.84},
        "evaluation.figures.recall": {"min": 0.84},
        "evaluation.figures.density": {"min": 0.893},
        "evaluation.figures.coverage": {"min": 0.923},
        "evaluation.figures.legible": {"min": 0.945},
        "seed_index.seeds": {"min": 65_536},
    },
    DISCRIMINATOR: {
        **RUN,
        "detector.test.auc": {"min": 0.99},
        "detector.test.expected_calibration_error": {"max": 0.015},
        **{f"detector.test.kinds.{kind}": {"min": 0.99} for kind in ("noise", "inverted", "shuffled", "blank")},
        "detector.test.kinds.upside_down": {"min": 0.82},  # all digits: a 0, 1, 3 or 8 may look real
    },
    CLASSIFIER: {
        "training.images": {"min": 55_000},
        "test.images": {"min": 10_000},
        "test.accuracy": {"min": 0.994},
        "test.expected_calibration_error": {"max": 0.01},
    },
}
"""What the models are, and how good: bounds of figures in their cards."""


@pytest.mark.parametrize("name", MODELS)
def test_the_shipped_files_are_those_of_the_model_card_which_says_how_good_they_are(name: str) -> None:
    version = pretrained(name)
    verify(version)
    card = read_card(version)
    assert shortfalls(card, SHIPPED[name]) == []
    assert read_thresholds()[name]
    if name != CLASSIFIER:
        assert card["training"]["preset"] == DEFAULT_PRESET
