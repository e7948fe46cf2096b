"""A dataset's files: MNIST's IDX, Keras's npz, folders of PNG, CSV. In bounded memory, and the same bytes each time.

Every writer gets a folder, the name of the part ("train" or "test") and its digits, and yields how many it has written.
"""

import gzip
import io
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
_ZIP_EPOCH: Final = (1980, 1, 1, 0, 0, 0)


@dataclass(frozen=True, eq=False)
class Part:
    """One part of a dataset.

    Attributes:
        name: "train" or "test".
        places: int64 [N], of its digits among the dataset's, in their order.
        labels: uint8 [N].
        take: from places to their records, pixels at scale 1.
        scale: pixels a side that each pixel becomes.
    """

    name: str
    places: NDArray[np.int64]
    labels: NDArray[np.uint8]
    take: Callable[[NDArray[np.int64]], Records]
    scale: int

    def __len__(self) -> int:
        return len(self.places)

    @property
    def side(self) -> int:
        return IMAGE_SIDE * self.scale

    def chunks(self) -> Iterator[Records]:
        """Yields the digits' records in their order, in parts, at scale 1."""
        for start in range(0, len(self), _CHUNK):
            yield self.take(self.places[start : start + _CHUNK])

    def enlarged(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Returns uint8 [N, 28, 28] as uint8 [N, side, side]."""
        if self.scale == 1:
            return pixels
        return pixels.repeat(self.scale, axis=1).repeat(self.scale, axis=2)


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
        for chunk in part.chunks():
            file.write(part.enlarged(chunk["pixels"]).tobytes())
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
            for chunk in part.chunks():
                file.write(part.enlarged(chunk["pixels"]).tobytes())
                yield len(chunk)
        with _member(archive, f"y_{part.name}", (len(part),)) as file:
            file.write(part.labels.tobytes())


def _member(archive: zipfile.ZipFile, name: str, shape: tuple[int, ...]) -> IO[bytes]:
    about = zipfile.ZipInfo(f"{name}.npy", _ZIP_EPOCH)
    about.compress_type = zipfile.ZIP_DEFLATED
    file = archive.open(about, "w", force_zip64=True)
    np.lib.format.write_array_header_1_0(file, {"descr": "|u1", "fortran_order": False, "shape": shape})
    return file


def write_png(folder: Path, part: Part) -> Iterator[int]:
    """A folder for each digit, with a PNG for each image: train/7/000041.png is the 42nd of the training part."""
    for digit in range(CLASSES):
        (folder / part.name / str(digit)).mkdir(parents=True)
    place = 0
    for chunk in part.chunks():
        for one, pixels in zip(chunk, part.enlarged(chunk["pixels"]), strict=True):
            Image.fromarray(pixels).save(folder / part.name / str(one["digit"]) / f"{place:06}.png", compress_level=1)
            place += 1
        yield len(chunk)


def write_csv(folder: Path, part: Part) -> Iterator[int]:
    """A line for each image: the label, and the pixels row by row. The first line names the columns."""
    texts = [str(value) for value in range(256)]
    with (folder / f"{part.name}.csv").open("w", encoding="ascii", newline="\n") as file:
        file.write(",".join(["label", *(f"pixel{place}" for place in range(part.side**2))]) + "\n")
        for chunk in part.chunks():
            rows = part.enlarged(chunk["pixels"]).reshape(len(chunk), -1).tolist()
            for label, row in zip(chunk["digit"].tolist(), rows, strict=True):
                file.write(f"{label}," + ",".join([texts[value] for value in row]) + "\n")
            yield len(chunk)


WRITERS: Final[dict[str, Writer]] = {"idx": write_idx, "png": write_png, "npz": write_npz, "csv": write_csv}


def write_labels(folder: Path, parts: tuple[Part, ...]) -> None:
    """A table of all digits, in every format: part, place in it, seed, digit, confidence, logit."""
    with (folder / LABELS).open("w", encoding="ascii", newline="\n") as file:
        file.write("part,place,seed,digit,confidence,logit\n")
        for part in parts:
            place = 0
            for chunk in part.chunks():
                lines = io.StringIO()
                # str of a float32 is the shortest that reads back as the same float32
                for one in chunk:
                    facts = f"{one['seed']},{one['digit']},{one['confidence']},{one['logit']}"
                    lines.write(f"{part.name},{place},{facts}\n")
                    place += 1
                file.write(lines.getvalue())
