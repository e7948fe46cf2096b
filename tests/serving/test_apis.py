"""serving.apis against the generated classes of tensorflow-serving-api."""

import ast
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
