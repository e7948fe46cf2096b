"""Warm-up: the requests that a version answers before it counts as available.

They lie in the version's directory as a TFRecord file of PredictionLog, as TensorFlow Serving reads it.
"""

from pathlib import Path
from typing import Final

import tensorflow as tf
from google.protobuf.message import DecodeError
from grpc import StatusCode

from serving import apis
from serving.contract import WARMUP_REQUESTS
from serving.model_server import signature as signatures
from serving.model_server.errors import ServingError, code_of
from serving.model_server.servable import Servable

MAX_RECORDS: Final = 1000
"""As many as TensorFlow Serving accepts."""


def warm_up(servable: Servable, version_dir: Path) -> int:
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
        for record in tf.data.TFRecordDataset(str(path)).as_numpy_iterator():
            count += 1
            if count > MAX_RECORDS:
                raise ServingError(StatusCode.INVALID_ARGUMENT, f"more than {MAX_RECORDS} warm-up requests")
            _replay(servable, record)
    except tf.errors.OpError as error:
        raise ServingError(code_of(error.error_code), f"warm-up requests: {error.message}") from error
    except ServingError as error:
        raise ServingError(error.code, f"warm-up request {count}: {error.message}") from error
    return count


def _replay(servable: Servable, record: bytes) -> None:
    try:
        log = apis.PredictionLog.FromString(record)
    except DecodeError as error:
        raise ServingError(StatusCode.INVALID_ARGUMENT, "not a PredictionLog") from error
    if log.WhichOneof("log_type") != "predict_log":
        raise ServingError(StatusCode.UNIMPLEMENTED, "only calls of Predict can be replayed")
    request = log.predict_log.request
    signature = signatures.choose(servable.signatures, request.model_spec.signature_name)
    signatures.choose_outputs(signature, request.output_filter)
    servable.run(signature.name, signatures.read_inputs(signature, request.inputs))
