"""A version in memory: compared with its model card, loaded, warmed up, and run.

version = load_version(Path("models/generator/1"), ServerOptions(()))
images = version.run("serving_default", {"noise": noise})["images"]
"""

import ctypes
import logging
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Semaphore
from typing import Final

import numpy as np
from google.protobuf.message import DecodeError
from grpc import StatusCode

from serving import apis
from serving.contract import BATCH_SIZES, MODEL_CARD, WARMUP_REQUESTS
from serving.model_server.errors import ServingError, invalid_argument
from serving.model_server.options import ServerOptions
from serving.model_server.saved_model import Arrays, SavedModel, load
from serving.versions.model_card import CardError, verify

ROWS_AT_ONCE: Final = 32
"""Larger pieces need more memory and no less time a row."""

REQUESTS_AT_ONCE: Final = 2

_LIBC: Final = ctypes.CDLL(None)
_MALLOC_TRIM: Final = getattr(_LIBC, "malloc_trim", None)
"""Gives the system the memory that loading has freed: 100 MB, which the C library (glibc) would keep."""
_M_ARENA_MAX: Final = -8
if _mallopt := getattr(_LIBC, "mallopt", None):
    _mallopt(_M_ARENA_MAX, 2)  # of glibc's usual eight heaps for each CPU, parts stay unused

_log = logging.getLogger(__name__)


class LoadedVersion:
    """A SavedModel that runs two requests at a time, and the others wait.

    OpenVINO uses all CPUs for the first of the two. It begins with the second while Python copies the first's outputs.

    Rows are filled up to one of ``serving.contract.BATCH_SIZES``, which the model is warmed up with, by repeating the
    last one. OpenVINO takes time when a size is new to it, and rounds a row otherwise at some other sizes.
    """

    def __init__(self, model: SavedModel, max_batch_size: int | None) -> None:
        self.model = model
        self._max_batch_size = max_batch_size
        self._turns = Semaphore(REQUESTS_AT_ONCE)

    def run(self, signature_name: str, inputs: Arrays, is_active: Callable[[], bool] = lambda: True) -> Arrays:
        """Returns all outputs of a signature, if the client ``is_active`` when it is this request's turn.

        Raises ServingError: INVALID_ARGUMENT for inputs of different lengths or with too many rows, CANCELLED if the
        client does not wait any more, and what the model itself raises.
        """
        rows = _rows(inputs) if self._max_batch_size else 0
        if self._max_batch_size and rows > self._max_batch_size:
            raise invalid_argument(f"Task size {rows} is larger than maximum input batch size {self._max_batch_size}")
        with self._turns:
            if not is_active():
                raise ServingError(StatusCode.CANCELLED, "the client left before its turn came")
            if not rows:
                return self.model.run(signature_name, inputs)[0]
            starts = range(0, rows, ROWS_AT_ONCE)
            sizes = [next(size for size in BATCH_SIZES if size >= min(rows - at, ROWS_AT_ONCE)) for at in starts]
            places = [np.minimum(np.arange(at, at + size), rows - 1) for at, size in zip(starts, sizes, strict=True)]
            pieces = [{name: array[each] for name, array in inputs.items()} for each in places]
            outputs = self.model.run(signature_name, *pieces)
        for size, found in zip(sizes, outputs, strict=True):
            for name, output in found.items():
                if output.shape[:1] != (size,):
                    raise ServingError(
                        StatusCode.FAILED_PRECONDITION,
                        f"Batched output {name} has the shape {list(output.shape)} for {size} input rows: only "
                        "signatures that keep the first dimension can run in batches",
                    )
        return {name: np.concatenate([found[name] for found in outputs])[:rows] for name in outputs[0]}

    def warm_up(self, signature_name: str, inputs: Arrays) -> None:
        """Runs a request; of more than ROWS_AT_ONCE rows only the first piece, for the others have its size."""
        if self._max_batch_size and _rows(inputs):
            inputs = {name: array[:ROWS_AT_ONCE] for name, array in inputs.items()}
        self.run(signature_name, inputs)


def _rows(inputs: Arrays) -> int:
    if not all(array.ndim for array in inputs.values()):
        raise invalid_argument("Batching input tensors must have at least one dimension")
    sizes = {len(array) for array in inputs.values()}
    if len(sizes) > 1:
        raise invalid_argument("Batching input tensors must have equal 0th-dimension sizes in a request")
    return max(sizes, default=0)


def load_version(path: Path, options: ServerOptions) -> LoadedVersion:
    """Loads the version in the directory ``path``, and runs its warm-up requests.

    Raises ServingError: DATA_LOSS for files that are not the model card's, FAILED_PRECONDITION without a required
    card, and what loading and the first failing warm-up request raise.
    """
    _verify(path, options.require_model_cards)
    version = LoadedVersion(load(path, options.threads), options.max_batch_size)
    try:
        _warm_up(version, path / WARMUP_REQUESTS)
    except BaseException:
        version.model.close()
        raise
    if _MALLOC_TRIM:
        _MALLOC_TRIM(0)
    return version


def _verify(path: Path, require_card: bool) -> None:
    """Compares the files with the model card (SHA-256). TensorFlow Serving knows no cards, so none is needed."""
    if (path / MODEL_CARD).exists():
        try:
            verify(path)
        except CardError as error:
            raise ServingError(StatusCode.DATA_LOSS, str(error)) from error
    elif require_card:
        raise ServingError(StatusCode.FAILED_PRECONDITION, f"no {MODEL_CARD} in {path}, and cards are required")
    else:
        _log.warning("%s: no %s, so its files are not verified", path, MODEL_CARD)


def _warm_up(version: LoadedVersion, path: Path) -> None:
    """Runs the requests of a TFRecord file of PredictionLog, as TensorFlow Serving does. No file is fine."""
    content = path.read_bytes() if path.is_file() else b""
    for count, record in enumerate(_records(content), 1):
        try:
            log = apis.PredictionLog.FromString(record)
            if log.WhichOneof("log_type") != "predict_log":
                raise ServingError(StatusCode.UNIMPLEMENTED, "only calls of Predict can be replayed")
            signature, inputs, _ = version.model.read(log.predict_log.request)
            version.warm_up(signature, inputs)
        except DecodeError as error:
            raise invalid_argument(f"warm-up request {count}: not a PredictionLog") from error
        except ServingError as error:
            raise ServingError(error.code, f"warm-up request {count}: {error.message}") from error


def _records(content: bytes) -> Iterator[bytes]:
    """Yields the records of a TFRecord file: a length, its checksum, the bytes, their checksum.

    The checksums are not compared: the model card has the SHA-256 of the whole file.
    """
    first = 0
    while first < len(content):
        size = struct.unpack_from("<Q", content, first)[0] if len(content) - first >= 12 else 0
        end = first + 12 + size
        if size == 0 or len(content) < end + 4:
            raise ServingError(StatusCode.DATA_LOSS, "the file of warm-up requests is cut short")
        yield content[first + 12 : end]
        first = end + 4
