"""An asynchronous client of a model server with TensorFlow Serving's gRPC API, without TensorFlow.

client = ModelClient(GrpcTransport("127.0.0.1:8500"))
prediction = await client.predict("generator", noise, timeout_s=5)
"""

import asyncio
import json
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Protocol, TypeVar

import grpc
import numpy as np
from google.protobuf.message import DecodeError, Message
from numpy.typing import NDArray

from serving import apis
from serving.contract import SIGNATURE, SIGNATURES, ModelSpec, TensorSpec
from serving.tf_serving.tensors import TensorError, to_array, to_proto

Array = NDArray[Any]
_M = TypeVar("_M", bound=Message)

MAX_MESSAGE_BYTES: Final = 64 * 2**20

STATES: Final[dict[int, str]] = {number: name for name, number in apis.ModelVersionStatus.State.items()}
_ON_THE_WAY: Final = ("START", "LOADING", "AVAILABLE")
_STATUS_NAMES: Final = {code.value[0]: code.name for code in grpc.StatusCode}

_SERVICE_CONFIG: Final[dict[str, Any]] = {
    "loadBalancingConfig": [{"round_robin": {}}],
    "methodConfig": [
        {
            "name": [{}],  # all methods: each can be called twice without harm
            "retryPolicy": {
                "maxAttempts": 2,
                "initialBackoff": "0.02s",  # by then gRPC knows which connection broke, and takes another one
                "maxBackoff": "0.02s",
                "backoffMultiplier": 1,
                "retryableStatusCodes": ["UNAVAILABLE"],
            },
        }
    ],
    # A few retries at once, and in the long run a tenth of the calls that succeed.
    "retryThrottling": {"maxTokens": 20, "tokenRatio": 0.1},
}
"""How calls are spread and retried (https://github.com/grpc/grpc/blob/master/doc/service_config.md)."""

_UNRESOLVED: Final = ("errors resolving", "address lookup failed", "DNS resolution failed")
"""gRPC's words for a name without addresses."""
_RESOLVE_AGAIN_S: Final = 1.0
"""The least time between two channels for a name without addresses."""
_CLOSE_S: Final = 60.0
"""How long calls under way may take on a channel that has been replaced."""

_CHANNEL_OPTIONS: Final[Sequence[tuple[str, Any]]] = (
    ("grpc.max_receive_message_length", MAX_MESSAGE_BYTES),
    ("grpc.max_send_message_length", MAX_MESSAGE_BYTES),
    # Every address behind the name gets its share: a headless Service lists all pods.
    ("grpc.service_config", json.dumps(_SERVICE_CONFIG)),
    ("grpc.dns_min_time_between_resolutions_ms", 1_000),
    # A server that comes back is used again within about a second.
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 1_000),
    # A connection that died silently is noticed while a call waits on it. Without calls no pings are sent:
    # servers take frequent ones for an attack.
    ("grpc.keepalive_time_ms", 10_000),
    ("grpc.keepalive_timeout_ms", 5_000),
    # The model server is a neighbour, never behind the proxy that the environment names.
    ("grpc.enable_http_proxy", 0),
    # Two clients of one process share nothing.
    ("grpc.use_local_subchannel_pool", 1),
)


class ModelServerError(Exception):
    """A call of ``model`` failed.

    ``code``, for metrics, is the name of the gRPC status code, or ``BAD_ANSWER`` for a wrong answer with OK.
    """

    def __init__(self, model: str, code: str, message: str) -> None:
        super().__init__(f"{model}: {code}: {message}")
        self.model = model
        self.code = code


class ModelNotServedError(ModelServerError):
    """The server doesn't know the model, or has no version of it AVAILABLE (yet)."""


class VersionNotFoundError(ModelServerError):
    """The model is served, and the version that the caller named is not among its versions."""

    def __init__(self, model: str, version: int) -> None:
        super().__init__(model, "NOT_FOUND", f"no version {version}")
        self.version = version


