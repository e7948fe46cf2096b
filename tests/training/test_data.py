"""Training data is read whole or refused with its fault named."""

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from serving.errors import UserError
from training import data
from training.data import Dataset


def idx_folder(folder: Path, dataset: Dataset) -> Path:
    for name, file in data.IDX_FILES.items():
        array = getattr(dataset, name)
        header = bytes([0, 0, 8, array.ndim]) + np.array(array.shape, ">u4").tobytes()
        (folder / file).write_bytes(gzip.compress(header + array.tobytes()))
    return folder


@pytest.mark.parametrize("unzipped", [None, lambda name: name, lambda name: name.replace("-idx", ".idx")])
def test_npz_and_idx_hold_equal_digits(dataset: Dataset, tmp_path: Path, unzipped: Callable[[str], str] | None) -> None:
    for path in list(idx_folder(tmp_path, dataset).iterdir()):
        if unzipped:
            (tmp_path / unzipped(path.stem)).write_bytes(gzip.decompress(path.read_bytes()))
            path.unlink()
    idx = data.load(tmp_path)
    for name in data.IDX_FILES:
        np.testing.assert_array_equal(getattr(dataset, name), getattr(idx, name))
    assert dataset.fingerprint() == idx.fingerprint()


def good() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "x_train": rng.integers(0, 256, (240, 28, 28), np.uint8),
        "y_train": np.arange(240) % 10,
        "x_test": rng.integers(0, 256, (20, 28, 28), np.uint8),
        "y_test": np.arange(20) % 10,
    }


@pytest.mark.parametrize(
    ("changed", "fault"),
    [
        ({"x_train": np.zeros((20, 8, 8), np.uint8)}, r"x_train must have the shape \[N, 28, 28\], not \[20, 8, 8\]"),
        ({"x_train": np.zeros((0, 28, 28), np.uint8)}, "x_train must have the shape"),
        ({"x_train": np.zeros((240, 28, 28), np.float32)}, "x_train must be uint8"),
        ({"x_train": np.zeros((240, 28, 28), np.uint8)}, "x_train is blank"),
        ({"x_train": np.eye(28, dtype=np.uint8)[None].repeat(240, 0)}, "x_train has only the pixels 0 and 1"),
        ({"y_train": np.arange(19) % 10}, "y_train must have one label for each of 240"),
        ({"y_train": np.arange(240) % 26 + 1}, "y_train must hold digits from 0 to 9; it holds 1 to 26"),
        ({"y_test": np.zeros(20)}, "y_test must hold integers, not float64"),
        ({"y_test": None}, "lacks y_test"),
        ({name: array[:39] for name, array in good().items()}, "x_train has 39 images, and 40 are needed"),
        ({"x_test": good()["x_test"][:19], "y_test": np.arange(19) % 9}, "x_test has 19 images, and 20 are needed"),
    ],
)
def test_arrays_that_are_not_mnist_like_are_named(tmp_path: Path, changed: dict[str, Any], fault: str) -> None:
    path = tmp_path / "data.npz"
    np.savez(path, **{name: array for name, array in (good() | changed).items() if array is not None})
    with pytest.raises(UserError, match=fault):
        data.load(path)


@pytest.mark.parametrize("images", [40, 100, 240])
@pytest.mark.parametrize("digits", [10, 5])
def test_each_digit_is_held_out_whatever_the_order(tmp_path: Path, images: int, digits: int) -> None:
    arrays = good()
    labels = np.sort(arrays["y_train"][:images] % digits)
    np.savez(tmp_path / "data.npz", **{**arrays, "x_train": arrays["x_train"][:images], "y_train": labels})
    dataset = data.load(tmp_path / "data.npz")
    held_out, trained_on = dataset.validation[1], dataset.training[1]
    assert len(held_out) == 20
    assert set(held_out) == set(trained_on) == set(range(digits))
    assert sorted([*held_out, *trained_on]) == labels.tolist()


def test_the_hold_out_is_every_twelfth_image_of_each_digit(dataset: Dataset) -> None:
    images, labels = dataset.validation
    assert (np.abs(np.bincount(labels) - np.bincount(dataset.y_train) / 12) < 1).all()
    held_out = {image.tobytes() for image in images}
    for digit in range(10):
        places = [image.tobytes() in held_out for image in dataset.x_train[dataset.y_train == digit]]
        assert set(np.diff(np.flatnonzero(places))) <= {11, 12, 13}
    assert not held_out & {image.tobytes() for image in dataset.training[0]}
    assert len(dataset.training[0]) == len(dataset.training[1]) == len(dataset.x_train) - len(images)


@pytest.mark.parametrize(("content", "fault"), [(None, "does not exist"), (b"", r"is not .* Save .* numpy\.savez")])
def test_a_file_that_is_no_archive_is_named(tmp_path: Path, content: bytes | None, fault: str) -> None:
    path = tmp_path / "data.npz"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=rf"data\.npz {fault}"):
        data.load(path)
    np.savez(path, **good())
    path.write_bytes(path.read_bytes().replace(b"(240, 28, 28), }" + b" " * 12, b"(" + b"9" * 15 + b", 28, 28), }"))
    with pytest.raises(UserError, match=r"data\.npz is not a readable \.npz archive"):
        data.load(path)


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (None, "lacks t10k-labels"),
        (b"\0\0\x08\x01", "not a whole IDX file of unsigned bytes: Not a gzipped file"),
        (gzip.compress(b"\0\0\x0d\x01\0\0\0\x05" + bytes(20)), "not a whole IDX file"),
        (gzip.compress(b"\0\0\x08\x01\0\0\0\x05" + bytes(4)), "not a whole IDX file"),
        (gzip.compress(b"")[:10] + b"\xff" * 99, "not a whole IDX file"),
    ],
)
def test_a_broken_idx_file_is_named(tmp_path: Path, dataset: Dataset, content: bytes | None, fault: str) -> None:
    file = idx_folder(tmp_path, dataset) / data.IDX_FILES["y_test"]
    file.unlink()
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(UserError, match=fault):
        data.load(tmp_path)
