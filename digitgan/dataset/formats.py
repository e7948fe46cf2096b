"""A dataset's files: MNIST's IDX, Keras's npz, folders of PNG, CSV. The same digits give the same bytes each time.

Every writer gets a folder, and the records (``serving.dataset.record``) of the parts "train" and "test" in their order.
"""

import csv
import gzip
import struct
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
from PIL import Image

from digitgan.dataset import Format
from serving.contract import CLASSES, IMAGE_SIDE
from serving.dataset import Records

Parts = Mapping[str, Records]

_IDX_UBYTE: Final = 0x08
_MNIST_NAMES: Final = {"train": "train", "test": "t10k"}


def write_idx(folder: Path, parts: Parts) -> None:
    """MNIST's own files, and the same uncompressed in MNIST/raw, where torchvision looks for them.

    IDX (LeCun, Cortes & Burges): two zero bytes, the type, the rank, the big-endian lengths of the axes, the values.
    """
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True)
    for part, records in parts.items():
        for kind, array in (("labels-idx1", records["digit"]), ("images-idx3", records["pixels"])):
            name = f"{_MNIST_NAMES[part]}-{kind}-ubyte"
            head = struct.pack(f">BBBB{array.ndim}I", 0, 0, _IDX_UBYTE, array.ndim, *array.shape)
            content = head + array.tobytes()
            (raw / name).write_bytes(content)
            # Without a time and a name, equal digits have equal bytes.
            with (folder / f"{name}.gz").open("wb") as target, gzip.GzipFile("", "wb", 6, target, mtime=0) as packed:
                packed.write(content)


def write_npz(folder: Path, parts: Parts) -> None:
    """One file with x_train, y_train, x_test and y_test, as Keras lays MNIST out."""
    arrays: dict[str, Any] = {}
    for part, records in parts.items():
        arrays |= {f"x_{part}": records["pixels"], f"y_{part}": records["digit"]}
    np.savez_compressed(folder / "digits.npz", **arrays)


def write_png(folder: Path, parts: Parts) -> None:
    """A folder for each digit, with a PNG for each image: train/7/000041.png is the 42nd of the training part."""
    for part, records in parts.items():
        for digit in range(CLASSES):
            (folder / part / str(digit)).mkdir(parents=True)
        for place, one in enumerate(records):
            path = folder / part / str(one["digit"]) / f"{place:06}.png"
            Image.fromarray(one["pixels"]).save(path, compress_level=1)


def write_csv(folder: Path, parts: Parts) -> None:
    """A line for each image: the label, and the pixels row by row. The first line names the columns."""
    head = ",".join(["label", *(f"pixel{place}" for place in range(IMAGE_SIDE**2))])
    for part, records in parts.items():
        lines = np.column_stack([records["digit"], records["pixels"].reshape(len(records), -1)])
        np.savetxt(folder / f"{part}.csv", lines, "%d", ",", header=head, comments="")


WRITERS: Final[dict[Format, Callable[[Path, Parts], None]]] = {
    "idx": write_idx,
    "png": write_png,
    "npz": write_npz,
    "csv": write_csv,
}


def write_labels(folder: Path, parts: Parts) -> None:
    """A table of all digits, in every format."""
    columns = ["seed", "digit", "confidence", "logit"]
    with (folder / "labels.csv").open("w", encoding="ascii", newline="") as file:
        table = csv.writer(file, lineterminator="\n")
        table.writerow(["part", "place", *columns])
        for part, records in parts.items():
            # The text of a float32 is the shortest that reads back as the same float32.
            table.writerows([part, place, *(one[column] for column in columns)] for place, one in enumerate(records))
