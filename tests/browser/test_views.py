"""The wall, the walk, and how it learned: what they show, how they are moved through, and what can be taken away."""

import base64
import io
import zipfile

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import PHONE, Open
from tests.support import pictures
from tests.support.pictures import Pixels
from tests.support.processes import wait_until
from tests.training.test_config import CONFIG


def pixels_of(page: Page, selector: str) -> Pixels:
    """What a canvas of 28×28 shows."""
    url: str = page.locator(selector).evaluate("(canvas) => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L"))


def digit(studio: str, seed: int) -> Pixels:
    return pictures.pixels_of(httpx.get(f"{studio}/digits/{seed}.png").content)


def seeds_on(page: Page) -> list[int]:
    seeds: list[int] = page.locator("#tiles").evaluate("(wall) => [...wall.children].map((one) => +one.dataset.seed)")
    return seeds


def test_a_screenful_is_one_request_and_scrolling_brings_the_next(open_page: Open, studio: str) -> None:
    page = open_page()
    asked: list[str] = []

    def note(request: Request) -> None:
        if request.method == "POST":
            asked.append(request.url)

    page.on("request", note)
    page.reload()
    page.locator("#tiles button:nth-child(100)").wait_for()
    first = len(seeds_on(page))
    bottom = page.locator(f"#tiles button:nth-child({first})").bounding_box()
    assert bottom
    assert bottom["y"] + bottom["height"] >= 860, "one request fills the screen"
    page.wait_for_load_state("networkidle")
    before = len(seeds_on(page))
    assert len(asked) <= 3, "a screen, and the next one in advance"
    page.mouse.wheel(0, 100_000)
    page.locator(f"#tiles button:nth-child({before + 1})").wait_for()
    seeds = seeds_on(page)
    assert seeds == list(range(len(seeds)))
    assert len(asked) <= len(seeds) / 100
    assert np.array_equal(pixels_of(page, f'[data-seed="{before}"] canvas'), digit(studio, before))


def test_only_sevens_and_only_the_best(open_page: Open, studio: str) -> None:
    page = open_page()
    page.get_by_role("radio", name="7").check(force=True)
    first = httpx.post(f"{studio}/generate", json={"count": 1, "start": 0, "digit": 7}).json()["images"][0]["seed"]
    page.get_by_role("button", name=f"Seed {first}, a 7", exact=True).wait_for()
    page.get_by_role("checkbox", name="best only").check()
    page.locator('#tiles button:nth-child(100)[aria-label$="a 7"]').wait_for()
    seeds = seeds_on(page)[:100]
    body = {"count": 100, "start": 0, "digit": 7, "curated": True}
    assert seeds == [image["seed"] for image in httpx.post(f"{studio}/generate", json=body).json()["images"]]


def test_the_index_ends_in_words(open_page: Open, failing_page: Page) -> None:
    page = open_page("wall?digit=7&start=65000", filled=False)
    expect(page.locator("#wall-status")).to_have_text("That is all of them.")
    assert 0 < len(seeds_on(page)) < 100
    failing_page.goto("/#wall?digit=7&start=70000")
    expect(failing_page.locator("#wall-status")).to_contain_text("no 7s from this seed on")


def test_what_is_kept_can_be_linked_and_taken_away(open_page: Open, studio: str) -> None:
    page = open_page()
    for seed in (3, 17):
        page.get_by_role("button", name=f"Seed {seed}", exact=True).first.click()
    dock = page.get_by_role("complementary", name="Kept digits")
    expect(dock.locator("#dock-kept button")).to_have_count(2)
    (image,) = httpx.post(f"{studio}/generate", json={"seeds": [17], "labels": True}).json()["images"]
    expect(dock.locator("#dock-reading")).to_contain_text(f"reads as {image['digit']}")
    dock.get_by_role("button", name="Copy link").click()
    expect(dock.get_by_role("status")).to_contain_text("Copied")
    link = page.evaluate("() => navigator.clipboard.readText()")
    assert httpx.get(link).headers["content-type"] == "image/png"
    assert "/digits/17.png" in link
    with page.expect_download() as waiting:
        dock.get_by_role("button", name="PNG").click()
    sheet = np.asarray(Image.open(waiting.value.path()))[::4, ::4]
    assert np.array_equal(sheet[2:30, 2:30], digit(studio, 3))
    with page.expect_download() as waiting:
        dock.get_by_role("button", name="Zip").click()
    with zipfile.ZipFile(waiting.value.path()) as archive:
        assert archive.namelist() == ["0-3.png", "1-17.png"]
    page.reload()
    expect(page.get_by_role("button", name="Seed 3", exact=True).first).to_have_attribute("aria-pressed", "true")
    dock.get_by_role("button", name="Clear").click()
    expect(dock).to_be_hidden()


