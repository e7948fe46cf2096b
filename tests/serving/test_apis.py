"""serving.apis against the generated classes of tensorflow-serving-api."""

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


def test_a_message_that_does_not_exist_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NoSuchMessage"):
        apis.NoSuchMessage()
