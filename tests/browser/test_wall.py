"""The wall: a request a screenful, by digit, and what is kept can be taken away."""

import base64
import io
import zipfile
from pathlib import Path

import httpx
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from playwright.sync_api import Page, Request, expect

from tests.browser.conftest import PHONE, Open


def pixels_of(page: Page, selector: str) -> NDArray[np.uint8]:
    """What a canvas of 28×28 shows."""
    url: str = page.locator(selector).evaluate("(canvas) => canvas.toDataURL()")
    shown: NDArray[np.uint8] = np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L"))
    return shown


def digit(studio: str, seed: int) -> NDArray[np.uint8]:
    return np.asarray(Image.open(io.BytesIO(httpx.get(f"{studio}/digits/{seed}.png").content)))


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


def test_what_is_kept_can_be_linked_and_taken_away(open_page: Open, studio: str, tmp_path: Path) -> None:
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
    waiting.value.save_as(tmp_path / "sheet.png")
    sheet = np.asarray(Image.open(tmp_path / "sheet.png"))[::4, ::4]
    assert np.array_equal(sheet[2:30, 2:30], digit(studio, 3))
    with page.expect_download() as waiting:
        dock.get_by_role("button", name="Zip").click()
    waiting.value.save_as(tmp_path / "digits.zip")
    with zipfile.ZipFile(tmp_path / "digits.zip") as archive:
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
