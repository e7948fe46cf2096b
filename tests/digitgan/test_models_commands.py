"""The argument VERSION of ``digitgan models promote``."""

from pathlib import Path

import pytest

from digitgan.commands.models import _number
from digitgan.errors import UserError


def test_the_newest_version_is_the_highest_number_on_disk(tmp_path: Path) -> None:
    for name in ("2", "10", ".11.partial"):
        (tmp_path / name).mkdir()
    assert _number("newest", tmp_path) == 10
    assert _number("2", tmp_path) == 2


@pytest.mark.parametrize(
    ("version", "message"), [("latest", "is a number or 'newest'"), ("newest", "holds no version")]
)
def test_a_version_that_means_nothing_is_an_error(version: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UserError, match=message):
        _number(version, tmp_path)
