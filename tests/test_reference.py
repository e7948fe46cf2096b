"""The reference is what the code says, the commands on the pages exist, and the links lead somewhere."""

import re
from pathlib import Path

import pytest
import typer

from digitgan.cli import app
from docs.reference import PAGE, page

DOCS = PAGE.parent
ROOT = DOCS.parent
PAGES = sorted([*ROOT.glob("*.md"), *DOCS.rglob("*.md"), *ROOT.glob("k8s/**/*.md")])


def test_the_reference_is_what_the_code_says() -> None:
    """If this fails, run: make docs."""
    text = PAGE.read_text("utf-8")
    assert text == page()
    kinds = ("POST /generate", "/problems/overloaded", "DIGITGAN_PORT", "digitgan models rollback")
    assert all(f"`{entry}`" in text for entry in (*kinds, "digitgan_images_in_flight"))


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_on_a_page_exist(page: Path) -> None:
    for words in re.findall(r"^\$ (?:\w+=\S+ )*(?:\.venv/bin/)?digitgan (.*)", page.read_text("utf-8"), re.MULTILINE):
        command, arguments = typer.main.get_command(app), words.split("  #")[0].split()
        while hasattr(command, "commands") and not arguments[0].startswith("-"):
            assert arguments[0] in command.commands, words
            command = command.commands[arguments.pop(0)]
        known = {option for one in command.params for option in (*one.opts, *one.secondary_opts)}
        asked = {word.split("=")[0] for word in arguments if word.startswith("--")}
        assert asked <= known | {"--help"}, words


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
