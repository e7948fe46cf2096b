"""Beside TensorFlow: serving.apis describes the messages of tensorflow-serving-api; TensorFlow's import is quiet."""

import pytest
from google.protobuf.descriptor_pb2 import FileDescriptorSet

from serving import apis
from tests.support import apis_build
from tests.support.commands import python

CODE = """
import os
os.environ.pop("TF_CPP_MIN_LOG_LEVEL", None)
os.environ |= {environment}
from serving.quiet import quiet_tensorflow_import
with quiet_tensorflow_import():
    os.write(2, b"news\\n"); {block}
print(os.environ["TF_CPP_MIN_LOG_LEVEL"])
os.write(2, b"after\\n")
"""


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


@pytest.mark.parametrize(("level", "errors"), [("", "after\n"), ("0", "news\nafter\n")], ids=["usual", "level is set"])
def test_what_is_written_meanwhile_is_shown_only_where_a_log_level_is_set(level: str, errors: str) -> None:
    result = python(CODE.format(environment={"TF_CPP_MIN_LOG_LEVEL": level} if level else {}, block="pass"))
    assert (result.stdout, result.stderr) == (f"{level or 3}\n", errors)


def test_what_is_written_is_shown_when_it_fails() -> None:
    result = python(CODE.format(environment={}, block="import nothing_of_this_name"))
    assert result.stderr.startswith("news\n")
    assert "nothing_of_this_name" in result.stderr
