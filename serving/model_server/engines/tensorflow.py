"""SavedModels in a TensorFlow session, as in TensorFlow Serving.

A session, and not ``tf.saved_model.load``, because it takes any shape that the operations take (the
signature isn't enforced, which the API's users see), costs less for each call, and is freed by closing it.
"""

import gc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import tensorflow as tf
from grpc import StatusCode
from numpy.typing import NDArray
from tensorflow.core.protobuf import config_pb2

from serving import apis
from serving.model_server.errors import ServingError, code_of
from serving.model_server.signature import METHODS, Arrays, Signature

GRAPH_FILES = ("saved_model.pb", "saved_model.pbtxt")

tf.get_logger().setLevel("ERROR")  # the session's loader announces its deprecation on every start


class TensorFlowServable:
    """A version in memory; see ``serving.model_server.servable``."""

    def __init__(self, session: Any, signature_defs: apis.SignatureDefMap) -> None:
        self.signature_defs = signature_defs
        self.signatures = {
            name: Signature.from_proto(name, proto) for name, proto in signature_defs.signature_def.items()
        }
        self._session = session
        self._runs: dict[str, Callable[..., list[NDArray[Any]]]] = {}
        for name, signature in self.signatures.items():
            proto = signature_defs.signature_def[name]
            if signature.method_name in METHODS:
                # The call that Keras makes too: straight into TensorFlow, where Session.run would compare shapes.
                options = config_pb2.CallableOptions(
                    feed=[proto.inputs[key].name for key in signature.dtypes],
                    fetch=[proto.outputs[output].name for output in signature.outputs],
                )
                self._runs[name] = session._make_callable_from_options(options)

    def run(self, signature_name: str, inputs: Arrays) -> dict[str, NDArray[Any]]:
        """Runs a signature; see ``serving.model_server.servable``.

        Raises ServingError with the code of the operation that fails.
        """
        signature = self.signatures[signature_name]
        try:
            outputs = self._runs[signature_name](*(inputs[name] for name in signature.dtypes))
        except tf.errors.OpError as error:
            raise ServingError(code_of(error.error_code), error.message) from error
        return {name: np.asarray(output) for name, output in zip(signature.outputs, outputs, strict=True)}

    def close(self) -> None:
        """Frees the model's memory."""
        self._runs.clear()
        self._session.close()
        del self._session
        gc.collect()  # a graph in Python is full of cycles


def load(path: Path, intra_op_threads: int = 0, inter_op_threads: int = 0) -> TensorFlowServable:
    """Loads a SavedModel; see ``serving.model_server.servable``. Raises ServingError with TensorFlow's code."""
    if not any((path / name).is_file() for name in GRAPH_FILES):
        raise ServingError(StatusCode.NOT_FOUND, f"no {' or '.join(GRAPH_FILES)} in {path}")
    config = tf.compat.v1.ConfigProto(
        intra_op_parallelism_threads=intra_op_threads, inter_op_parallelism_threads=inter_op_threads
    )
    config.gpu_options.allow_growth = True
    session = tf.compat.v1.Session(graph=tf.Graph(), config=config)
    try:
        with session.graph.as_default():
            meta_graph = tf.compat.v1.saved_model.load(session, [tf.saved_model.SERVING], str(path))
        signature_defs = apis.SignatureDefMap()
        for name, proto in meta_graph.signature_def.items():
            signature_defs.signature_def[name].ParseFromString(proto.SerializeToString())
        return TensorFlowServable(session, signature_defs)
    except Exception as error:
        session.close()
        raise _load_error(error) from error


def _load_error(error: Exception) -> ServingError:
    """Gives what the loader raises the code that TensorFlow Serving reports for it."""
    match error:
        case tf.errors.OpError():
            return ServingError(code_of(error.error_code), error.message)
        case OSError():  # the loader's word for a graph that isn't one
            return ServingError(StatusCode.DATA_LOSS, str(error))
        case RuntimeError():  # no graph with the tag "serve"
            return ServingError(StatusCode.NOT_FOUND, str(error))
        case ValueError() | KeyError() | TypeError():  # a graph that contradicts itself
            return ServingError(StatusCode.INVALID_ARGUMENT, str(error))
        case _:
            return ServingError(StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
