"""Warm-up: the requests that a version answers before it counts as available.

They lie in the version's directory as a TFRecord file of PredictionLog, as TensorFlow Serving reads it.
"""

import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import BinaryIO, Final

import google_crc32c
from google.protobuf.message import DecodeError
from grpc import StatusCode

from serving import apis
from serving.contract import WARMUP_REQUESTS
from serving.model_server import signature as signatures
from serving.model_server.errors import ServingError
from serving.model_server.runner import Runner

MAX_RECORDS: Final = 1000
"""As many as TensorFlow Serving accepts."""


class _Patient:
    """A caller that never leaves."""

    def is_active(self) -> bool:
        return True

    def add_callback(self, callback: Callable[[], None]) -> bool:
        return True


def warm_up(runner: Runner, version_dir: Path) -> int:
    """Runs the warm-up requests of the version in ``version_dir`` and returns how many there were; none is
    fine.

    Raises ServingError for the first that fails, with its number in the file, for a damaged file
    (DATA_LOSS) and for too many records (INVALID_ARGUMENT).
    """
    path = version_dir / WARMUP_REQUESTS
    if not path.is_file():
        return 0
    count = 0
    try:
        with path.open("rb") as file:
            for record in _records(file):
                count += 1
                if count > MAX_RECORDS:
                    raise ServingError(StatusCode.INVALID_ARGUMENT, f"more than {MAX_RECORDS} warm-up requests")
                _replay(runner, record)
    except ServingError as error:
        raise ServingError(error.code, f"warm-up request {count}: {error.message}") from error
    return count


def _records(file: BinaryIO) -> Iterator[bytes]:
    """Yields the records of a TFRecord file. Each is its length, its bytes, and a checksum after either.

    Source: tensorflow/core/lib/io/record_writer.h. Raises ServingError DATA_LOSS for a damaged file.
    """
    while head := file.read(12):
        length = _checked(head, 8)
        (size,) = struct.unpack("<Q", length)
        yield _checked(file.read(size + 4), size)


def _checked(content: bytes, size: int) -> bytes:
    """Returns the ``size`` bytes before their checksum, which is a CRC-32C, rotated and added to."""
    if len(content) < size + 4:
        raise ServingError(StatusCode.DATA_LOSS, "the file is cut short after it")
    crc = google_crc32c.value(content[:size])
    masked = ((crc >> 15 | crc << 17) + 0xA282EAD8) % 2**32
    if content[size:] != struct.pack("<I", masked):
        raise ServingError(StatusCode.DATA_LOSS, "what comes after it has another checksum")
    return content[:size]


def _replay(runner: Runner, record: bytes) -> None:
    try:
        log = apis.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError(StatusCode.INVALID_ARGUMENT, "not a PredictionLog") from error
    if log.WhichOneof("log_type") != "predict_log":
        raise ServingError(StatusCode.UNIMPLEMENTED, "only calls of Predict can be replayed")
    request = log.predict_log.request
    signature = signatures.choose(runner.signatures, request.model_spec.signature_name)
    signatures.choose_outputs(signature, request.output_filter)
    runner.run(signature.name, signatures.read_inputs(signature, request.inputs), _Patient())
