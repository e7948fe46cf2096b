"""A headless Chromium before a real gateway whose generator has a story. Without a Chromium these tests are skipped."""

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.sync_api import Browser, Page, expect, sync_playwright

from serving.contract import GENERATOR
from serving.pretrained import MODELS_DIR
from tests.conftest import built_once
from tests.support import gateways
from tests.support.pretrained import pretrained
from tests.support.processes import PROGRAM
from tests.support.saved_models import save_again
from tests.training.test_config import CONFIG
from tests.training.test_story import brightness, write_run
from training.publish.signatures import story_signature
from training.report.story import build_story, encode

CHROMIUM = os.environ.get("CHROMIUM") or shutil.which("chromium") or shutil.which("chromium-browser")
DESKTOP, PHONE = (1440, 900), (390, 844)
FILLED = {
    "wall": "#tiles button:nth-child(100)",
    "walk": "#walk-strip canvas:nth-child(11)",
    "draw": "#opinion-other:not(.blank) .bars .most",
    "play": "#game:not([hidden])",
    "learned": "#plots svg:nth-child(2)",
}
"""What is on the screen once a view has the answers to its first requests."""

expect.set_options(timeout=60_000)

Open = Callable[..., Page]


@pytest.fixture(scope="package")  # while Playwright runs, its event loop is in other tests' way
def browser() -> Iterator[Browser]:
    if not CHROMIUM:
        pytest.skip("there is no Chromium on the PATH (Debian's package: chromium), and CHROMIUM names none")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--disable-gpu"])
        yield browser
        browser.close()


def save_models(models: Path) -> None:
    """Saves the package's models. The generator has a story of noise, and of squares of the shades 100 and 250."""
    run = models.with_name("story-run")
    noise = np.random.default_rng(0).integers(0, 256, (64, 28, 28), np.uint8)
    squares = np.zeros_like(noise)
    squares[:, 8:20, 8:20] = 1
    rows = ({"step": step, "epoch": step / 100, "legible": step / 1000, "coverage": 0.5} for step in (500, 1000))
    write_run(run, noise, squares * 100, squares * 250, evaluations=rows)
    story = encode(build_story(run, CONFIG, brightness, {"step": 1000}))
    shutil.copytree(MODELS_DIR, models, ignore=shutil.ignore_patterns(GENERATOR))
    save_again(pretrained(GENERATOR), models / GENERATOR / "1", story=story_signature(story).graph)


@pytest.fixture(scope="package")
def studio(browser: Browser, tmp_path_factory: pytest.TempPathFactory, sockets: Path) -> Iterator[str]:
    """The URL of a gateway before the models in the package, the generator of which tells a story too."""
    models = built_once(tmp_path_factory, "story-models", save_models)
    address = sockets / "story.sock"
    with gateways.model_server(models, address, PROGRAM), gateways.gateway(f"unix:{address}") as gateway:
        yield gateway.url


@pytest.fixture
def open_page(browser: Browser, studio: str) -> Iterator[Open]:
    """Opens the studio at a view, in a window, and waits until the view is filled. No page may report an error."""
    complaints: list[str] = []
    with ExitStack() as contexts:

        def opened(view: str = "wall", size: tuple[int, int] = DESKTOP, *, filled: bool = True, **options: Any) -> Page:
            own: dict[str, Any] = {
                "base_url": studio,
                "viewport": {"width": size[0], "height": size[1]},
                "has_touch": size == PHONE,
                "permissions": ["clipboard-read", "clipboard-write"],
            }
            page = contexts.enter_context(browser.new_context(**own | options)).new_page()
            page.set_default_timeout(60_000)
            page.on("console", lambda line: complaints.append(line.text) if line.type in ("error", "warning") else None)
            page.on("pageerror", lambda error: complaints.append(str(error)))
            page.goto(f"#{view}")
            if filled:
                page.locator(FILLED[view.partition("?")[0]]).first.wait_for()
            return page

        yield opened
    assert not complaints


@pytest.fixture
def failing_page(browser: Browser, studio: str) -> Iterator[Page]:
    """An empty page before the studio that may report errors, as Chromium does of each failed request."""
    with browser.new_context(base_url=studio) as context:
        yield context.new_page()
