"""How requests to the gateway are written, and how its answers are read.

Nothing here imports ``serving``: a program that uses the client may have a module of its own with that name.
"""

import csv
import io
import os
import zipfile
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, Literal

import httpx
import numpy as np
from numpy.typing import ArrayLike, NDArray
from PIL import Image

from digitgan.client.errors import AnswerError, BrokenStreamError, DigitganError
from digitgan.client.results import Digits, LabelledDigits

JSON: Final = "application/json"
NPY: Final = "application/x-npy"
ZIP: Final = "application/zip"
FORMATS: Final = {".png": "image/png", ".zip": ZIP, ".npy": NPY, ".json": JSON}  # by the end of a file's name

Balance = Literal["uniform", "mnist", "natural"]
Seeds = int | Iterable[int] | NDArray[np.integer[Any]]
ImageInput = NDArray[np.uint8] | bytes | str | os.PathLike[str]


def generate_body(
    count: int | None, seeds: Seeds | None, noise: ArrayLike | None, options: dict[str, Any]
) -> dict[str, Any]:
    """Returns the body of POST /generate. Without seeds, noise or a count it requests one digit."""
    body = given({"count": count, **options})
    if seeds is not None:
        body["seeds"] = [seeds] if isinstance(seeds, int | np.integer) else list(seeds)
    if noise is not None:
        body["noise"] = np.atleast_2d(np.asarray(noise, np.float32)).tolist()
    return body if body.keys() & {"count", "seeds", "noise"} else {"count": 1, **body}


def given(options: dict[str, Any]) -> dict[str, Any]:
    """Returns the options that are set: those that are neither None nor False."""
    return {name: value for name, value in options.items() if value is not None and value is not False}


def file_of(image: ImageInput) -> bytes:
    """Returns an image file. Raises ValueError for an array that is no image, OSError for a path that can't be read."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, np.ndarray):
        if image.dtype != np.uint8 or image.ndim != 2:
            raise ValueError(f"images should be uint8 [H, W] or [N, H, W], not {image.dtype} {list(image.shape)}")
        file = io.BytesIO()
        Image.fromarray(image).save(file, "PNG", compress_level=1)
        return file.getvalue()
    return Path(image).read_bytes()


@contextmanager
def reading(response: httpx.Response) -> Iterator[None]:
    """Raises AnswerError if the block can't read the answer, since it isn't one of a digitgan gateway."""
    try:
        yield
    except DigitganError:
        raise
    except (ValueError, KeyError, TypeError, AttributeError, OSError, zipfile.BadZipFile) as error:
        raise AnswerError(f"{response.url} answers, but not as this client's digitgan gateway: {error}") from error


def maker_of(response: httpx.Response) -> tuple[str, int]:
    """Returns the model and the version that made the digits."""
    return response.headers["X-Model"], int(response.headers["X-Model-Version"])


def digits_from_npy(response: httpx.Response, body: dict[str, Any]) -> Digits:
    """Returns the digits of an array that answers ``body``."""
    model, version = maker_of(response)
    pixels = np.load(io.BytesIO(response.content), allow_pickle=False)
    if "noise" in body:
        seeds = None
    elif "seeds" in body:
        seeds = np.array(body["seeds"], np.uint64)
    else:
        first, _, last = response.headers["X-Seeds"].partition("-")
        seeds = np.arange(int(first), int(last or first) + 1, dtype=np.uint64)
    return Digits(pixels, seeds, None, None, model, version)


def digits_from_zip(response: httpx.Response) -> Digits:
    """Returns the digits, with their labels, of an archive."""
    model, version = maker_of(response)
    with zipfile.ZipFile(io.BytesIO(response.content)) as archive:
        table = list(csv.DictReader(io.StringIO(archive.read("labels.csv").decode())))
        files = [io.BytesIO(archive.read(row["file"])) for row in table]
    pixels = np.stack([np.asarray(Image.open(file, formats=("PNG",))) for file in files])
    return Digits(
        pixels,
        np.array([int(row["seed"]) for row in table], np.uint64) if table[0]["seed"] else None,
        np.array([int(row["digit"]) for row in table], np.uint8),
        np.array([float(row["confidence"]) for row in table], np.float32),
        model,
        version,
    )


async def read_records(
    response: httpx.Response, chunks: AsyncIterator[bytes], count: int, scale: int
) -> AsyncGenerator[LabelledDigits, None]:
    """Yields the digits of POST /dataset as they come. Raises BrokenStreamError if digits are missing at the end."""
    versions = {
        "generator": int(response.headers["X-Model-Version"]),
        "classifier": int(response.headers["X-Classifier-Version"]),
        "discriminator": int(response.headers["X-Discriminator-Version"]),
    }
    side = 28 * scale
    record = np.dtype(
        [("seed", "<u8"), ("digit", "u1"), ("confidence", "<f4"), ("logit", "<f4"), ("pixels", "u1", (side, side))]
    )
    left, rest, has_head = count, b"", False
    async for chunk in chunks:
        rest += chunk
        if not has_head:
            if len(rest) < 10 or len(rest) < 10 + int.from_bytes(rest[8:10], "little"):
                continue
            rest = _without_head(rest, count, record)
            has_head = True
        if whole := len(rest) // record.itemsize:
            records = np.frombuffer(rest, record, whole)
            rest = rest[whole * record.itemsize :]
            left -= whole
            yield LabelledDigits(
                records["pixels"], records["seed"], records["digit"], records["confidence"], records["logit"], versions
            )
    if left or rest:
        raise BrokenStreamError(f"{response.url}: the answer broke off, {left} digits before its end")


def _without_head(content: bytes, count: int, record: np.dtype[np.void]) -> bytes:
    """Returns what follows the head of an .npy file. Raises ValueError for another array."""
    file = io.BytesIO(content)
    if np.lib.format.read_magic(file) != (1, 0):
        raise ValueError("not an .npy file of version 1.0")
    shape, _, dtype = np.lib.format.read_array_header_1_0(file)
    if dtype != record or shape != (count,):
        raise ValueError(f"{list(shape)} records of {dtype}, not {[count]} of {record}")
    return file.read()
