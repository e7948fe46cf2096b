"""MNIST, or data shaped like it: loading and checking."""

import gzip
import hashlib
import struct
import zipfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.contract import IMAGE_SIDE
from serving.errors import UserError
from training.config import LAST, STRATIFIED

Images = NDArray[np.uint8]
"""Pixels, [N, 28, 28]: 0 is background and 255 full ink."""

IDX_FILES: Final = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
_IDX_UBYTE: Final = b"\0\0\x08"
"""How IDX files of unsigned bytes begin (LeCun, Cortes & Burges, MNIST page); the rank and the sizes follow."""

MOST_HELD_OUT: Final = 5000
LEAST_HELD_OUT: Final = 20
"""An evaluation needs so many."""


@dataclass(frozen=True)
class Dataset:
    """Handwritten digits with their labels, uint8 0 to 9, in two disjoint parts, from ``"keras"`` or a path."""

    source: str
    x_train: Images
    y_train: NDArray[np.uint8]
    x_test: Images
    y_test: NDArray[np.uint8]
    hold_out: str = STRATIFIED

    @cached_property
    def _held_out(self) -> NDArray[np.bool_]:
        """Which training images are held out, bool [N]: a twelfth of them, at least 20 and at most 5,000."""
        images = len(self.x_train)
        count = min(MOST_HELD_OUT, max(LEAST_HELD_OUT, images // 12))
        if self.hold_out == LAST:
            return np.arange(images) >= images - count
        by_class = np.argsort(self.y_train, kind="stable")
        return np.isin(np.arange(images), by_class[np.arange(count) * images // count])

    @cached_property
    def training(self) -> tuple[Images, NDArray[np.uint8]]:
        """The images to train on, with their labels: the training set without the validation images."""
        return self.x_train[~self._held_out], self.y_train[~self._held_out]

    @cached_property
    def validation(self) -> tuple[Images, NDArray[np.uint8]]:
        """The images that every choice and every calibration during training is made on, with their labels."""
        return self.x_train[self._held_out], self.y_train[self._held_out]

    def fingerprint(self) -> str:
        """SHA-256 of the training images' pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.x_train).tobytes()).hexdigest()


def load(path: Path | None, hold_out: str = STRATIFIED) -> Dataset:
    """Loads MNIST through Keras's loader (None), or MNIST-like data from a path. Raises UserError for anything else.

    The path is an ``.npz`` file as Keras lays it out (x_train, y_train, x_test, y_test), or a directory with MNIST's
    four IDX files as they are published (``train-images-idx3-ubyte.gz`` and so on), or unzipped.
    """
    path = path and path.resolve()  # A run may be resumed from elsewhere.
    if path is None:
        source, arrays = "keras", _download()
    elif path.is_dir():
        source, arrays = str(path), {name: _read_idx(path, file) for name, file in IDX_FILES.items()}
    else:
        source, arrays = str(path), _read_npz(path)
    for part in ("train", "test"):
        _check(source, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    for name, least in (("x_train", 2 * LEAST_HELD_OUT), ("x_test", LEAST_HELD_OUT)):
        if (images := len(arrays[name])) < least:
            raise UserError(
                f"{source}: {name} has {images} images, and {least} are needed: {LEAST_HELD_OUT} measure generators"
            )
    uint8 = {name: array.astype(np.uint8, copy=False) for name, array in arrays.items()}
    return Dataset(source, **uint8, hold_out=hold_out)


def _download() -> dict[str, NDArray[Any]]:
    from serving.quiet import quiet_tensorflow_import

    with quiet_tensorflow_import():
        import keras

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when the download fails.
        raise UserError(
            "MNIST could not be downloaded. Pass --data PATH instead: an mnist.npz as Keras lays it out, or a "
            f"directory with MNIST's four IDX files. ({error})"
        ) from error
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    if not path.exists():
        raise UserError(f"{path} does not exist")
    if not zipfile.is_zipfile(path):
        raise UserError(
            f"{path} is not an .npz archive. Save the images (uint8 [N, 28, 28]) and labels with "
            "numpy.savez(path, x_train=…, y_train=…, x_test=…, y_test=…), or give a folder with MNIST's four IDX files"
        )
    try:
        # NumPy leaves a file that it opened itself open where the archive in it is broken.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if missing := [name for name in IDX_FILES if name not in archive]:
                raise UserError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive) or 'nothing'}")
            return {name: np.asanyarray(archive[name]) for name in IDX_FILES}
    except UserError:
        raise
    except Exception as error:  # NumPy, zipfile and zlib document no common one, and a wrong header is a MemoryError.
        raise UserError(f"{path} is not a readable .npz archive: {error}") from error


def _read_idx(folder: Path, name: str) -> NDArray[np.uint8]:
    """Reads one of MNIST's files: zipped or not, with "-idx" or, as some unzip it, ".idx" in its name."""
    found = sorted(folder.glob(name.removesuffix(".gz").replace("-idx", "?idx") + "*"))
    if not found:
        raise UserError(f"{folder} lacks {name}; it needs {', '.join(IDX_FILES.values())}, zipped or not")
    try:
        content = found[0].read_bytes()
        if found[0].suffix == ".gz":
            content = gzip.decompress(content)
        magic, rank = content[:3], content[3]
        if magic != _IDX_UBYTE:
            raise ValueError(f"it begins with {magic.hex(' ')}")
        return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(
            struct.unpack_from(f">{rank}I", content, 4)
        )
    except Exception as error:  # as above
        raise UserError(f"{found[0]} is not a whole IDX file of unsigned bytes: {error}") from error


def _check(source: str, part: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    x, y = f"{source}: x_{part}", f"{source}: y_{part}"
    if images.ndim != 3 or images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE) or not len(images):
        raise UserError(f"{x} must have the shape [N, {IMAGE_SIDE}, {IMAGE_SIDE}], not {list(images.shape)}")
    if images.dtype != np.uint8:
        raise UserError(f"{x} must be uint8 (pixels 0 to 255), not {images.dtype}")
    if labels.shape != (len(images),):
        raise UserError(f"{y} must have one label for each of {len(images)} images, not the shape {list(labels.shape)}")
    if labels.dtype.kind not in "iu":
        raise UserError(f"{y} must hold integers, not {labels.dtype}")
    if labels.min() < 0 or labels.max() > 9:
        raise UserError(f"{y} must hold digits from 0 to 9; it holds {labels.min()} to {labels.max()}")
    if images.max() == images.min():
        raise UserError(f"{x} is blank: every pixel is {images.max()}")
    if images.max() == 1:
        raise UserError(
            f"{x} has only the pixels 0 and 1, which are black: 255 is full ink. Were they floats from 0 to 1? "
            "Multiply by 255 before the cast to uint8"
        )


def in_batches(compute: Callable[[Any], Any], rows: Any, size: int = 500) -> Any:
    """Applies a function to rows, a batch at a time, and joins its arrays: one, or a tuple, list or dict of them."""
    import tensorflow as tf

    parts = [compute(rows[first : first + size]) for first in range(0, len(rows), size)]
    return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *parts)
