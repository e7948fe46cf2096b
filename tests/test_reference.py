"""The reference is what the code says, the commands on the pages exist, and the links lead somewhere."""

import re
import shlex
from pathlib import Path

import pytest

from docs.reference import PAGE, page
from tests.support.commands import assert_command_exists

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
