"""Writes ``apis.binpb``, the descriptors behind ``serving.apis``: ``python -m tests.support.apis_build``.

It needs tensorflow-serving-api, and so TensorFlow.
"""

from importlib import import_module
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2

from serving import apis

TARGET: Final = Path(apis.__file__).with_name(apis.DESCRIPTORS)
SOURCES: Final = (
    "tensorflow_serving.apis.prediction_service_pb2",
    "tensorflow_serving.apis.model_service_pb2",
    "tensorflow_serving.apis.get_model_metadata_pb2",
    "tensorflow_serving.apis.prediction_log_pb2",
    "tensorflow.core.protobuf.saved_model_pb2",
)
"""The generated modules whose files, and all files that those import, make up the set."""


def build() -> bytes:
    """Returns the installed package's ``FileDescriptorSet``, serialised, files after those they import."""
    collected: dict[str, descriptor_pb2.FileDescriptorProto] = {}

    def collect(file: Any) -> None:
        if file.name in collected:
            return
        for dependency in file.dependencies:
            collect(dependency)
        collected[file.name] = descriptor_pb2.FileDescriptorProto()
        file.CopyToProto(collected[file.name])

    for source in SOURCES:
        collect(import_module(source).DESCRIPTOR)
    return descriptor_pb2.FileDescriptorSet(file=collected.values()).SerializeToString(deterministic=True)


if __name__ == "__main__":
    TARGET.write_bytes(build())
    print(f"{TARGET}: {TARGET.stat().st_size} bytes")
