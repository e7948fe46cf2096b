"""``serving.versions.model_copy``: what is copied, what stays, and when it is a failure."""

import shutil
from pathlib import Path, PurePosixPath

import pytest

from serving.contract import GENERATOR, MODELS
from serving.errors import UserError
from serving.pretrained import MODELS_DIR
from serving.storage import find_versions
from serving.tf_serving import model_config
from serving.tf_serving.server_config import MODELS_CONFIG
from serving.versions.model_card import CardError, read_card, write_card
from serving.versions.model_copy import add_versions
from tests.support.pretrained import VERSIONS


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
