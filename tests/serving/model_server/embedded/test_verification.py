"""A version whose files aren't those of its model card is refused like any other broken one."""

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from serving.contract import MODEL_CARD
from serving.model_server.loaded_version import RunOptions
from serving.model_server.server import ServerStartError
from serving.versions.model_card import write_card
from tests.serving.model_server import saved_models
from tests.serving.model_server.conftest import Templates
from tests.serving.model_server.embedded.conftest import Start

DATA_LOSS, FAILED_PRECONDITION = 15, 9


def change_a_byte(version: Path) -> None:
    """Another constant: a model that loads and answers, and isn't the one that was exported."""
    (path,) = (version / "variables").glob("variables.data-*")
    content = bytearray(path.read_bytes())
    content[0] ^= 1
    path.write_bytes(content)


def remove_a_file(version: Path) -> None:
    (version / "fingerprint.pb").unlink()


def add_a_file(version: Path) -> None:
    (version / "assets.extra").mkdir(exist_ok=True)
    (version / "assets.extra" / "more").write_bytes(b"")


def add_a_link(version: Path) -> None:
    (version / "variables" / "more").symlink_to("/nowhere")


def garble_the_card(version: Path) -> None:
    (version / MODEL_CARD).write_text("{")


def empty_the_card(version: Path) -> None:
    (version / MODEL_CARD).write_text('{"files": {"saved_model.pb": "?"}}')


def carded(template: Path, directory: Path) -> Path:
    shutil.copytree(template, directory)
    write_card(directory, {"model": "half", "version": 1})
    return directory


@pytest.mark.parametrize(
    ("break_it", "words"),
    [
        (change_a_byte, "SHA-256"),
        (remove_a_file, "fingerprint.pb is missing"),
        (add_a_file, "assets.extra/more is not in the model card"),
        (add_a_link, "variables/more is not in the model card"),
        (garble_the_card, MODEL_CARD),
        (empty_the_card, "files should be"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_the_old_version_serves_on_and_the_state_says_why(
    start: Start, templates: Templates, tmp_path: Path, break_it: Callable[[Path], None], words: str
) -> None:
    base_path = tmp_path / "half"
    base_path.mkdir()
    carded(templates.half_plus_two, base_path / "1")
    _, client = start({"half": base_path})
    broken = carded(templates.half_plus_three, base_path / "2.tmp")
    break_it(broken)
    broken.rename(base_path / "2")
    client.wait_for_states("half", {2: "END", 1: "AVAILABLE"})
    assert client.half_plus("half") == (2.5, 1)
    newest = client.statuses("half")[0]
    assert newest.code == DATA_LOSS
    assert words in newest.message


def test_a_server_does_not_start_on_a_changed_byte(start: Start, templates: Templates, tmp_path: Path) -> None:
    (tmp_path / "half").mkdir()
    change_a_byte(carded(templates.half_plus_two, tmp_path / "half" / "1"))
    with pytest.raises(ServerStartError, match=r"half version 1 can't be loaded: DATA_LOSS: .* has SHA-256"):
        start({"half": tmp_path / "half"})


def test_a_version_without_a_card_is_loaded_unless_cards_are_required(
    start: Start, templates: Templates, tmp_path: Path
) -> None:
    (tmp_path / "half").mkdir()
    carded(templates.half_plus_two, tmp_path / "half" / "1")
    _, lenient = start({"half": tmp_path / "half"})
    _, strict = start({"half": tmp_path / "half"}, run=RunOptions(require_model_cards=True))
    saved_models.publish(templates.half_plus_three, tmp_path / "half", 2)
    lenient.wait_for_states("half", {2: "AVAILABLE", 1: "END"})
    strict.wait_for_states("half", {2: "END", 1: "AVAILABLE"})
    assert strict.statuses("half")[0].code == FAILED_PRECONDITION
    assert "cards are required" in strict.statuses("half")[0].message
