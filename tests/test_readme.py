"""The README's commands do what is printed beside them."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from tests.support.commands import blocks, commands, printed_by, run
from tests.support.processes import digitgan_up

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text("utf-8")

NOT_RUN = {
    "git clone <this repository> digitgan && cd digitgan": "a test runs in a clone",
    "make run": "the fixture starts the service; a test looks at its last line",
    "digitgan train --set feature_weight=0 --index-seeds 4096 --steps 300 --run runs/first": (
        "tests/slow/test_tutorial.py runs it"
    ),
}
SHORTER = {"digitgan dataset digits": "digitgan dataset digits --count 60 --test 10"}


COMMANDS = dict(commands(README))


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with digitgan_up() as (server, _):
        yield server.url


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the commands run, with the clone's docs."""
    directory = tmp_path_factory.mktemp("readme")
    (directory / "docs").symlink_to(ROOT / "docs")
    return directory


@pytest.mark.parametrize("command", [command for command in COMMANDS if command not in NOT_RUN])
def test_a_command_prints_what_is_below_it(url: str, directory: Path, command: str) -> None:
    done, expected = run(SHORTER.get(command, command), directory, url), COMMANDS[command]
    assert done.returncode == 0, done.stderr
    printed = done.stdout
    if expected.startswith("{"):
        assert rounded(printed) == rounded(expected)
    else:
        for line in expected.splitlines():
            assert re.sub(r"\d+ seconds", "", line).strip() in printed, printed
    if image := re.search(r"-o (\S+\.png)", command):
        with Image.open(directory / image[1]) as written:
            assert min(written.size) >= 28


def rounded(document: str) -> str:
    """Returns JSON with its scores to two places: engines and CPUs differ in the last bits."""
    numbers = json.loads(document, parse_float=lambda number: f"{float(number):.2f}")
    return json.dumps(numbers)


def test_each_command_that_is_not_run_is_in_the_readme() -> None:
    assert {*NOT_RUN, *SHORTER} <= set(COMMANDS)


def test_the_python_example_prints_what_it_says(url: str) -> None:
    (code,), (expected,) = (blocks(README, language) for language in ("python", "output"))
    assert printed_by(code.replace("http://127.0.0.1:8000", url)) == expected


def test_the_make_targets_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    named = set(re.findall(r"`make ([a-z-]+)", README))
    assert named
    assert named <= targets


def test_the_notebook_runs_and_prints_what_it_says(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DIGITGAN_URL", url)
    monkeypatch.setenv("MPLBACKEND", "agg")
    names: dict[str, object] = {}
    for cell in json.loads((ROOT / "docs" / "tour.ipynb").read_text("utf-8"))["cells"]:
        if cell["cell_type"] == "code":
            printed = printed_by("".join(cell["source"]), names)
            text = "".join(line for one in cell["outputs"] for line in one.get("text", ()))
            # Random seeds move the scores; the words, and the digits of given seeds, stay.
            assert re.sub(r"\d\.\d+", "", printed) == re.sub(r"\d\.\d+", "", text)
