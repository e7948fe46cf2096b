"""TensorFlow Serving's API and SavedModels without TensorFlow: the message classes and the gRPC methods' paths.

    request = apis.PredictRequest(model_spec={"name": "generator"})

The package tensorflow-serving-api imports the whole TensorFlow runtime. Here the same messages are built from
``apis.binpb``, a serialised ``FileDescriptorSet`` that ``python -m tests.support.apis_build`` takes from that package.
They live in a descriptor pool of their own, so that one process can use both.
"""

from importlib.resources import files
from typing import TYPE_CHECKING, Any, ClassVar, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from google.protobuf.message import Message

PREDICTION_SERVICE: Final = "tensorflow.serving.PredictionService"
MODEL_SERVICE: Final = "tensorflow.serving.ModelService"

PREDICT: Final = f"/{PREDICTION_SERVICE}/Predict"
GET_MODEL_METADATA: Final = f"/{PREDICTION_SERVICE}/GetModelMetadata"
GET_MODEL_STATUS: Final = f"/{MODEL_SERVICE}/GetModelStatus"
HANDLE_RELOAD_CONFIG_REQUEST: Final = f"/{MODEL_SERVICE}/HandleReloadConfigRequest"

DESCRIPTORS: Final = "apis.binpb"
"""The descriptor set's file name in this package."""

_POOL: Final = descriptor_pool.DescriptorPool()
for _file in descriptor_pb2.FileDescriptorSet.FromString(files("serving").joinpath(DESCRIPTORS).read_bytes()).file:
    _POOL.Add(_file)

if TYPE_CHECKING:

    class Proto(Message):
        """What all messages share: fields by keyword. A message field takes a message or a dictionary."""

        def __init__(self, **fields: object) -> None: ...
        def __getattr__(self, name: str) -> Any: ...
        def __setattr__(self, name: str, value: Any) -> None: ...

    class TensorProto(Proto):
        """An array: ``dtype`` (a DataType number), shape, and ``tensor_content`` or a typed list of values."""

    class SignatureDef(Proto):
        """What a signature takes and gives, by name."""

    class MetaGraphDef(Proto):
        """A graph with its signatures."""

    class _MetaGraphs(list[MetaGraphDef]):
        def add(self, **fields: object) -> MetaGraphDef: ...

    class SavedModel(Proto):
        """What ``saved_model.pb`` holds: a graph for each set of tags."""

        meta_graphs: _MetaGraphs

    class ModelSpec(Proto):
        """Which model, and which of its versions by number or by label; the newest without either."""

    class PredictRequest(Proto):
        """Inputs for one run of a signature. ``output_filter`` empty means all outputs."""

    class PredictResponse(Proto):
        """The outputs, and the model, version and signature that made them."""

    class GetModelMetadataRequest(Proto):
        """The only ``metadata_field`` that exists is "signature_def"."""

    class GetModelMetadataResponse(Proto):
        """``metadata["signature_def"]`` is a packed SignatureDefMap."""

    class SignatureDefMap(Proto):
        """All signatures of a model, by name."""

    class PredictionLog(Proto):
        """One record of a warm-up file. Which kind of request it holds: ``WhichOneof("log_type")``."""

    class ModelVersionStatus(Proto):
        """Where one version stands in its life."""

        State: ClassVar[Any]
        START: ClassVar[int]
        LOADING: ClassVar[int]
        AVAILABLE: ClassVar[int]
        UNLOADING: ClassVar[int]
        END: ClassVar[int]

    class GetModelStatusRequest(Proto):
        """All versions of a model, or the one named."""

    class GetModelStatusResponse(Proto):
        """The versions known, newest first."""

    class ModelConfig(Proto):
        """One model of a server's configuration."""

    class ModelServerConfig(Proto):
        """A server's configuration: what ``models.config`` holds in text format."""

    class ReloadConfigRequest(Proto):
        """The configuration to use from now on, in place of the one before."""

    class ReloadConfigResponse(Proto):
        """How the reload went."""

else:

    def __getattr__(name: str) -> type[Message]:
        """Returns the class of a message by its name, "PredictRequest"."""
        for package in ("tensorflow.serving", "tensorflow"):
            try:
                descriptor = _POOL.FindMessageTypeByName(f"{package}.{name}")
            except KeyError:
                continue
            found = globals()[name] = message_factory.GetMessageClass(descriptor)
            return found
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
