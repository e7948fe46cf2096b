"""The tutorial's commands, in its order, on little data and with smaller numbers: see SHORTER."""

import re
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from PIL import Image

from serving.contract import GENERATOR
from serving.versions.model_card import read_card
from tests.support.pages import commands, run
from tests.support.processes import digitgan_up
from tests.support.waiting import wait_until

ROOT = Path(__file__).parents[2]
COMMANDS = [command for command, _ in commands((ROOT / "docs" / "tutorial.md").read_text("utf-8"))]

SHORTER = {
    "make train ARGS=--dry-run": "digitgan train --dry-run",
    "source .venv/bin/activate": "true",
    "--index-seeds 4096 --steps 300": "--index-seeds 300 --steps 6 --set batch_size=16 --set log_every=1",
    "--resume --steps 1000": "--resume --steps 8 --index-seeds 300",
    "digitgan evaluate runs/first": "digitgan evaluate runs/first --images 200",
}
"""What is printed, and what runs here in its place. DIGITGAN_DATA names the data, DIGITGAN_URL the gateway."""


pytestmark = pytest.mark.timeout(900)  # two trainings on a busy machine


def shortened(command: str) -> str:
    for printed, shorter in SHORTER.items():
        command = command.replace(printed, shorter)
    return command


def test_each_substitution_stands_for_something_that_is_printed() -> None:
    assert all(any(printed in command for command in COMMANDS) for printed in SHORTER)


@pytest.fixture(scope="module")
def desk(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory that looks like the clone from the tutorial's point of view."""
    place = tmp_path_factory.mktemp("desk")
    (place / "docs").symlink_to(ROOT / "docs")
    return place


@pytest.fixture(scope="module")
def outputs(desk: Path, digits_npz: Path) -> Iterator[dict[str, str]]:
    """What each command said, by the command as it is printed; of one that is printed twice, the second time."""
    url, answers = "", dict[str, str]()
    with ExitStack() as opened:
        for command in COMMANDS:
            if command.startswith("digitgan up --models "):
                server, _ = opened.enter_context(digitgan_up("--models", desk / command.split()[-1]))
                url = server.url
                continue
            if command.endswith(" -D -"):
                wait_until(lambda url=url: httpx.get(f"{url}/digits/7.png").headers["X-Model-Version"] == "2")  # type: ignore[misc]
            done = run(shortened(command), desk, url, DIGITGAN_DATA=str(digits_npz))
            answers[command] = done.stdout + done.stderr
            assert (done.returncode == 0) == (" promote " not in command), answers[command]
        yield answers


def output_of(outputs: dict[str, str], words: str) -> str:
    (found,) = (answer for command, answer in outputs.items() if words in command)
    return found


def test_every_command_does_what_the_text_says(outputs: dict[str, str], desk: Path) -> None:
    assert '"feature_weight": 5.0' in output_of(outputs, "dry-run")
    assert "Published version 1" in output_of(outputs, "--steps 300")
    assert "Published version 2" in output_of(outputs, "--steps 1000")
    assert "Legible digits" in output_of(outputs, "digitgan evaluate")
    assert "seed 4" in output_of(outputs, "digitgan generate").lower()
    assert "drawing.png" in output_of(outputs, "digitgan score")
    assert "generator" in output_of(outputs, "models list")
    with Image.open(desk / "sheet.png") as sheet:
        assert min(sheet.size) >= 10 * 28


def test_the_run_has_what_the_text_shows(outputs: dict[str, str], desk: Path) -> None:
    run = desk / "runs" / "first"
    for name in ("report.html", "losses.png"):
        assert (run / name).stat().st_size > 1000
    card = read_card(run / "models" / GENERATOR / "2")
    assert card["evaluation"]["figures"]["legible"] >= 0


def test_the_gate_refuses_the_young_model_by_its_figures(outputs: dict[str, str]) -> None:
    assert re.search(r"frechet_distance is [\d.]+, and has to be at most 1;", output_of(outputs, "models promote"))
