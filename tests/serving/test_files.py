"""A file is written whole or not at all."""

from pathlib import Path

import pytest

from serving.files import sha256_of, write_atomically


def test_a_file_is_replaced_or_stays_as_it_is(tmp_path: Path) -> None:
    """The digest of "abc" is from FIPS 180-4's examples."""
    path = tmp_path / "card.json"
    write_atomically(path, "old")
    write_atomically(path, b"abc")
    with pytest.raises(TypeError):
        write_atomically(path, 7)  # type: ignore[arg-type]
    assert path.read_text() == "abc"
    assert sha256_of(path) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert list(tmp_path.iterdir()) == [path]
