"""serving.apis against the generated classes of tensorflow-serving-api."""

import ast
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from serving import apis
from serving.tf_serving import tensors
from tests.support import apis_build

GENERATED = {
    "PredictRequest": "predict_pb2",
    "PredictResponse": "predict_pb2",
    "ModelSpec": "model_pb2",
    "GetModelMetadataRequest": "get_model_metadata_pb2",
    "GetModelMetadataResponse": "get_model_metadata_pb2",
    "SignatureDefMap": "get_model_metadata_pb2",
    "PredictionLog": "prediction_log_pb2",
    "GetModelStatusRequest": "get_model_status_pb2",
    "GetModelStatusResponse": "get_model_status_pb2",
    "ModelVersionStatus": "get_model_status_pb2",
    "ReloadConfigRequest": "model_management_pb2",
    "ReloadConfigResponse": "model_management_pb2",
}


def official(name: str) -> Any:
    return getattr(import_module(f"tensorflow_serving.apis.{GENERATED[name]}"), name)


def filled(cls: Any, depth: int = 0) -> Any:
    """A message with every scalar field set, and every message field down to a depth of three."""
    message = cls()
    for field in cls.DESCRIPTOR.fields:
        if field.message_type is None:
            number = 1 + field.number % 2
            value: Any = {
                field.CPPTYPE_STRING: str(number).encode() if field.type == field.TYPE_BYTES else str(number),
                field.CPPTYPE_ENUM: field.enum_type.values[-1].number if field.enum_type else 0,
            }.get(field.cpp_type, number)
            if field.is_repeated:
                getattr(message, field.name).append(value)
            else:
                setattr(message, field.name, value)
        elif not field.is_repeated and depth < 3:
            getattr(message, field.name).CopyFrom(filled(type(getattr(cls(), field.name)), depth + 1))
    return message


@pytest.mark.parametrize("name", GENERATED)
def test_a_message_is_the_same_on_the_wire(name: str) -> None:
    ours = filled(getattr(apis, name))
    theirs = official(name).FromString(ours.SerializeToString())
    assert str(theirs) == str(ours)
    assert theirs == filled(official(name))
    assert type(ours).FromString(theirs.SerializeToString()) == ours


def test_the_committed_descriptors_hold_what_the_installed_package_describes() -> None:
    """Messages that a newer package adds are not missed: only what is committed has to agree."""
    committed = {file.name: file for file in FileDescriptorSet.FromString(apis_build.TARGET.read_bytes()).file}
    installed = {file.name: file for file in FileDescriptorSet.FromString(apis_build.build()).file}
    serving_files = [name for name in committed if name.startswith("tensorflow_serving/")]
    assert len(serving_files) >= 15
    assert [name for name in serving_files if committed[name] != installed.get(name)] == []


def test_every_message_that_is_described_exists() -> None:
    """``apis.pyi`` is for readers and type checkers only: here it meets the real classes."""
    stub = ast.parse(Path(apis.__file__).with_suffix(".pyi").read_text("utf-8"))
    described = [
        node for node in stub.body if isinstance(node, ast.ClassDef) and node.name not in ("Proto", "_MetaGraphs")
    ]
    assert len(described) > 20
    for node in described:
        message = getattr(apis, node.name)()
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                assert hasattr(message, item.target.id)
    with pytest.raises(AttributeError):
        getattr(apis, "NoSuchMessage")  # noqa: B009 - type checkers know that it does not exist


def test_the_method_paths_are_those_of_the_generated_services() -> None:
    for module, service in (
        ("prediction_service_pb2", apis.PREDICTION_SERVICE),
        ("model_service_pb2", apis.MODEL_SERVICE),
    ):
        described = import_module(f"tensorflow_serving.apis.{module}").DESCRIPTOR.services_by_name[
            service.rsplit(".")[-1]
        ]
        assert described.full_name == service
        paths = {f"/{service}/{method.name}" for method in described.methods}
        ours = {
            apis.PREDICT,
            apis.GET_MODEL_METADATA,
            apis.GET_MODEL_STATUS,
            apis.HANDLE_RELOAD_CONFIG_REQUEST,
        }
        assert len(paths & ours) == 2


def test_importing_the_messages_does_not_import_tensorflow() -> None:
    code = (
        f"import sys, {apis.__name__}, {tensors.__name__}; "
        "print([name for name in sys.modules if name.startswith(('tensorflow', 'keras', 'ml_dtypes'))])"
    )
    output = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