class OverloadedError(ModelServerError):
    """The server refused because its queue or its threads are used up. Waiting helps."""


class UnreachableError(ModelServerError):
    """No server listens at the target, or the connection broke during the call."""


class HandshakeError(UnreachableError):
    """A server listens at the target, and one of the two sides does not trust the other's certificate."""


class DeadlineError(ModelServerError):
    """The time given for the call ran out before the answer came."""


class ContractError(ModelServerError):
    """The server refused what the contract allows, or answered what it doesn't: the two sides don't fit."""


class NoSignatureError(ContractError):
    """The version doesn't have the signature asked for: one that the contract leaves to the version."""


_QUEUE_FULL: Final = "queue"
_HANDSHAKE: Final = ("handshake failed", "verification check failed")
"""gRPC's words for certificates that don't fit: another authority, another host."""
_UNKNOWN_LABEL: Final = "servable version label"

ERRORS: Final[dict[grpc.StatusCode, type[ModelServerError]]] = {
    grpc.StatusCode.CANCELLED: UnreachableError,
    grpc.StatusCode.DEADLINE_EXCEEDED: DeadlineError,
    grpc.StatusCode.NOT_FOUND: ModelNotServedError,
    grpc.StatusCode.RESOURCE_EXHAUSTED: OverloadedError,
    grpc.StatusCode.ABORTED: UnreachableError,
    grpc.StatusCode.UNAVAILABLE: UnreachableError,
}
"""What the status codes mean, except where ``_translate`` looks closer. Any other code is a ContractError."""


@dataclass(frozen=True)
class Prediction:
    """One answer of ``Predict``. ``model`` and ``version`` are what the server says that it used."""

    model: str
    version: int
    outputs: Mapping[str, Array]


@dataclass(frozen=True)
class VersionStatus:
    """The state of a version, and the error that ended it (``error_code`` "OK": none)."""

    version: int
    state: str
    error_code: str
    error_message: str


class Transport(Protocol):
    """Carries calls to a model server."""

    async def call(self, method: str, request: Message, timeout_s: float) -> bytes:
        """Returns the answer of a method, which ``serving.apis`` names. Raises grpc.aio.AioRpcError."""

    async def close(self) -> None:
        """Frees what the transport holds. Calls under way may fail."""


class GrpcTransport:
    """Calls over gRPC. Make it inside the event loop that uses it.

    ``target`` is ``host:port``, ``unix:/path``, ``dns:///name:port`` or ``ipv4:address:port,address:port``; several
    addresses share the calls. ``interceptors`` see every call. With ``credentials``, the calls use TLS, and the server
    has to prove that it is the host in ``target``. A call that is UNAVAILABLE is retried once (_SERVICE_CONFIG).
    """

    def __init__(
        self,
        target: str,
        interceptors: Sequence[grpc.aio.ClientInterceptor] = (),
        credentials: grpc.ChannelCredentials | None = None,
    ) -> None:
        self._target = target
        self._interceptors = interceptors
        self._credentials = credentials
        self._closing: set[asyncio.Task[None]] = set()
        self._open()

    def _open(self) -> None:
        # A Unix socket's server usually is about to start.
        longest_pause_ms = 100 if self._target.startswith("unix:") else 1_000
        options = [*_CHANNEL_OPTIONS, ("grpc.max_reconnect_backoff_ms", longest_pause_ms)]
        target, credentials, interceptors = self._target, self._credentials, self._interceptors
        if credentials is None:
            self._channel = grpc.aio.insecure_channel(target, options=options, interceptors=interceptors)
        else:
            self._channel = grpc.aio.secure_channel(target, credentials, options=options, interceptors=interceptors)
        self._opened = time.monotonic()

    async def close(self) -> None:
        """Closes the connection; calls under way fail."""
        await self._channel.close()
        await asyncio.gather(*self._closing)

    async def call(self, method: str, request: Message, timeout_s: float) -> bytes:
        """Returns the answer of a method. Raises grpc.aio.AioRpcError."""
        # The caller parses the answer: if gRPC did, its error would look like that of a lost connection.
        call: Any = self._channel.unary_unary(method, type(request).SerializeToString)
        try:
            answer: bytes = await call(request, timeout=timeout_s)
            return answer
        except grpc.aio.AioRpcError as error:
            self._resolve_again(error)
            raise

    def _resolve_again(self, error: grpc.aio.AioRpcError) -> None:
        """Opens another channel if the name of the model servers did not resolve.

        A headless Service without ready pods has no addresses. Then gRPC waits up to two minutes until it resolves the
        name again, and no option limits that. A new channel resolves it immediately.
        """
        unresolved = any(words in (error.details() or "") for words in _UNRESOLVED)
        if unresolved and time.monotonic() - self._opened >= _RESOLVE_AGAIN_S:
            closing = asyncio.create_task(self._channel.close(_CLOSE_S))
            self._closing.add(closing)
            closing.add_done_callback(self._closing.discard)
            self._open()


