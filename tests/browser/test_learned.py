"""How it learned: the milestones at the slider, over the curves, with the verdict in words."""

from playwright.sync_api import Page, expect

from tests.browser.conftest import PHONE, Open
from tests.browser.test_wall import pixels_of
from tests.support.processes import wait_until
from tests.training.test_config import CONFIG


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
