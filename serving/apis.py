"""TensorFlow Serving's API and SavedModels without TensorFlow: the message classes and the gRPC methods' paths.

The package tensorflow-serving-api imports the whole TensorFlow runtime. Here the same messages are built
from ``apis.binpb``, a serialised ``FileDescriptorSet`` that ``python -m serving.apis_build`` takes from that
package. They live in a descriptor pool of their own, so that one process can use both; on the wire they are
equal.

Each class below names a message and the fields that this project uses, for readers and type checkers. At run
time it is the complete generated class.
"""

from __future__ import annotations

from collections.abc import Callable, MutableMapping, MutableSequence
from importlib.resources import files
from typing import TYPE_CHECKING, Any, Final, TypeVar

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

_M = TypeVar("_M")


def _load_pool() -> descriptor_pool.DescriptorPool:
    pool = descriptor_pool.DescriptorPool()
    content = files("serving").joinpath(DESCRIPTORS).read_bytes()
    for file in descriptor_pb2.FileDescriptorSet.FromString(content).file:
        pool.Add(file)
    return pool


_POOL: Final = _load_pool()


def _message(full_name: str) -> Callable[[type[_M]], type[_M]]:
    """Puts the generated class of the message ``full_name`` in the place of the class that describes it."""

    def generated(description: type[_M]) -> type[_M]:
        cls: Any = message_factory.GetMessageClass(_POOL.FindMessageTypeByName(full_name))
        return cls  # type: ignore[no-any-return]

    return generated


if TYPE_CHECKING:

    class Proto(Message):
        """What all messages share: fields by keyword. Message fields accept a message or a dictionary."""

        def __init__(self, **fields: object) -> None: ...

    class Repeated(MutableSequence[_M]):
        """A repeated message field."""

        def add(self, **fields: object) -> _M: ...

    class MessageMap(MutableMapping[str, _M]):
        """A map to messages: reading a missing key creates it, assignment is not possible."""

        def get_or_create(self, key: str) -> _M: ...
else:
    Proto = object

# Tensors and graphs


@_message("tensorflow.TensorShapeProto")
class TensorShapeProto(Proto):
    """A shape: one ``dim`` for each dimension, or ``unknown_rank``."""

    @_message("tensorflow.TensorShapeProto.Dim")
    class Dim(Proto):
        size: int

    dim: Repeated[TensorShapeProto.Dim]
    unknown_rank: bool


@_message("tensorflow.TensorProto")
class TensorProto(Proto):
    """An array: ``dtype`` (a DataType number), shape, and ``tensor_content`` or a typed list of values."""

    dtype: int
    tensor_shape: TensorShapeProto
    tensor_content: bytes
    float_val: MutableSequence[float]
    string_val: MutableSequence[bytes]


@_message("tensorflow.TensorInfo")
class TensorInfo(Proto):
    """An input or output of a signature. A free dimension has the size -1."""

    name: str
    dtype: int
    tensor_shape: TensorShapeProto


@_message("tensorflow.SignatureDef")
class SignatureDef(Proto):
    """What a signature takes and gives, by name."""

    inputs: MessageMap[TensorInfo]
    outputs: MessageMap[TensorInfo]
    method_name: str


@_message("tensorflow.AttrValue")
class AttrValue(Proto):
    """An attribute of a node: one of many kinds. ``type`` is a DataType number, ``func`` names a function."""

    @_message("tensorflow.AttrValue.ListValue")
    class ListValue(Proto):
        type: MutableSequence[int]
        func: Repeated[NameAttrList]

    type: int
    func: NameAttrList
    list: AttrValue.ListValue


@_message("tensorflow.NameAttrList")
class NameAttrList(Proto):
    """The name of a function."""

    name: str


@_message("tensorflow.NodeDef")
class NodeDef(Proto):
    """One operation of a graph. Inputs are "node", "node:output" or "^node"; in a function "node:name:output" or an
    argument's name.
    """

    name: str
    op: str
    input: MutableSequence[str]
    attr: MessageMap[AttrValue]


@_message("tensorflow.OpDef")
class OpDef(Proto):
    """What an operation, here a function, takes and gives."""

    @_message("tensorflow.OpDef.ArgDef")
    class ArgDef(Proto):
        name: str
        type: int

    name: str
    input_arg: Repeated[OpDef.ArgDef]
    output_arg: Repeated[OpDef.ArgDef]
    control_output: MutableSequence[str]


@_message("tensorflow.FunctionDef")
class FunctionDef(Proto):
    """A function of a graph: ``ret`` tells which output of which node each result is."""

    signature: OpDef
    node_def: Repeated[NodeDef]
    ret: MutableMapping[str, str]
    control_ret: MutableMapping[str, str]
    arg_attr: MutableMapping[int, Any]


@_message("tensorflow.FunctionDefLibrary")
class FunctionDefLibrary(Proto):
    """The functions that a graph's nodes call."""

    function: Repeated[FunctionDef]


@_message("tensorflow.GraphDef")
class GraphDef(Proto):
    """Nodes, and the functions that they call."""

    node: Repeated[NodeDef]
    library: FunctionDefLibrary


@_message("tensorflow.SaverDef")
class SaverDef(Proto):
    """The nodes that save and restore a graph's variables."""

    restore_op_name: str