class ModelClient:
    """A client of a model server, for the models of ``serving.contract``.

    The version with ``version_label`` serves a call without a version; the newest, if it is None.
    """

    def __init__(self, transport: Transport, version_label: str | None = None) -> None:
        self.version_label = version_label
        self._transport = transport

    async def close(self) -> None:
        """Closes the transport; calls under way fail with UnreachableError."""
        await self._transport.close()

    async def predict(
        self, model: str, rows: Array, *, signature: str = SIGNATURE, version: int | None = None, timeout_s: float
    ) -> Prediction:
        """Runs ``model`` on the N ≥ 1 ``rows`` of its one input: returns its outputs, N rows each.

        The outputs have the dtypes and shapes of the contract, and are finite.

        Raises ModelServerError, NoSignatureError if the version lacks a ``signature`` other than ``serving_default``;
        ValueError if ``rows`` are not what the contract says.
        """
        spec = SIGNATURES[model, signature]
        if problem := _mismatch(rows, spec.input, max((1, *rows.shape[:1]))):
            raise ValueError(f"{model}: {spec.input.name}: {problem}")
        wanted: dict[str, object] = {"name": model, "signature_name": signature}
        if version is not None:
            wanted["version"] = {"value": version}
        elif self.version_label is not None:
            wanted["version_label"] = self.version_label
        request = apis.PredictRequest(model_spec=wanted, inputs={spec.input.name: to_proto(rows)})
        try:
            answer = await self._query(apis.PREDICT, request, apis.PredictResponse, model, timeout_s, signature)
        except ModelNotServedError as error:
            if version is None:
                raise
            raise await self._what_is_missing(model, version, timeout_s) from error
        return _checked(spec, version, answer, len(rows))

    async def model_versions(self, model: str, *, timeout_s: float) -> list[VersionStatus]:
        """Returns all versions that the server knows of ``model``, newest first.

        Raises ModelServerError: ModelNotServedError if the server doesn't know the model.
        """
        request = apis.GetModelStatusRequest(model_spec={"name": model})
        answer = await self._query(apis.GET_MODEL_STATUS, request, apis.GetModelStatusResponse, model, timeout_s)
        return version_statuses(answer)

    async def labelled_version(self, model: str, *, timeout_s: float) -> int | None:
        """Returns the version that answers for ``version_label``; None if the server has no AVAILABLE one.

        GetModelStatus returns all versions, whatever the label. Raises ModelServerError.
        """
        request = apis.GetModelMetadataRequest(
            model_spec={"name": model, "version_label": self.version_label}, metadata_field=["signature_def"]
        )
        try:
            answer = await self._query(
                apis.GET_MODEL_METADATA, request, apis.GetModelMetadataResponse, model, timeout_s
            )
        except ModelNotServedError:
            return None
        version: int = answer.model_spec.version.value
        return version

    async def _query(
        self, method: str, request: Message, answer: type[_M], model: str, timeout_s: float, signature: str = SIGNATURE
    ) -> _M:
        """Returns the answer of a method. Raises ModelServerError."""
        try:
            return answer.FromString(await self._transport.call(method, request, timeout_s))
        except grpc.aio.AioRpcError as error:
            raise _translate(model, error, signature) from error
        except DecodeError as error:
            raise ContractError(model, "BAD_ANSWER", f"not a {answer.DESCRIPTOR.name}") from error

    async def _what_is_missing(self, model: str, version: int, timeout_s: float) -> ModelServerError:
        """Returns which of the two NOT_FOUND meant: the named version alone, or all that we serve."""
        try:
            versions = await self.model_versions(model, timeout_s=timeout_s)
        except ModelServerError as error:
            return error
        if not any(one.state == "AVAILABLE" for one in versions):
            return ModelNotServedError(model, "NOT_FOUND", "no version is AVAILABLE")
        if any(one.version == version and one.state in _ON_THE_WAY for one in versions):
            return ModelNotServedError(model, "NOT_FOUND", f"version {version} is not AVAILABLE yet")
        return VersionNotFoundError(model, version)


