"""A version whose files aren't those of its model card is refused like any other broken one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.contract import MODEL_CARD
from serving.versions.model_card import write_card
from tests.serving.model_server import saved_models
from tests.serving.model_server.embedded.conftest import Start

DATA_LOSS, FAILED_PRECONDITION = 15, 9


def change_a_byte(version: Path) -> None:
    """Another constant: a model that loads and answers, and isn't the one that was exported."""
    (path,) = (version / "variables").glob("variables.data-*")
    content = path.read_bytes()
    path.write_bytes(bytes([content[0] ^ 1]) + content[1:])


@pytest.fixture
def base_path(half_plus: dict[int, Path], tmp_path: Path) -> Path:
    """The base path of a model; version 1 has a model card."""
    shutil.copytree(half_plus[2], tmp_path / "half" / "1")
    write_card(tmp_path / "half" / "1", {"model": "half"})
    return tmp_path / "half"


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (change_a_byte, "SHA-256"),
        (lambda version: (version / "fingerprint.pb").unlink(), "fingerprint.pb is missing"),
        (lambda version: (version / "variables/more").write_bytes(b""), "variables/more is not in the model card"),
        (lambda version: (version / "more").symlink_to("/nowhere"), "more is not in the model card"),
        (lambda version: (version / MODEL_CARD).write_text("{"), MODEL_CARD),
        (lambda version: (version / MODEL_CARD).write_text('{"files": {"saved_model.pb": "?"}}'), "files should be"),
    ],
    ids=["a changed byte", "a missing file", "an additional file", "a link", "no JSON", "no files"],
)
def test_the_old_version_serves_on_and_the_state_says_why(
    start: Start, base_path: Path, break_it: Callable[[Path], object], words: str
) -> None:
    _, client = start({"half": base_path})
    saved_models.publish(base_path / "1", base_path, 2, break_it)
    client.wait_for_states("half", {2: "END", 1: "AVAILABLE"})
    assert client.half_plus("half") == (2.5, 1)
    newest = client.statuses("half")[0]
    assert newest.code == DATA_LOSS
    assert words in newest.message


def test_a_version_without_a_card_is_loaded_unless_cards_are_required(
    start: Start, half_plus: dict[int, Path], base_path: Path
) -> None:
    _, lenient = start({"half": base_path})
    _, strict = start({"half": base_path}, require_model_cards=True)
    saved_models.publish(half_plus[3], base_path, 2)
    lenient.wait_for_states("half", {2: "AVAILABLE", 1: "END"})
    strict.wait_for_states("half", {2: "END", 1: "AVAILABLE"})
    assert strict.statuses("half")[0].code == FAILED_PRECONDITION
    assert "cards are required" in strict.statuses("half")[0].message
