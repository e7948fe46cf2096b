"""The methods of the API: from request to manager to answer."""

import logging
import threading
from collections.abc import Callable
from typing import Any, Final

import grpc
from google.protobuf.message import Message
from grpc import ServicerContext, StatusCode

from serving import apis
from serving.model_server.errors import ServingError, invalid_argument
from serving.model_server.manager import Manager
from serving.tf_serving import model_config, tensors

SIGNATURE_DEF: Final = "signature_def"
"""The only field of metadata there is."""

_log = logging.getLogger(__name__)


class Service:
    """TensorFlow Serving's PredictionService and ModelService on a manager's models."""

    def __init__(self, manager: Manager) -> None:
        self._manager = manager
        self.handlers = {
            apis.PREDICT: _unary(self.predict, apis.PredictRequest),
            apis.GET_MODEL_METADATA: _unary(self.get_model_metadata, apis.GetModelMetadataRequest),
            apis.GET_MODEL_STATUS: _unary(self.get_model_status, apis.GetModelStatusRequest),
            apis.HANDLE_RELOAD_CONFIG_REQUEST: _unary(self.handle_reload_config_request, apis.ReloadConfigRequest),
        }

    def predict(self, request: apis.PredictRequest, context: ServicerContext) -> apis.PredictResponse:
        """Runs a signature of a model."""
        with self._manager.use(request.model_spec) as (version, loaded):
            signature, inputs, chosen = loaded.model.read(request)
            outputs = loaded.run(signature, inputs, context.is_active)
        used = {"name": request.model_spec.name, "version": {"value": version}, "signature_name": signature}
        answer = apis.PredictResponse(model_spec=used)
        try:
            for output in chosen:
                answer.outputs[output].CopyFrom(tensors.to_proto(outputs[output]))
        except tensors.TensorError as error:
            raise ServingError(StatusCode.UNIMPLEMENTED, f"output {output}: {error}") from error
        return answer

    def get_model_metadata(
        self, request: apis.GetModelMetadataRequest, context: ServicerContext
    ) -> apis.GetModelMetadataResponse:
        """Describes the signatures of a model."""
        if set(request.metadata_field) != {SIGNATURE_DEF}:
            asked = ", ".join(request.metadata_field) or "none"
            raise invalid_argument(f'Metadata field "{SIGNATURE_DEF}" has to be named; named: {asked}')
        with self._manager.use(request.model_spec) as (version, loaded):
            used = {"name": request.model_spec.name, "version": {"value": version}}
            answer = apis.GetModelMetadataResponse(model_spec=used)
            answer.metadata[SIGNATURE_DEF].Pack(loaded.model.signature_defs)
        return answer

    def get_model_status(
        self, request: apis.GetModelStatusRequest, context: ServicerContext
    ) -> apis.GetModelStatusResponse:
        """Tells where the versions of a model stand, newest first. A label doesn't filter."""
        answer = apis.GetModelStatusResponse()
        for version in self._manager.versions(request.model_spec):
            error = version.error
            status = {"error_code": error.number, "error_message": error.message} if error else {}
            answer.model_version_status.add(version=version.number, state=version.state, status=status)
        return answer

    def handle_reload_config_request(
        self, request: apis.ReloadConfigRequest, context: ServicerContext
    ) -> apis.ReloadConfigResponse:
        """Serves the models of another configuration, and answers when those that are new can be used."""
        try:
            configs = model_config.from_proto(request.config)
        except model_config.ConfigError as error:
            raise invalid_argument(str(error)) from error
        ended = threading.Event()
        if not context.add_callback(ended.set):  # The client has left already.
            ended.set()
        _log.info("new configuration: serving %s", ", ".join(config.name for config in configs) or "no model")
        self._manager.configure(configs, ended)
        return apis.ReloadConfigResponse(status={})


def _unary(
    method: Callable[[Any, ServicerContext], Message], request: type[Message]
) -> "grpc.RpcMethodHandler[Any, Any]":  # generic in its type stubs only
    """Returns a handler that turns a method's ServingError into the call's status.

    Anything else is INTERNAL, and its text stays in the log.
    """

    def answer(content: Any, context: ServicerContext) -> bytes:
        try:
            return method(content, context).SerializeToString()
        except ServingError as error:
            code, message = error.code, error.message
        except Exception:
            _log.exception("%s failed unexpectedly", method.__name__)
            code, message = StatusCode.INTERNAL, "internal error"
        context.abort(code, message)

    return grpc.unary_unary_rpc_method_handler(answer, request.FromString)
