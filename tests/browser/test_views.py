"""The wall, the walk, drawing and the game, and how it learned: by pointer, by keyboard and as files."""

import base64
import gzip
import io
import re
import struct
import zipfile
from pathlib import Path

import httpx
import numpy as np
import pytest
from PIL import Image
from playwright.sync_api import FloatRect, Locator, Page, Route, expect

from tests.browser.conftest import DESKTOP, PHONE, Open
from tests.support import pictures
from tests.support.pictures import Handwritten, Pixels, saved
from tests.support.processes import wait_until
from tests.training.test_config import CONFIG

SPRITE = Path(__file__).parents[2] / "api" / "studio" / "mnist.png"
SEVEN = [(75, 70), (205, 70), (165, 150), (135, 235)]


def pixels_of(page: Page, selector: str) -> Pixels:
    """What a canvas of 28×28 shows."""
    url: str = page.locator(selector).evaluate("(canvas) => canvas.toDataURL()")
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(url.partition(",")[2]))).convert("L"))


def digit(studio: str, seed: int) -> Pixels:
    return pictures.pixels_of(httpx.get(f"{studio}/digits/{seed}.png").content)


def box_of(element: Locator) -> FloatRect:
    while not (box := element.bounding_box()):  # a resize has drawn it anew in between
        pass
    return box


def seeds_on(page: Page) -> list[int]:
    return list(page.locator("#tiles").evaluate("(wall) => [...wall.children].map((one) => +one.dataset.seed)"))


def test_a_screenful_is_one_request_and_scrolling_brings_the_next(open_page: Open, studio: str) -> None:
    page = open_page()
    methods: list[str] = []
    page.on("request", lambda request: methods.append(request.method))
    page.reload()
    page.locator("#tiles button:nth-child(100)").wait_for()
    first = len(seeds_on(page))
    bottom = box_of(page.locator(f"#tiles button:nth-child({first})"))
    assert bottom["y"] + bottom["height"] >= 860, "one request fills the screen"
    page.wait_for_load_state("networkidle")
    before = len(seeds_on(page))
    assert methods.count("POST") <= 3, "a screen, and the next one in advance"
    page.mouse.wheel(0, 100_000)
    page.locator(f"#tiles button:nth-child({before + 1})").wait_for()
    seeds = seeds_on(page)
    assert seeds == list(range(len(seeds)))
    assert methods.count("POST") <= len(seeds) / 100
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
    dock = page.get_by_role("complementary", name="Kept digits")
    late: list[Route] = []

    def hold_the_first_reading(route: Route) -> None:
        if route.request.post_data == '{"seeds":[3],"labels":true}':
            late.append(route)
        else:
            route.continue_()

    page.route("**/generate", hold_the_first_reading)
    for seed in (3, 17):
        page.get_by_role("button", name=f"Seed {seed}", exact=True).first.click()
        expect(dock.locator("#dock-seed")).to_have_text(f"Seed {seed}")
    expect(dock.locator("#dock-kept button")).to_have_count(2)
    (image,) = httpx.post(f"{studio}/generate", json={"seeds": [17], "labels": True}).json()["images"]
    expect(dock.locator("#dock-reading")).to_contain_text(f"reads as {image['digit']}")
    with page.expect_response("**/generate"):
        late[0].continue_()
    assert np.array_equal(digit(studio, 17), pixels_of(page, "#dock-digit"))
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
    box = box_of(page.locator("#walk-now"))
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
    page.route("**/interpolate", lambda _: None)  # no answer
    page.get_by_role("radio", name="straight line").check(force=True)
    with page.expect_event("requestfailed", lambda request: '"method":"lerp"' in request.post_data):
        page.get_by_label("to seed").fill("1.5")
        page.get_by_label("to seed").press("Tab")
    expect(page.locator("#walk-status")).to_contain_text("A seed is a whole number")


def test_a_view_that_loads_late_does_not_take_the_address_of_the_next(open_page: Open, studio: str) -> None:
    page, late = open_page(), list[Route]()
    page.route("**/walk.js", lambda route: late.append(route))
    for name in ("Walk", "Draw"):
        page.get_by_role("link", name=name).click()
        expect(page.get_by_role("link", name=name)).to_have_attribute("aria-current", "page")
    late[0].continue_()
    page.evaluate("(url) => import(url)", late[0].request.url)
    assert page.url == f"{studio}/#draw"


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
        box = box_of(slider)
        thumb = box["x"] + 8 + (box["width"] - 16) * float(slider.input_value()) / 1000
        expect(page.locator("#plots .cursor")).to_have_count(3)
        for cursor in page.locator("#plots .cursor").all():
            line = box_of(cursor)
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
    axis = box_of(page.locator("#plots .cursor").last)
    curve = box_of(measured.locator(".curve.legible"))
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


def write(page: Page, points: list[tuple[int, int]], *, touch: bool = False) -> None:
    """Writes a stroke with the mouse or a finger; the points are those of a pad of 280×280."""
    box = box_of(page.locator("#pad"))
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
    said = re.compile(f"Verdict: {score['scores'][0]['verdict']}")
    expect(yours.locator(".gauge")).to_have_attribute("aria-label", said)
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


def test_the_game_takes_a_file_as_mnist_is_distributed(
    open_page: Open, handwritten: Handwritten, tmp_path: Path
) -> None:
    images = handwritten[0][:20]
    good, bad = tmp_path / "t10k-images-idx3-ubyte.gz", tmp_path / "labels.gz"
    good.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 20, 28, 28) + images.tobytes()))
    bad.write_bytes(gzip.compress(struct.pack(">4I", 0x803, 1, 28, 28)))
    page, late = open_page("play"), list[Route]()
    page.locator("#play-file").set_input_files(bad)
    expect(page.locator("#play-status")).to_contain_text("labels.gz is no IDX file")
    page.route("**/score", lambda route: late.append(route), times=1)
    page.get_by_role("button", name="The first is generated").click()
    page.locator("#play-file").set_input_files(good)
    expect(page.locator("#play-stock")).to_have_text("20 digits of t10k-images-idx3-ubyte.gz.")
    expect(page.locator("#play-status")).to_contain_text("Round 1 of 10")
    with page.expect_response("**/score"):  # on digits that are not shown any more
        late[0].continue_()
    assert_one_is_real(page, {image.tobytes() for image in images})
    play(page)
    expect(page.locator("#play-tally")).to_contain_text("After 1: you")


def test_the_games_digits_are_those_of_the_file(open_page: Open) -> None:
    sheet = np.asarray(Image.open(SPRITE))
    known = {sheet[y : y + 28, x : x + 28].tobytes() for y in range(0, 280, 28) for x in range(0, 784, 28)}
    assert len(known) == 280
    assert_one_is_real(open_page("play"), known)