def test_the_wall_is_walked_and_kept_from_by_keyboard(open_page: Open) -> None:
    page = open_page(size=PHONE)
    page.locator("#tiles button").first.focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowDown")
    expect(page.locator("#tiles button:focus")).to_have_attribute("data-seed", "7")
    page.keyboard.press("Enter")
    expect(page.locator('#tiles [data-seed="7"]')).to_have_attribute("aria-pressed", "true")
    assert page.locator('#tiles [tabindex="0"]').count() == 1


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
def test_a_film_is_exported_and_shown(open_page: Open, name: str, kind: str) -> None:
    page = open_page("walk?from=3&to=8")
    page.get_by_role("radio", name=name).check(force=True)
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Export").click()
    with Image.open(waiting.value.path()) as film:
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


def test_the_slider_leads_through_the_milestones(open_page: Open) -> None:
    page = open_page("learned")
    slider = page.get_by_role("slider", name="Milestone")
    expect(slider).to_have_attribute("aria-valuetext", "step 1000, mature, 100.0\u00a0% legible")
    slider.focus()
    for key, words, shade in (
        ("ArrowLeft", "step 200, first shapes, 0.0\u00a0% legible", 100),
        ("ArrowLeft", "step 1, noise", 255),
        ("ArrowLeft", "step 1, noise", 255),
        ("End", "step 1000, mature, 100.0\u00a0% legible", 250),
    ):
        page.keyboard.press(key)
        expect(slider).to_have_attribute("aria-valuetext", words)
        # The picture is decoded beside.
        wait_until(lambda shade=shade: pixels_of(page, "#lapse").max() == shade)  # type: ignore[misc]
    expect(page.locator("#lapse-where")).to_have_text(f"step 1,000, epoch {CONFIG.epochs_at(1000):.2f}")


def test_slider_and_curves_have_one_axis(open_page: Open) -> None:
    for size in ((1280, 860), PHONE):
        page = open_page("learned", size)
        slider = page.get_by_role("slider", name="Milestone")
        slider.focus()
        page.keyboard.press("ArrowLeft")
        expect(slider).to_have_attribute("aria-valuetext", "step 200, first shapes, 0.0\u00a0% legible")
        box = slider.bounding_box()
        assert box
        thumb = box["x"] + 8 + (box["width"] - 16) * float(slider.input_value()) / 1000
        expect(page.locator("#plots .cursor")).to_have_count(3)
        for cursor in page.locator("#plots .cursor").all():
            line = cursor.bounding_box()
            assert line
            assert abs(line["x"] + line["width"] / 2 - thumb) < 2


def test_it_plays_once_through(open_page: Open) -> None:
    page = open_page("learned")
    page.get_by_role("button", name="Play").click()
    expect(page.locator("#lapse-where")).to_contain_text("step 1,")
    expect(page.locator("#lapse-where")).to_contain_text("step 1,000")
    expect(page.get_by_role("button", name="Play")).to_be_visible()


def test_what_was_measured_on_the_way_stands_under_the_losses_and_the_verdict_is_in_words(open_page: Open) -> None:
    page = open_page("learned")
    measured = page.get_by_role("img", name="Measures of the digits over the steps")
    expect(measured).to_contain_text("digits legible")
    axis = page.locator("#plots .cursor").last.bounding_box()
    curve = measured.locator(".curve.legible").bounding_box()
    assert axis
    assert curve
    assert abs(curve["x"] + curve["width"] - axis["x"]) < 3, "the last evaluation is at the last step"
    expect(page.locator("#verdict")).to_contain_text("legible is the share that a classifier reads with confidence")
    expect(page.get_by_role("heading", level=2, name="The losses were stable.")).to_be_visible()
    expect(page.locator("#verdict")).to_contain_text("both losses changed by less than 10 %")
    expect(page.locator("#verdict")).to_contain_text("do not mean that the digits are good")


def test_a_version_without_a_story_says_so(failing_page: Page) -> None:
    problem = '{"title": "The generator\'s version has no story", "status": 404}'
    failing_page.route("**/story", lambda route: route.fulfill(status=404, body=problem))
    failing_page.goto("/#learned")
    expect(failing_page.locator("#learned-status")).to_contain_text("has no story")
    expect(failing_page.locator("#story")).to_be_hidden()
