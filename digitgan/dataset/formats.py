"""A dataset's files: MNIST's IDX, Keras's npz, folders of PNG, CSV. In bounded memory, and the same bytes each time.

Every writer gets a folder and a part, and yields how many digits it has written.
"""

import csv
import gzip
import shutil
import struct
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from serving.contract import CLASSES, IMAGE_SIDE
from serving.dataset import Records

NPZ: Final = "digits.npz"
LABELS: Final = "labels.csv"
_CHUNK: Final = 1024
_IDX_UBYTE: Final = 0x08
_MNIST_NAMES: Final = {"train": "train", "test": "t10k"}


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a dataset.

    Attributes:
        name: "train" or "test".
        records: all digits of the dataset, pixels at scale 1.
        places: int64 [N], of this part's digits among them, in their order.
        scale: pixels a side that each pixel becomes.
    """

    name: str
    records: Records
    places: NDArray[np.int64]
    scale: int

    def __len__(self) -> int:
        return len(self.places)

    @property
    def labels(self) -> NDArray[np.uint8]:
        """uint8 [N]."""
        return self.records["digit"][self.places]

    @property
    def side(self) -> int:
        return IMAGE_SIDE * self.scale

    def chunks(self) -> Iterator[tuple[Records, NDArray[np.uint8]]]:
        """Yields the digits' records in their order, in chunks, with the enlarged pixels, uint8 [chunk, side, side]."""
        for start in range(0, len(self), _CHUNK):
            chunk = self.records[self.places[start : start + _CHUNK]]
            yield chunk, chunk["pixels"].repeat(self.scale, axis=1).repeat(self.scale, axis=2)


Writer = Callable[[Path, Part], Iterator[int]]


def write_idx(folder: Path, part: Part) -> Iterator[int]:
    """MNIST's own files, and the same uncompressed in MNIST/raw, where torchvision looks for them.

    IDX: two zero bytes, the type's code, the rank, the big-endian lengths of the axes, the values (LeCun, Cortes &
    Burges, the MNIST page).
    """
    raw = folder / "MNIST" / "raw"
    raw.mkdir(parents=True, exist_ok=True)
    prefix = _MNIST_NAMES[part.name]
    labels, images = f"{prefix}-labels-idx1-ubyte", f"{prefix}-images-idx3-ubyte"
    (raw / labels).write_bytes(_idx_head(len(part)) + part.labels.tobytes())
    with (raw / images).open("wb") as file:
        file.write(_idx_head(len(part), part.side, part.side))
        for chunk, pixels in part.chunks():
            file.write(pixels.tobytes())
            yield len(chunk)
    for name in (labels, images):
        with (
            (raw / name).open("rb") as source,
            (folder / f"{name}.gz").open("wb") as target,
            # Neither a time nor a name: equal digits, equal bytes.
            gzip.GzipFile("", "wb", 6, target, mtime=0) as packed,
        ):
            shutil.copyfileobj(source, packed, 2**20)


def _idx_head(*lengths: int) -> bytes:
    return struct.pack(f">BBBB{len(lengths)}I", 0, 0, _IDX_UBYTE, len(lengths), *lengths)


def write_npz(folder: Path, part: Part) -> Iterator[int]:
    """One file with x_train, y_train, x_test and y_test, as Keras lays MNIST out."""
    with zipfile.ZipFile(folder / NPZ, "a", zipfile.ZIP_DEFLATED) as archive:
        with _member(archive, f"x_{part.name}", (len(part), part.side, part.side)) as file:
            for chunk, pixels in part.chunks():
                file.write(pixels.tobytes())
                yield len(chunk)
        with _member(archive, f"y_{part.name}", (len(part),)) as file:
            file.write(part.labels.tobytes())


def _member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> IO[bytes]:
    file = archive.open(f"{name}.npy", "w", force_zip64=True)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file


def write_png(folder: Path, part: Part) -> Iterator[int]:
    """A folder for each digit, with a PNG for each image: train/7/000041.png is the 42nd of the training part."""
    for digit in range(CLASSES):
        (folder / part.name / str(digit)).mkdir(parents=True)
    place = 0
    for chunk, pixels in part.chunks():
        for digit, image in zip(chunk["digit"], pixels, strict=True):
            Image.fromarray(image).save(folder / part.name / str(digit) / f"{place:06}.png", compress_level=1)
            place += 1
        yield len(chunk)


def write_csv(folder: Path, part: Part) -> Iterator[int]:
    """A line for each image: the label, and the pixels row by row. The first line names the columns."""
    with (folder / f"{part.name}.csv").open("w", encoding="ascii", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["label", *(f"pixel{place}" for place in range(part.side**2))])
        for chunk, pixels in part.chunks():
            lines.writerows(np.column_stack([chunk["digit"], pixels.reshape(len(chunk), -1)]).tolist())
            yield len(chunk)


WRITERS: Final[dict[str, Writer]] = {"idx": write_idx, "png": write_png, "npz": write_npz, "csv": write_csv}


def write_labels(folder: Path, parts: tuple[Part, ...]) -> None:
    """A table of all digits, in every format."""
    columns = ("seed", "digit", "confidence", "logit")
    with (folder / LABELS).open("w", encoding="ascii", newline="") as file:
        lines = csv.writer(file, lineterminator="\n")
        lines.writerow(["part", "place", *columns])
        for part in parts:
            # The text of a float32 is the shortest that reads back as the same float32.
            facts = zip(*(part.records[name][part.places] for name in columns), strict=True)
            lines.writerows([part.name, place, *fact] for place, fact in enumerate(facts))
