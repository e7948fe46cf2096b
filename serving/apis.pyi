from typing import Any, Final

from google.protobuf.message import Message

PREDICTION_SERVICE: Final[str]
MODEL_SERVICE: Final[str]

PREDICT: Final[str]
GET_MODEL_METADATA: Final[str]
GET_MODEL_STATUS: Final[str]
HANDLE_RELOAD_CONFIG_REQUEST: Final[str]

DESCRIPTORS: Final[str]

class Proto(Message):
    """What all messages share: fields by keyword. A message field takes a message or a dictionary."""

    def __init__(self, **fields: object) -> None: ...
    def __getattr__(self, name: str) -> Any: ...
    def __setattr__(self, name: str, value: Any) -> None: ...

class TensorProto(Proto):
    """An array: ``dtype`` (a DataType number), shape, and ``tensor_content`` or a typed list of values."""

class SignatureDef(Proto):
    """What a signature takes and gives, by name."""

class NodeDef(Proto):
    """One operation of a graph. Inputs are "node", "node:output" or "^node"."""

class FunctionDef(Proto):
    """A function of a graph: ``ret`` tells which output of which node each result is."""

class GraphDef(Proto):
    """Nodes, and the functions that they call."""

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

class StatusProto(Proto):
    """A status inside an answer: code as in gRPC (0 is OK) and message."""

class ModelVersionStatus(Proto):
    """Where one version stands in its life."""

    State: Any
    START: Final[int]
    LOADING: Final[int]
    AVAILABLE: Final[int]
    UNLOADING: Final[int]
    END: Final[int]

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
