"""The walk: dragged through, and exported as a film."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import expect

from tests.browser.conftest import Open
from tests.browser.test_wall import digit, pixels_of


def test_dragging_leads_from_one_seed_to_the_other(open_page: Open, studio: str) -> None:
    page = open_page("walk?from=3&to=8")
    for canvas, seed in (("#walk-from", 3), ("#walk-to", 8)):
        assert np.array_equal(pixels_of(page, canvas), digit(studio, seed))
    box = page.locator("#walk-now").bounding_box()
    assert box
    middle = box["y"] + box["height"] / 2
    page.mouse.move(box["x"] + box["width"] / 2, middle)
    page.mouse.down()
    page.mouse.move(box["x"] + 1, middle)
    assert np.array_equal(pixels_of(page, "#walk-now"), digit(studio, 3))
    page.mouse.move(box["x"] + box["width"] - 1, middle, steps=5)
    page.mouse.up()
    assert np.array_equal(pixels_of(page, "#walk-now"), digit(studio, 8))
    slider = page.get_by_role("slider", name="Way from the first digit to the second")
    slider.focus()
    page.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "0 % of the way")
    assert np.array_equal(pixels_of(page, "#walk-now"), digit(studio, 3))


def test_it_plays_and_stops(open_page: Open) -> None:
    page = open_page("walk")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#walk-where")).not_to_have_text("50 % of the way")
    page.get_by_role("button", name="Pause").click()
    expect(page.get_by_role("button", name="Play")).to_be_visible()


@pytest.mark.parametrize(("name", "kind"), [("APNG", "PNG"), ("WebP", "WEBP"), ("GIF", "GIF")])
def test_a_film_is_exported_and_shown(open_page: Open, tmp_path: Path, name: str, kind: str) -> None:
    page = open_page("walk?from=3&to=8")
    page.get_by_role("radio", name=name).check(force=True)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export").click()
    waiting.value.save_as(tmp_path / "film")
    with Image.open(tmp_path / "film") as film:
        assert film.format == kind
        assert film.size == (224, 224)
        assert film.n_frames == 60  # type: ignore[attr-defined]
    shown = page.get_by_role("img", name="The exported film")
    expect(shown).to_be_visible()
    assert shown.evaluate("(image) => image.decode().then(() => image.naturalWidth)") == 224


def test_other_seeds_and_the_straight_line(open_page: Open, studio: str) -> None:
    page = open_page("walk?from=3&to=8")
    page.get_by_label("to seed").fill("42")
    page.get_by_label("to seed").press("Tab")
    expect(page).to_have_url(f"{studio}/#walk?from=3&to=42")
    with page.expect_request(lambda request: '"method":"lerp"' in (request.post_data or "")):
        page.get_by_role("radio", name="straight line").check(force=True)
    page.get_by_label("to seed").fill("1.5")
    page.get_by_label("to seed").press("Tab")
    expect(page.locator("#walk-status")).to_contain_text("A seed is a whole number")
