"""The flags of ``digitgan up`` let as many calls wait at the model server as gateways make."""

import grpc

from serving.apis import PREDICT, PredictRequest, PredictResponse
from serving.contract import GENERATOR, NOISE
from serving.noise import noise_from_seeds
from serving.tf_serving.server_config import GRPC_MAX_THREADS
from serving.tf_serving.tensors import to_proto

ROWS = 16


def test_as_many_calls_at_once_as_there_are_threads_are_answered(model_server: str) -> None:
    """TensorFlow Serving's default is four threads for each CPU; more calls were RESOURCE_EXHAUSTED."""
    calls = GRPC_MAX_THREADS // 2
    request = PredictRequest(model_spec={"name": GENERATOR}, inputs={NOISE: to_proto(noise_from_seeds(range(ROWS)))})
    with grpc.insecure_channel(model_server) as channel:
        predict = channel.unary_unary(PREDICT, PredictRequest.SerializeToString, PredictResponse.FromString)
        futures = [predict.future(request, timeout=90) for _ in range(calls)]
        codes = [future.code() for future in futures]
    assert codes == [grpc.StatusCode.OK] * calls
