"""MNIST, or data shaped like it: loading, checking, and the stream of training batches."""

import gzip
import hashlib
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray

from serving.contract import IMAGE_SHAPE, IMAGE_SIDE, PIXEL_SCALE
from serving.quiet import quiet_tensorflow_import

IDX_FILES: Final = {
    "x_train": "train-images-idx3-ubyte.gz",
    "y_train": "train-labels-idx1-ubyte.gz",
    "x_test": "t10k-images-idx3-ubyte.gz",
    "y_test": "t10k-labels-idx1-ubyte.gz",
}
_IDX_UBYTE: Final = 0x08
"""The IDX format's type code for unsigned bytes (third byte of the header; LeCun, Cortes & Burges, MNIST page)."""


VALIDATION_IMAGES: Final = 5000


def validation_images(images: int) -> int:
    """How many of the training images, the last ones, are held out: 5,000, or a twelfth of a small training set.

    Whatever is chosen while training (a checkpoint, a calibration) is chosen on them, so that the test images are
    met once, at the end.
    """
    return min(VALIDATION_IMAGES, images // 12)


class DataError(ValueError):
    """The data can't be had or isn't MNIST-like. The message names the file and the array at fault."""


@dataclass(frozen=True)
class Dataset:
    """Handwritten digits with their labels, in two disjoint parts.

    Attributes:
        source: ``"keras"`` or the path they were read from.
        x_train: uint8 [N, 28, 28], 0 is background and 255 full ink.
        y_train: uint8 [N], 0 to 9.
        x_test: uint8 [M, 28, 28].
        y_test: uint8 [M], 0 to 9.
    """

    source: str
    x_train: NDArray[np.uint8]
    y_train: NDArray[np.uint8]
    x_test: NDArray[np.uint8]
    y_test: NDArray[np.uint8]

    @property
    def training(self) -> NDArray[np.uint8]:
        """The images to train on: x_train without the validation images."""
        return self.x_train[: len(self.x_train) - validation_images(len(self.x_train))]

    @property
    def validation(self) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """The images to choose by, with their labels."""
        first = len(self.training)
        return self.x_train[first:], self.y_train[first:]

    def fingerprint(self) -> str:
        """SHA-256 of the training images' pixels."""
        return hashlib.sha256(np.ascontiguousarray(self.x_train).tobytes()).hexdigest()


def load(path: Path | None) -> Dataset:
    """Loads MNIST through Keras's loader, or MNIST-like data from a path.

    Args:
        path: None for Keras's download (cached in the user's home directory); otherwise an ``.npz`` file as
            Keras lays it out (x_train, y_train, x_test, y_test), or a directory with MNIST's four IDX files
            as they are published (``train-images-idx3-ubyte.gz`` and so on).

    Raises:
        DataError: there is nothing to read, or it isn't MNIST-like.
    """
    if path is None:
        source, arrays = "keras", _download()
    elif path.is_dir():
        source, arrays = str(path), {name: _read_idx(path / file) for name, file in IDX_FILES.items()}
    else:
        source, arrays = str(path), _read_npz(path)
    for part in ("train", "test"):
        _check(source, part, arrays[f"x_{part}"], arrays[f"y_{part}"])
    return Dataset(source, **{name: array.astype(np.uint8, copy=False) for name, array in arrays.items()})


def _download() -> dict[str, NDArray[Any]]:
    with quiet_tensorflow_import():
        import keras

    try:
        (x_train, y_train), (x_test, y_test) = keras.datasets.mnist.load_data()
    except Exception as error:  # Keras raises a bare Exception when the download fails.
        raise DataError(
            "MNIST could not be downloaded. Pass --data PATH instead: an mnist.npz as Keras lays it out, or a "
            f"directory with MNIST's four IDX files. ({error})"
        ) from error
    return {"x_train": x_train, "y_train": y_train, "x_test": x_test, "y_test": y_test}


def _read_npz(path: Path) -> dict[str, NDArray[Any]]:
    try:
        # NumPy leaves a file that it opened itself open where the archive in it is broken.
        with path.open("rb") as file, np.load(file, allow_pickle=False) as archive:
            if missing := [name for name in IDX_FILES if name not in archive]:
                raise DataError(f"{path} lacks {', '.join(missing)}; it holds {', '.join(archive) or 'nothing'}")
            return {name: archive[name] for name in IDX_FILES}
    except FileNotFoundError as error:
        raise DataError(f"{path} does not exist") from error
    except (OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError) as error:
        raise DataError(f"{path} is not an .npz archive: {error}") from error
    except ValueError as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{path} is not a readable .npz archive: {error}") from error


def _read_idx(path: Path) -> NDArray[np.uint8]:
    try:
        content = gzip.decompress(path.read_bytes())
    except FileNotFoundError as error:
        raise DataError(f"{path.parent} lacks {path.name}; it needs {', '.join(IDX_FILES.values())}") from error
    except (OSError, EOFError) as error:
        raise DataError(f"{path} is not a gzip file: {error}") from error
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] != _IDX_UBYTE:
        raise DataError(f"{path} is not an IDX file of unsigned bytes: it begins with {content[:4].hex(' ')}")
    rank = content[3]
    shape = tuple(int(n) for n in np.frombuffer(content, ">u4", rank, 4)) if len(content) >= 4 + 4 * rank else ()
    if len(shape) != rank or len(content) - 4 - 4 * rank != int(np.prod(shape)):
        raise DataError(f"{path} is cut short or too long for its header, which says {list(shape)}")
    return np.frombuffer(content, np.uint8, offset=4 + 4 * rank).reshape(shape)


