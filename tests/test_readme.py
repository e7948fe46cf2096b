"""The README's commands do what is printed beside them; the reference is what the code says; links lead somewhere."""

import json
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from docs.reference import PAGE, page
from tests.support.commands import assert_command_exists, blocks, commands, printed_by, run
from tests.support.processes import digitgan_up

ROOT = Path(__file__).parent.parent
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("k8s/**/*.md")])
README = (ROOT / "README.md").read_text("utf-8")

NOT_RUN = {
    "git clone <this repository> digitgan && cd digitgan",  # A test runs in a clone.
    "make run",  # The fixture starts the service; a test looks at its last line.
    # tests/slow/test_tutorial.py runs it.
    "digitgan train --set feature_weight=0 --index-seeds 4096 --steps 300 --run runs/first",
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
    if expected.startswith("{"):  # Engines and CPUs differ in the last bits of scores.
        scores = [json.loads(text, parse_float=lambda score: f"{float(score):.2f}") for text in (done.stdout, expected)]
        assert scores[0] == scores[1]
    else:
        for line in expected.splitlines():
            assert re.sub(r"\d+ seconds", "", line).strip() in done.stdout, done.stdout
    if image := re.search(r"-o (\S+\.png)", command):
        with Image.open(directory / image[1]) as written:
            assert min(written.size) >= 28


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


def test_the_reference_is_what_the_code_says() -> None:
    """If this fails, run: make docs."""
    text = PAGE.read_text("utf-8")
    assert text == page()
    kinds = ("POST /generate", "/problems/overloaded", "DIGITGAN_PORT", "digitgan models rollback")
    assert all(f"`{entry}`" in text for entry in (*kinds, "digitgan_images_in_flight"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_on_a_page_exist(page: Path) -> None:
    for words in re.findall(r"^\$ (?:\w+=\S+ )*(?:\.venv/bin/)?digitgan (.*)", page.read_text("utf-8"), re.MULTILINE):
        assert_command_exists(shlex.split(words, comments=True))


def anchors(page: Path) -> set[str]:
    """Those that forges give the headings of a page."""
    found: set[str] = set()
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for heading in re.findall(r"^#+ (.+)$", text, re.MULTILINE):
        words = re.sub(r"\[([^]]*)\]\([^)]*\)", r"\1", heading).lower()
        found.add(re.sub(r"[^\w\- ]", "", words).replace(" ", "-"))
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    text = re.sub(r"^```.*?^```", "", page.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    for link in re.findall(r"\]\(([^)\s]+)[^)]*\)", text):
        if "://" in link:
            continue
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), link
        assert not anchor or anchor in anchors(target), link