def version_statuses(answer: apis.GetModelStatusResponse) -> list[VersionStatus]:
    """Returns what an answer of GetModelStatus says, newest version first."""
    return [
        VersionStatus(
            one.version,
            STATES.get(one.state, "UNKNOWN"),
            _STATUS_NAMES.get(one.status.error_code, "UNKNOWN"),
            one.status.error_message,
        )
        for one in answer.model_version_status
    ]


def _translate(model: str, error: grpc.aio.AioRpcError, signature: str) -> ModelServerError:
    code, message = error.code(), error.details() or ""
    kind = ERRORS.get(code, ContractError)
    if code is grpc.StatusCode.FAILED_PRECONDITION and signature != SIGNATURE and signature in message:
        kind = NoSignatureError  # TensorFlow Serving: 'Serving signature key "seed_index" not found.'
    if code is grpc.StatusCode.INVALID_ARGUMENT and _UNKNOWN_LABEL in message:
        kind = ModelNotServedError  # nothing is promoted yet
    if code is grpc.StatusCode.UNAVAILABLE and _QUEUE_FULL in message:
        kind = OverloadedError  # TensorFlow Serving: "The batch scheduling queue … is full"
    if code is grpc.StatusCode.UNAVAILABLE and any(word in message for word in _HANDSHAKE):
        kind = HandshakeError
    return kind(model, code.name, message)


def _checked(spec: ModelSpec, version: int | None, answer: apis.PredictResponse, rows: int) -> Prediction:
    """Returns the answer as a Prediction, or raises ContractError with the first thing that is wrong."""
    model = spec.name
    try:
        outputs = {output.name: to_array(answer.outputs[output.name]) for output in spec.outputs}
    except TensorError as error:
        raise ContractError(model, "BAD_ANSWER", f"wrong tensors: {error}") from error
    for output in spec.outputs:
        if problem := _mismatch(outputs[output.name], output, rows):
            raise ContractError(model, "BAD_ANSWER", f"{output.name}: {problem}")
    used = answer.model_spec
    if used.name != model or not used.HasField("version") or version not in (None, used.version.value):
        asked = "the newest version" if version is None else f"version {version}"
        raise ContractError(model, "BAD_ANSWER", f"asked for {asked}, answered by {used!s}")
    return Prediction(used.name, used.version.value, outputs)


def _mismatch(array: Array, spec: TensorSpec, rows: int) -> str:
    """Returns in what ``array`` differs from ``rows`` finite rows of ``spec``; "" if in nothing."""
    if array.dtype.name != spec.dtype:
        return f"{array.dtype.name} in place of {spec.dtype}"
    if array.shape != (rows, *spec.shape):
        return f"shape {list(array.shape)} in place of {[rows, *spec.shape]}"
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        return "numbers that are not finite"
    return ""
