"""``digitgan dataset``: balanced, complete or not there, the same bytes however often it is stopped, read by all."""

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from digitgan.dataset.job import SEEDS_APART, Plan
from tests.support.commands import digitgan, stopped_after
from tests.support.saved_models import INDEXED, SHADE
from training import data

COUNT, TEST = 2400, 600
OPTIONS = ("--count", COUNT, "--test", TEST, "--confidence", 0.9)


def dataset(out: Path, url: str, *options: object, status: int = 0) -> subprocess.CompletedProcess[str]:
    return digitgan("dataset", out, *OPTIONS, *options, "--url", url, status=status)


def stop(number: int, out: Path, url: str) -> subprocess.CompletedProcess[str]:
    """Runs the command until it has added digits, and sends it a signal."""
    records = out.with_name(f"{out.name}.partial") / "digits.records"
    before = records.stat().st_size if records.exists() else 0
    done = stopped_after("digitgan.dataset.job.append", number, "dataset", out, *OPTIONS, "--url", url)
    assert records.stat().st_size > before
    assert not out.exists()
    return done


def content(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.fixture(scope="module")
def whole(small_url: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("whole") / "digits"
    dataset(out, small_url)
    return out


def test_it_is_balanced_labelled_and_tells_where_it_comes_from(whole: Path) -> None:
    found = data.load(whole)
    for images, labels, count in ((found.x_train, found.y_train, COUNT), (found.x_test, found.y_test, TEST)):
        assert np.array_equal(labels, images[:, 14, 14] // SHADE)
        assert np.bincount(labels).tolist() == [count // 10] * 10
        assert len(np.unique(labels[: count // 2])) == 10, "the order isn't the seeds'"
    manifest = json.loads((whole / "dataset.json").read_text())
    assert manifest["models"] == {"generator": 1, "classifier": 1, "discriminator": 1}
    assert manifest["digits"] == {"train": [COUNT // 10] * 10, "test": [TEST // 10] * 10}
    assert manifest["seeds"]["last"] > INDEXED, "it goes beyond the index"
    assert manifest["options"]["confidence_floor"] == 0.9
    subprocess.run(["sha256sum", "--quiet", "-c", "SHA256SUMS"], cwd=whole, check=True)
    table = (whole / "labels.csv").read_text().splitlines()
    assert table[0] == "part,place,seed,digit,confidence,logit"
    assert len({line.split(",")[2] for line in table[1:]}) == COUNT + TEST
    assert all(str(np.float32(number)) == number for line in table[1:] for number in line.split(",")[4:])


def test_stopped_and_resumed_it_has_the_same_bytes(small_url: str, whole: Path, tmp_path: Path) -> None:
    """Killed, stopped by Ctrl-C, with half a record at the end, and then left alone."""
    out = tmp_path / "digits"
    stop(signal.SIGKILL, out, small_url)
    with (tmp_path / "digits.partial" / "digits.records").open("ab") as file:
        file.write(b"half a record")
    stopped = stop(signal.SIGINT, out, small_url)
    assert stopped.returncode == 128 + signal.SIGINT
    assert "the same command continues" in stopped.stderr
    done = dataset(out, small_url)
    assert f"{out} is complete" in done.stdout
    assert content(out) == content(whole)
    assert [path.name for path in tmp_path.iterdir()] == ["digits"]


def test_what_is_there_is_not_made_again_nor_overwritten(small_url: str, whole: Path, tmp_path: Path) -> None:
    assert "is there already" in dataset(whole, small_url).stdout
    assert "other options" in dataset(whole, small_url, "--seed", 1, status=2).stderr
    (tmp_path / "mine.txt").write_text("mine")
    assert "holds something else" in dataset(tmp_path, small_url, status=2).stderr
    out = tmp_path / "digits"
    stop(signal.SIGKILL, out, small_url)
    refused = dataset(out, small_url, "--balance", "natural", status=2)
    assert "begun with other options (balance uniform)" in refused.stderr


def test_every_format_holds_the_same_digits(small_url: str, whole: Path, tmp_path: Path) -> None:
    import keras

    expected = data.load(whole)
    for name in ("npz", "csv", "png"):
        dataset(tmp_path / name, small_url, "--format", name)
        assert (tmp_path / name / "labels.csv").read_bytes() == (whole / "labels.csv").read_bytes()
    found = data.load(tmp_path / "npz" / "digits.npz")
    for name in data.IDX_FILES:
        assert np.array_equal(getattr(found, name), getattr(expected, name))
    rows = np.loadtxt(tmp_path / "csv" / "test.csv", np.uint8, delimiter=",", skiprows=1)
    assert np.array_equal(rows[:, 0], expected.y_test)
    assert np.array_equal(rows[:, 1:].reshape(-1, 28, 28), expected.x_test)
    assert (tmp_path / "csv" / "train.csv").read_text().startswith("label,pixel0,pixel1,")
    shape: dict[str, Any] = {"color_mode": "grayscale", "image_size": (28, 28), "batch_size": None}
    images = keras.utils.image_dataset_from_directory(tmp_path / "png/test", **shape, shuffle=False, verbose=False)
    by_digit = np.argsort(expected.y_test, kind="stable")
    pairs = list(images.as_numpy_iterator())
    assert np.array_equal([label for _, label in pairs], expected.y_test[by_digit])
    assert np.array_equal(np.stack([image[..., 0] for image, _ in pairs]), expected.x_test[by_digit])


def test_without_a_gateway_it_starts_one_and_leaves_none(small_models: Path, whole: Path, tmp_path: Path) -> None:
    out = tmp_path / "digits"
    digitgan("dataset", out, *OPTIONS, "--models", small_models)
    assert content(out) == content(whole)


def test_the_parts_are_dealt_by_the_balance_and_the_seed() -> None:
    labels = np.random.default_rng(0).integers(0, 10, 1200).astype(np.uint8)
    labels = np.concatenate([labels, np.repeat(np.arange(10, dtype=np.uint8), 60)])
    parts = Plan(1700, 100).parts(labels)
    assert sorted([*parts["train"], *parts["test"]]) == list(range(1800))
    assert np.bincount(labels[parts["test"]]).tolist() == [10] * 10
    assert np.array_equal(Plan(1700, 100).parts(labels)["train"], parts["train"])
    assert not np.array_equal(Plan(1700, 100, seed=1).parts(labels)["train"], parts["train"])
    assert [*map(len, Plan(1700, 100, balance="natural").parts(labels).values())] == [1700, 100]
    assert Plan(1800, 0).parts(labels).keys() == {"train"}
    assert Plan(60_000, 10_000, seed=1).first_seed - Plan(60_000, 10_000).first_seed == SEEDS_APART