@_message("tensorflow.MetaGraphDef")
class MetaGraphDef(Proto):
    """A graph with its signatures."""

    @_message("tensorflow.MetaGraphDef.MetaInfoDef")
    class MetaInfoDef(Proto):
        tags: MutableSequence[str]

    meta_info_def: MetaGraphDef.MetaInfoDef
    graph_def: GraphDef
    saver_def: SaverDef
    signature_def: MessageMap[SignatureDef]


@_message("tensorflow.SavedModel")
class SavedModel(Proto):
    """What ``saved_model.pb`` holds: a graph for each set of tags."""

    saved_model_schema_version: int
    meta_graphs: Repeated[MetaGraphDef]


@_message("google.protobuf.Any")
class AnyMessage(Proto):
    """Any message, packed with its type's name."""

    type_url: str
    value: bytes

    if TYPE_CHECKING:

        def Pack(self, message: Message) -> None: ...  # noqa: N802
        def Unpack(self, message: Message) -> bool: ...  # noqa: N802


@_message("google.protobuf.Int64Value")
class Int64Value(Proto):
    """A number that can be absent."""

    value: int


# PredictionService


@_message("tensorflow.serving.ModelSpec")
class ModelSpec(Proto):
    """Which model, and which of its versions by number or by label; the newest without either."""

    name: str
    version: Int64Value
    version_label: str
    signature_name: str


@_message("tensorflow.serving.PredictRequest")
class PredictRequest(Proto):
    """Inputs for one run of a signature. ``output_filter`` empty means all outputs."""

    model_spec: ModelSpec
    inputs: MessageMap[TensorProto]
    output_filter: MutableSequence[str]


@_message("tensorflow.serving.PredictResponse")
class PredictResponse(Proto):
    """The outputs, and the model, version and signature that made them."""

    model_spec: ModelSpec
    outputs: MessageMap[TensorProto]


@_message("tensorflow.serving.GetModelMetadataRequest")
class GetModelMetadataRequest(Proto):
    """The only ``metadata_field`` that exists is "signature_def"."""

    model_spec: ModelSpec
    metadata_field: MutableSequence[str]


@_message("tensorflow.serving.GetModelMetadataResponse")
class GetModelMetadataResponse(Proto):
    """``metadata["signature_def"]`` is a packed SignatureDefMap."""

    model_spec: ModelSpec
    metadata: MessageMap[AnyMessage]


@_message("tensorflow.serving.SignatureDefMap")
class SignatureDefMap(Proto):
    """All signatures of a model, by name."""

    signature_def: MessageMap[SignatureDef]


@_message("tensorflow.serving.PredictLog")
class PredictLog(Proto):
    """A recorded call of Predict."""

    request: PredictRequest


@_message("tensorflow.serving.PredictionLog")
class PredictionLog(Proto):
    """One record of a warm-up file. Which kind of request it holds: ``WhichOneof("log_type")``."""

    predict_log: PredictLog


# ModelService


@_message("tensorflow.serving.StatusProto")
class StatusProto(Proto):
    """A status inside an answer: code as in gRPC (0 is OK) and message."""

    error_code: int
    error_message: str


@_message("tensorflow.serving.ModelVersionStatus")
class ModelVersionStatus(Proto):
    """Where one version stands in its life."""

    version: int
    state: int
    status: StatusProto

    if TYPE_CHECKING:
        START: Final = 10
        LOADING: Final = 20
        AVAILABLE: Final = 30
        UNLOADING: Final = 40
        END: Final = 50


@_message("tensorflow.serving.GetModelStatusRequest")
class GetModelStatusRequest(Proto):
    """All versions of a model, or the one named."""

    model_spec: ModelSpec


@_message("tensorflow.serving.GetModelStatusResponse")
class GetModelStatusResponse(Proto):
    """The versions known, newest first."""

    model_version_status: Repeated[ModelVersionStatus]


@_message("tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy")
class ServableVersionPolicy(Proto):
    """Which versions on disk are wanted. Which rule it holds: ``WhichOneof("policy_choice")``."""

    @_message("tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy.Latest")
    class Latest(Proto):
        num_versions: int

    @_message("tensorflow.serving.FileSystemStoragePathSourceConfig.ServableVersionPolicy.Specific")
    class Specific(Proto):
        versions: MutableSequence[int]

    latest: Latest
    specific: Specific


@_message("tensorflow.serving.ModelConfig")
class ModelConfig(Proto):
    """One model of a server's configuration."""

    name: str
    base_path: str
    model_platform: str
    model_type: int
    model_version_policy: ServableVersionPolicy
    version_labels: MutableMapping[str, int]


@_message("tensorflow.serving.ModelConfigList")
class ModelConfigList(Proto):
    """All models of a server's configuration."""

    config: Repeated[ModelConfig]


@_message("tensorflow.serving.ModelServerConfig")
class ModelServerConfig(Proto):
    """A server's configuration: what ``models.config`` holds in text format."""

    model_config_list: ModelConfigList


@_message("tensorflow.serving.ReloadConfigRequest")
class ReloadConfigRequest(Proto):
    """The configuration to use from now on, in place of the one before."""

    config: ModelServerConfig


@_message("tensorflow.serving.ReloadConfigResponse")
class ReloadConfigResponse(Proto):
    """How the reload went."""

    status: StatusProto
