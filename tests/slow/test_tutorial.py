"""The tutorial's commands, in its order, on little data and with smaller numbers: see SHORTER."""

import re
from contextlib import ExitStack
from pathlib import Path

import httpx
import pytest
from PIL import Image

from serving.contract import GENERATOR
from serving.versions.model_card import read_card
from tests.support.commands import commands, run
from tests.support.processes import digitgan_up, wait_until

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
OUTPUTS = {
    "dry-run": '"feature_weight": 5.0',
    "--steps 300": "Published version 1",
    "--steps 1000": "Published version 2",
    "digitgan evaluate": "Legible digits",
    "digitgan generate": "[Ss]eed 4",
    "digitgan score": "drawing.png",
    "models list": "generator",
    "models promote": r"frechet_distance is [\d.]+, and has to be at most 1;",
}
"""What a command with these words prints. Of one that is printed twice, the second time counts."""


def test_each_substitution_stands_for_something_that_is_printed() -> None:
    assert all(any(printed in command for command in COMMANDS) for printed in SHORTER)


@pytest.mark.timeout(900)  # two trainings on a busy machine
def test_every_command_does_what_the_text_says(tmp_path: Path, digits_npz: Path) -> None:
    (tmp_path / "docs").symlink_to(ROOT / "docs")
    url, outputs = "", dict[str, str]()
    with ExitStack() as opened:
        for command in COMMANDS:
            if command.startswith("digitgan up --models "):
                server, _ = opened.enter_context(digitgan_up("--models", tmp_path / command.split()[-1]))
                url = server.url
                continue
            if command.endswith(" -D -"):
                wait_until(lambda url=url: httpx.get(f"{url}/digits/7.png").headers["X-Model-Version"] == "2")  # type: ignore[misc]
            shortened = command
            for printed, shorter in SHORTER.items():
                shortened = shortened.replace(printed, shorter)
            done = run(shortened, tmp_path, url, DIGITGAN_DATA=str(digits_npz))
            outputs[command] = done.stdout + done.stderr
            assert (done.returncode == 0) == (" promote " not in command), outputs[command]
    for words, expected in OUTPUTS.items():
        (found,) = (output for command, output in outputs.items() if words in command)
        assert re.search(expected, found)
    with Image.open(tmp_path / "sheet.png") as sheet:
        assert min(sheet.size) >= 10 * 28
    for name in ("report.html", "losses.png"):
        assert (tmp_path / "runs" / "first" / name).stat().st_size > 1000
    card = read_card(tmp_path / "runs" / "first" / "models" / GENERATOR / "2")
    assert card["evaluation"]["figures"]["legible"] >= 0
