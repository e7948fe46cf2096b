"""TensorFlow Serving's API and SavedModels without TensorFlow: the message classes and the gRPC methods' paths.

    request = apis.PredictRequest(model_spec={"name": "generator"})

The package tensorflow-serving-api imports the whole TensorFlow runtime. Here the same messages are built from
``apis.binpb``, a serialised ``FileDescriptorSet`` that ``python -m tests.support.apis_build`` takes from that package.
They live in a descriptor pool of their own, so that one process can use both. Type checkers take each class for Any.
"""

from importlib.resources import files
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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


def __getattr__(name: str) -> Any:
    """Returns the class of a message by its name, "PredictRequest"."""
    for package in ("tensorflow.serving", "tensorflow"):
        try:
            descriptor = _POOL.FindMessageTypeByName(f"{package}.{name}")
        except KeyError:
            continue
        found = globals()[name] = message_factory.GetMessageClass(descriptor)
        return found
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
