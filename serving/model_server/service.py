"""The gRPC methods: from request to manager to answer."""

import logging
import threading
from collections.abc import Callable
from functools import wraps
from typing import Any, Final, TypeVar

import grpc
from google.protobuf.message import Message
from grpc import ServicerContext, StatusCode

from serving import apis
from serving.model_server import signature as signatures
from serving.model_server.errors import ServingError
from serving.model_server.manager import Manager, ModelNotLoadedError
from serving.tf_serving import model_config, tensors

SIGNATURE_DEF: Final = "signature_def"
"""The only field of metadata there is."""

_log = logging.getLogger(__name__)
_Request = TypeVar("_Request")
_Answer = TypeVar("_Answer")


def _answering(
    method: Callable[[Any, _Request, ServicerContext], _Answer],
) -> Callable[[Any, _Request, ServicerContext], _Answer]:
    """Turns a method's ServingError into the call's status. Anything else is INTERNAL, its text kept in the
    log.
    """

    @wraps(method)
    def answer(self: Any, request: _Request, context: ServicerContext) -> _Answer:
        try:
            return method(self, request, context)
        except ServingError as error:
            code, message = error.code, error.message
        except Exception:
            _log.exception("%s failed unexpectedly", method.__name__)
            code, message = StatusCode.INTERNAL, "internal error"
        context.abort(code, message)

    return answer


class Service:
    """TensorFlow Serving's PredictionService and ModelService on a manager's models."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager

    def handlers(self) -> list[grpc.GenericRpcHandler]:
        """Returns what a gRPC server needs to offer both services."""
        return [
            grpc.method_handlers_generic_handler(
                apis.PREDICTION_SERVICE,
                {
                    "Predict": _unary(self.predict, apis.PredictRequest),
                    "GetModelMetadata": _unary(self.get_model_metadata, apis.GetModelMetadataRequest),
                },
            ),
            grpc.method_handlers_generic_handler(
                apis.MODEL_SERVICE,
                {
                    "GetModelStatus": _unary(self.get_model_status, apis.GetModelStatusRequest),
                    "HandleReloadConfigRequest": _unary(self.handle_reload_config_request, apis.ReloadConfigRequest),
                },
            ),
        ]

    @_answering
    def predict(self, request: apis.PredictRequest, context: ServicerContext) -> apis.PredictResponse:
        """Runs a signature of a model."""
        name, number, label = _wanted(request.model_spec)
        with self._manager.use(name, number, label) as (version, loaded):
            signature = signatures.choose(loaded.signatures, request.model_spec.signature_name)
            inputs = signatures.read_inputs(signature, request.inputs)
            chosen = signatures.choose_outputs(signature, request.output_filter)
            outputs = loaded.run(signature.name, inputs, context.is_active)
        answer = apis.PredictResponse(
            model_spec={"name": name, "version": {"value": version}, "signature_name": signature.name}
        )
        try:
            for output in chosen:
                answer.outputs[output].CopyFrom(tensors.to_proto(outputs[output]))
        except tensors.TensorError as error:
            raise ServingError(StatusCode.UNIMPLEMENTED, f"output {output}: {error}") from error
        return answer

    @_answering
    def get_model_metadata(
        self, request: apis.GetModelMetadataRequest, context: ServicerContext
    ) -> apis.GetModelMetadataResponse:
        """Describes the signatures of a model."""
        if set(request.metadata_field) != {SIGNATURE_DEF}:
            asked = ", ".join(request.metadata_field) or "none"
            raise ServingError(
                StatusCode.INVALID_ARGUMENT,
                f'Metadata field "{SIGNATURE_DEF}" has to be named; named: {asked}',
            )
        name, number, label = _wanted(request.model_spec)
        with self._manager.use(name, number, label) as (version, loaded):
            answer = apis.GetModelMetadataResponse(model_spec={"name": name, "version": {"value": version}})
            answer.metadata[SIGNATURE_DEF].Pack(loaded.signature_defs)
        return answer

    @_answering
    def get_model_status(
        self, request: apis.GetModelStatusRequest, context: ServicerContext
    ) -> apis.GetModelStatusResponse:
        """Tells where the versions of a model stand, newest first. A label doesn't filter."""
        name, number, _ = _wanted(request.model_spec)
        answer = apis.GetModelStatusResponse()
        for status in self._manager.statuses(name, number):
            answer.model_version_status.add(
                version=status.number, state=int(status.state), status=_status_proto(status.error)
            )
        return answer

    @_answering
    def handle_reload_config_request(
        self, request: apis.ReloadConfigRequest, context: ServicerContext
    ) -> apis.ReloadConfigResponse:
        """Serves the models of another configuration, and answers when those that are new can be used."""
        try:
            configs = model_config.from_proto(request.config)
        except model_config.ConfigError as error:
            raise ServingError(StatusCode.INVALID_ARGUMENT, str(error)) from error
        ended = threading.Event()
        context.add_callback(ended.set)
        _log.info("new configuration: serving %s", ", ".join(config.name for config in configs) or "no model")
        try:
            self._manager.configure(configs, ended)
        except ModelNotLoadedError as error:
            raise ServingError(StatusCode.UNKNOWN, str(error)) from error
        return apis.ReloadConfigResponse(status=_status_proto(None))


def _unary(
    method: Callable[..., Any], request: type[Message]
) -> "grpc.RpcMethodHandler[Any, Any]":  # generic in its type stubs only
    return grpc.unary_unary_rpc_method_handler(method, request.FromString, lambda answer: answer.SerializeToString())


def _wanted(spec: apis.ModelSpec) -> tuple[str, int | None, str | None]:
    """Returns the name, and the version or the label if one is given."""
    match spec.WhichOneof("version_choice"):
        case "version":
            return spec.name, spec.version.value, None
        case "version_label":
            return spec.name, None, spec.version_label
        case _:
            return spec.name, None, None


def _status_proto(error: ServingError | None) -> apis.StatusProto:
    if error is None:
        return apis.StatusProto()
    return apis.StatusProto(error_code=error.number, error_message=error.message)
