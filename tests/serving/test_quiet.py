"""quiet_tensorflow_import, in processes of its own: it handles their standard error."""

import pytest

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


@pytest.mark.parametrize(("level", "errors"), [("", "after\n"), ("0", "news\nafter\n")], ids=["usual", "level is set"])
def test_what_is_written_meanwhile_is_shown_only_where_a_log_level_is_set(level: str, errors: str) -> None:
    result = python(CODE.format(environment={"TF_CPP_MIN_LOG_LEVEL": level} if level else {}, block="pass"))
    assert (result.stdout, result.stderr) == (f"{level or 3}\n", errors)


def test_what_is_written_is_shown_when_it_fails() -> None:
    result = python(CODE.format(environment={}, block="import nothing_of_this_name"))
    assert result.stderr.startswith("news\n")
    assert "nothing_of_this_name" in result.stderr