def _check(source: str, part: str, images: NDArray[Any], labels: NDArray[Any]) -> None:
    x, y = f"{source}: x_{part}", f"{source}: y_{part}"
    if images.ndim != 3 or images.shape[1:] != (IMAGE_SIDE, IMAGE_SIDE) or not len(images):
        raise DataError(f"{x} must have the shape [N, {IMAGE_SIDE}, {IMAGE_SIDE}], not {list(images.shape)}")
    if images.dtype != np.uint8:
        raise DataError(f"{x} must be uint8 (pixels 0 to 255), not {images.dtype}")
    if labels.shape != (len(images),):
        raise DataError(f"{y} must have one label for each of {len(images)} images, not the shape {list(labels.shape)}")
    if labels.dtype.kind not in "iu" or labels.min() < 0 or labels.max() > 9:
        raise DataError(f"{y} must hold integers from 0 to 9 ({labels.dtype} is there)")
    if images.max() == images.min():
        raise DataError(f"{x} is blank: every pixel is {images.max()}")


def batches(images: NDArray[np.uint8], batch_size: int, seed: int, first_step: int) -> Any:
    """The endless stream of training batches, from any step on.

    The images are shuffled anew for each epoch by a permutation that depends on the seed and the epoch only, and
    the epochs are laid end to end before they are cut into batches: every image is seen exactly once an epoch, and
    the stream from step k on is what an uninterrupted stream would have given from step k on.

    Args:
        images: uint8 [N, 28, 28].
        batch_size: images a batch.
        seed: root of the order.
        first_step: steps already taken.

    Returns:
        A tf.data.Dataset of float32 [batch_size, 28, 28, 1] in -1 … 1.
    """
    import tensorflow as tf

    first_epoch, within = divmod(first_step * batch_size, len(images))
    pixels = tf.constant(images.reshape(-1, *IMAGE_SHAPE))

    def epoch_order(epoch: Any) -> Any:
        order = tf.random.experimental.stateless_shuffle(tf.range(len(images)), seed=[seed, epoch])
        return tf.data.Dataset.from_tensor_slices(order)

    def scaled(indices: Any) -> Any:
        return tf.cast(tf.gather(pixels, indices), tf.float32) / PIXEL_SCALE - 1.0

    return (
        tf.data.Dataset.range(first_epoch, np.iinfo(np.int32).max)
        .map(lambda epoch: tf.cast(epoch, tf.int32))
        .flat_map(epoch_order)
        .skip(within)
        .batch(batch_size, drop_remainder=True)
        .map(scaled)
        .prefetch(2)
    )
