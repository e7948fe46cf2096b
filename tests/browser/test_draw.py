"""Writing a digit, by pointer and by keyboard, and the game that is played with it."""

import gzip
import struct
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import Page, expect

from tests.browser.conftest import DESKTOP, PHONE, Open
from tests.browser.test_views import pixels_of
from tests.support.pictures import saved

SPRITE = Path(__file__).parents[2] / "api" / "studio" / "mnist.png"
SEVEN = [(75, 70), (205, 70), (165, 150), (135, 235)]


def write(page: Page, points: list[tuple[int, int]], *, touch: bool = False) -> None:
    """Writes a stroke with the mouse or a finger; the points are those of a pad of 280×280."""
    box = page.locator("#pad").bounding_box()
    assert box
    scale = box["width"] / 280
    x, y = (np.array(points) * scale + [box["x"], box["y"]]).T
    if touch:
        finger = page.context.new_cdp_session(page)
        kinds = ["touchStart", *["touchMove"] * (len(points) - 1)]
        for kind, left, top in zip(kinds, x, y, strict=True):
            places = [{"x": float(left), "y": float(top)}]
            finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": places})
        finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
        return
    page.mouse.move(x[0], y[0])
    page.mouse.down()
    for place in zip(x[1:], y[1:], strict=True):
        page.mouse.move(*place, steps=5)
    page.mouse.up()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["mouse", "finger"])
def test_what_is_written_is_read_and_shown(open_page: Open, studio: str, size: tuple[int, int]) -> None:
    page = open_page("draw", size)
    page.locator("#pad").scroll_into_view_if_needed()
    with page.expect_response("**/score"):
        write(page, SEVEN, touch=size == PHONE)
    yours, other = page.locator("#opinion-yours"), page.locator("#opinion-other")
    expect(yours).to_contain_text("reads as 7")
    page.wait_for_load_state("networkidle")
    shown = pixels_of(page, "#opinion-yours canvas")
    score = httpx.post(f"{studio}/score", content=saved(shown), headers={"Content-Type": "image/png"}).json()
    assert score["scores"][0]["fitted"] is False
    said = yours.locator(".gauge").get_attribute("aria-label")
    assert said
    assert said.startswith(f"Verdict: {score['scores'][0]['verdict']}")
    expect(other.locator(".bars .most")).to_have_count(1)
    other.get_by_role("button", name="Another").click()
    expect(other).to_contain_text("reads as 7")


def test_a_digit_is_written_undone_and_cleared_by_keyboard(open_page: Open) -> None:
    page = open_page("draw")
    page.locator("#pad").focus()
    page.keyboard.press("Space")
    for _ in range(14):
        page.keyboard.press("ArrowDown")
    page.keyboard.press("Space")
    expect(page.locator("#draw-status")).to_contain_text("Yours reads as 1")
    page.get_by_role("button", name="Undo").press("Enter")
    expect(page.locator("#draw-status")).to_have_text("Write a digit on the black square.")
    expect(page.locator("#opinion-yours .gauge")).to_have_attribute("aria-label", "No verdict")


def play(page: Page) -> None:
    """Plays one round."""
    page.get_by_role("button", name="The first is generated").click()
    expect(page.locator("#play-status")).to_contain_text("The discriminator is")


def test_a_game_of_ten_rounds_starts_at_once_and_ends_with_a_picture(open_page: Open) -> None:
    page = open_page("play")
    expect(page.locator("#play-stock")).to_have_text("280 digits of MNIST’s test set.")
    for number in range(1, 11):
        expect(page.locator("#play-status")).to_have_text(f"Round {number} of 10. Which digit is generated?")
        play(page)
        right = page.locator("#game .card").first.evaluate("(card) => card.classList.contains('fake')")
        expect(page.locator("#play-status")).to_contain_text("Right." if right else "Wrong.")
        expect(page.locator("#play-tally")).to_contain_text(f"After {number}: you")
        if number < 10:
            expect(page.get_by_role("button", name="Next two")).to_be_focused()
            page.keyboard.press("Enter")
    with page.expect_download() as waiting:
        page.get_by_role("button", name="Save a picture of the game").click()
    assert waiting.value.suggested_filename == "real-or-generated.png"
    with Image.open(waiting.value.path()) as picture:
        assert picture.size == (640, 570)
    page.get_by_role("button", name="Play again").click()
    expect(page.locator("#play-status")).to_contain_text("Round 1 of 10")


def test_the_game_is_played_with_ones_own_drawings(open_page: Open) -> None:
    page = open_page("draw")
    write(page, SEVEN)
    expect(page.locator("#draw-status")).to_contain_text("Yours reads as 7")
    page.wait_for_load_state("networkidle")
    page.get_by_role("link", name="Play").click()
    expect(page.locator("#play-status")).to_contain_text("Round 1 of 10")
    page.get_by_text("your drawings").click()
    expect(page.locator("#play-stock")).to_have_text("Your 1 drawn digits.")
    expect(page.locator("#play-status")).to_contain_text("Round 1 of 10")
    play(page)


def assert_one_is_real(page: Page, real: set[bytes]) -> None:
    """One of the two digits of the round is among ``real``, pixels of 28×28."""
    expect(page.locator("#play-status")).to_contain_text("Round 1 of 10")
    page.wait_for_load_state("networkidle")
    shown = [pixels_of(page, f"#game .card:nth-child({place}) canvas").tobytes() in real for place in (1, 2)]
    assert sorted(shown) == [False, True]


def test_the_game_takes_a_file_as_mnist_is_distributed(open_page: Open, handwritten: Any, tmp_path: Path) -> None:
    images = handwritten[0][:20]
    good, bad = tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "labels.gz"
    good.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 20, 28, 28) + images.tobytes()))
    bad.write_bytes(gzip.compress(b"no images"))
    page = open_page("play")
    expect(page.locator("#play-status")).to_contain_text("Round 1 of 10")
    page.locator("#play-file").set_input_files(bad)
    expect(page.locator("#play-status")).to_contain_text("labels.gz is no IDX file")
    page.locator("#play-file").set_input_files(good)
    expect(page.locator("#play-stock")).to_have_text("20 digits of t10k-images-idx3-ubyte.gz.")
    assert_one_is_real(page, {image.tobytes() for image in images})


def test_the_games_digits_are_those_of_the_file(open_page: Open) -> None:
    sheet = np.asarray(Image.open(SPRITE))
    known = {sheet[y : y + 28, x : x + 28].tobytes() for y in range(0, 280, 28) for x in range(0, 784, 28)}
    assert len(known) == 280
    assert_one_is_real(open_page("play"), known)
