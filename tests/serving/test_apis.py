"""serving.apis against the generated classes of tensorflow-serving-api."""

import ast
from importlib import import_module
from pathlib import Path

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from serving import apis
from tests.support import apis_build


def test_the_committed_descriptors_hold_what_the_installed_package_describes() -> None:
    """Messages that a newer package adds are not missed: only what is committed has to agree."""
    committed = {file.name: file for file in FileDescriptorSet.FromString(apis_build.TARGET.read_bytes()).file}
    installed = {file.name: file for file in FileDescriptorSet.FromString(apis_build.build()).file}
    serving_files = [name for name in committed if name.startswith("tensorflow_serving/")]
    assert len(serving_files) >= 15
    assert [name for name in serving_files if committed[name] != installed.get(name)] == []


def test_every_message_that_is_described_exists() -> None:
    """The classes in ``apis.py`` are for readers and type checkers only: here they meet the real ones."""
    described = [
        node
        for node in ast.walk(ast.parse(Path(apis.__file__).read_text("utf-8")))
        if isinstance(node, ast.ClassDef) and node.name not in ("Proto", "_MetaGraphs")
    ]
    assert len(described) > 15
    for node in described:
        message = getattr(apis, node.name)()
        for item in node.body:
            if isinstance(item, ast.AnnAssign) and isinstance(item.target, ast.Name):
                assert hasattr(message, item.target.id)
    with pytest.raises(AttributeError):
        getattr(apis, "NoSuchMessage")  # noqa: B009 - type checkers know that it does not exist


def test_the_method_paths_are_those_of_the_generated_services() -> None:
    modules = (import_module(f"tensorflow_serving.apis.{name}_service_pb2") for name in ("prediction", "model"))
    services = [service for module in modules for service in module.DESCRIPTOR.services_by_name.values()]
    paths = {f"/{service.full_name}/{method.name}" for service in services for method in service.methods}
    ours = {apis.PREDICT, apis.GET_MODEL_METADATA, apis.GET_MODEL_STATUS, apis.HANDLE_RELOAD_CONFIG_REQUEST}
    assert ours <= paths
    assert {apis.PREDICTION_SERVICE, apis.MODEL_SERVICE} <= {service.full_name for service in services}
