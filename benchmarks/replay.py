"""A model server that answers at once: python -m benchmarks.replay digits.npy socket

It has the real one's digits, and gives the first N of them whatever is asked. What is left of a request's time in front
of it is the gateway's, and both sides of the gRPC call.
"""

import sys
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from typing import Any

import grpc
import numpy as np

from serving.apis import (
    GET_MODEL_STATUS,
    PREDICT,
    GetModelStatusResponse,
    ModelVersionStatus,
    PredictRequest,
    PredictResponse,
)
from serving.contract import GENERATOR, IMAGES, NOISE
from serving.tf_serving.tensors import to_proto


class Replay(grpc.GenericRpcHandler):
    """Predict and GetModelStatus. ``digits``: uint8 [256, 28, 28]."""

    def __init__(self, digits: Any) -> None:
        @cache
        def answer(count: int) -> bytes:
            return PredictResponse(
                model_spec={"name": GENERATOR, "version": {"value": 1}},
                outputs={IMAGES: to_proto(digits[:count, ..., np.newaxis])},
            ).SerializeToString()

        status = GetModelStatusResponse(model_version_status=[{"version": 1, "state": ModelVersionStatus.AVAILABLE}])
        known = status.SerializeToString()

        def predict(request: bytes, _: grpc.ServicerContext) -> bytes:
            return answer(PredictRequest.FromString(request).inputs[NOISE].tensor_shape.dim[0].size)

        self._methods: dict[str, Any] = {
            PREDICT: grpc.unary_unary_rpc_method_handler(predict),
            GET_MODEL_STATUS: grpc.unary_unary_rpc_method_handler(lambda request, context: known),
        }

    def service(self, details: grpc.HandlerCallDetails) -> Any:
        return self._methods.get(details.method)


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(16))
    server.add_generic_rpc_handlers((Replay(np.load(sys.argv[1])),))
    server.add_insecure_port(f"unix:{sys.argv[2]}")
    server.start()
    print("ready", flush=True)
    server.wait_for_termination()
