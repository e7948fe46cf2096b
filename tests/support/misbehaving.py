"""A model server that does what a test tells it: a real gRPC server on a real socket, made to misbehave."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar, Self

import grpc
import numpy as np
from numpy.typing import NDArray

from serving import apis
from serving.apis import ModelSpec, ModelVersionStatus, PredictRequest
from serving.contract import IMAGES, MODELS, NOISE, SIGNATURE, SIGNATURES
from serving.tf_serving.tensors import to_proto

Behaviour = Callable[[PredictRequest, grpc.ServicerContext], bytes]


def answer(
    request: PredictRequest,
    changes: dict[str, NDArray[Any] | None] | None = None,
    *,
    model: str | None = None,
    version: int | None = 1,
) -> bytes:
    """What the contract promises in answer to ``request``, all zeros, but for ``changes`` (None leaves one out)."""
    spec = SIGNATURES[request.model_spec.name, request.model_spec.signature_name or SIGNATURE]
    rows = request.inputs[spec.input.name].tensor_shape.dim[0].size
    tensors = {one.name: np.zeros((rows, *one.shape), one.dtype) for one in spec.outputs} | (changes or {})
    used = {} if version is None else {"version": {"value": version}}
    answer: bytes = apis.PredictResponse(
        model_spec={"name": spec.name if model is None else model, **used},
        outputs={key: to_proto(value) for key, value in tensors.items() if value is not None},
    ).SerializeToString()
    return answer


def honest(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
    """Answers as the contract says, as version 1 or the one that was asked for."""
    spec = request.model_spec
    return answer(request, version=spec.version.value if spec.HasField("version") else 1)


def failing(code: grpc.StatusCode, message: str = "on purpose") -> Behaviour:
    """Fails with ``code``."""
    return lambda request, context: context.abort(code, message)


def noisy(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
    """Answers for the generator with images that cannot be compressed."""
    rows = request.inputs[NOISE].tensor_shape.dim[0].size
    return answer(request, {IMAGES: np.random.default_rng().integers(0, 256, (rows, 28, 28, 1), np.uint8)})


def delayed(seconds: float) -> Behaviour:
    """Answers honestly after a pause."""

    def behaviour(request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        time.sleep(seconds)
        return honest(request, context)

    return behaviour


class Holding:
    """Keeps calls until ``release``, or until the end of its block, then answers honestly. ``held``: how many it keeps.
    ``cancelled``: those that ended before. ``seconds_left``: what each call had when it came.
    """

    def __init__(self) -> None:
        self.held = self.cancelled = 0
        self.seconds_left: list[float] = []
        self._lock = threading.Lock()
        self._released = threading.Event()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()

    def __call__(self, request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        ended = threading.Event()
        if not context.add_callback(ended.set):  # it has ended already
            ended.set()
        with self._lock:
            self.held += 1
            self.seconds_left.append(context.time_remaining())
        while not self._released.is_set() and not ended.wait(0.01):
            pass
        with self._lock:
            self.held -= 1
            self.cancelled += ended.is_set()
        return honest(request, context)

    def release(self) -> None:
        """Answers those that are kept, and all that come."""
        self._released.set()


class MisbehavingServer:
    """Answers Predict by ``behaviour`` and GetModelStatus by ``statuses`` (model → (version, state) pairs), with
    the ``errors`` (version → code and message) that ended a version. ``labels``: model → label → version, as TensorFlow
    Serving has them; GetModelMetadata and ``by_label`` refuse any other label.

    ``release`` is set at the end: a behaviour can wait on it in place of sleeping. ``silent``: it tells no states until
    then. ``calls`` counts Predict.
    """

    running: ClassVar[set[MisbehavingServer]] = set()

    def __init__(self, address: str, credentials: grpc.ServerCredentials | None = None) -> None:
        self.release = threading.Event()
        self.silent = False
        self.calls = 0
        self.reset()
        self._server = grpc.server(ThreadPoolExecutor(16))
        for service, methods in (
            (apis.PREDICTION_SERVICE, {"Predict": self.predict, "GetModelMetadata": self.metadata}),
            (apis.MODEL_SERVICE, {"GetModelStatus": self.status}),
        ):
            handlers: dict[str, Any] = {name: grpc.unary_unary_rpc_method_handler(one) for name, one in methods.items()}
            self._server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(service, handlers),))
        if credentials:
            port = self._server.add_secure_port(address, credentials)
        else:
            port = self._server.add_insecure_port(address)
        self.target = address if address.startswith("unix:") else f"127.0.0.1:{port}"

    def __enter__(self) -> MisbehavingServer:
        self._server.start()
        self.running.add(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.running.discard(self)
        self.release.set()
        self._server.stop(grace=0).wait()

    def reset(self) -> None:
        """Makes the server honest, with version 1 of each model."""
        self.behaviour: Behaviour = honest
        self.statuses: dict[str, list[tuple[int, int]]] = {
            model: [(1, ModelVersionStatus.AVAILABLE)] for model in MODELS
        }
        self.errors: dict[int, tuple[int, str]] = {}
        self.labels: dict[str, dict[str, int]] = {}

    def version_of(self, spec: ModelSpec, context: grpc.ServicerContext) -> int:
        """Returns the version in ``statuses`` that answers: the one in ``spec``, or the newest. Refuses any other."""
        available = [version for version, state in self.statuses[spec.name] if state == ModelVersionStatus.AVAILABLE]
        version = spec.version.value if spec.HasField("version") else max(available, default=0)
        if version not in available:
            context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")
        return version

    def predict(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        self.calls += 1
        return self.behaviour(PredictRequest.FromString(request), context)

    def status(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        if self.silent:
            self.release.wait()
        name = apis.GetModelStatusRequest.FromString(request).model_spec.name
        if name not in self.statuses:
            context.abort(grpc.StatusCode.NOT_FOUND, f"Could not find any versions of model {name}")
        response = apis.GetModelStatusResponse()
        for version, state in self.statuses[name]:
            code, message = self.errors.get(version, (0, ""))
            status = {"error_code": code, "error_message": message}
            response.model_version_status.add(version=version, state=state, status=status)
        answer: bytes = response.SerializeToString()
        return answer

    def metadata(self, request: bytes, context: grpc.ServicerContext) -> bytes:
        spec = apis.GetModelMetadataRequest.FromString(request).model_spec
        used = {"name": spec.name, "version": {"value": self.labelled(spec, context)}}
        answer: bytes = apis.GetModelMetadataResponse(model_spec=used).SerializeToString()
        return answer

    def by_label(self, request: PredictRequest, context: grpc.ServicerContext) -> bytes:
        """A behaviour: answers for labels that exist."""
        return answer(request, version=self.labelled(request.model_spec, context))

    def labelled(self, spec: ModelSpec, context: grpc.ServicerContext) -> int:
        """Returns the version of the label in ``spec``, or refuses it as TensorFlow Serving does."""
        version = self.labels.get(spec.name, {}).get(spec.version_label)
        if version is None:
            words = f"Unrecognized servable version label: {spec.version_label}"
            context.abort(grpc.StatusCode.INVALID_ARGUMENT, words)
        return version
