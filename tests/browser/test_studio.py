"""What every view owes its visitors: no error, no barrier, words where the gateway fails, and recipes that work."""

from pathlib import Path

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Page, expect

from api.middleware.keys import hash_of, new_key
from tests.browser.conftest import DESKTOP, FILLED, PHONE, Open
from tests.support.commands import printed_by, run
from tests.support.gateways import faulty_gateway
from tests.support.servers import stripping_proxy


def recipe(page: Page, name: str) -> tuple[str, str]:
    """The curl command and the Python that a view prints."""
    place = page.locator(f'[data-recipe="{name}"]')
    place.locator("summary").click()
    return place.locator("pre").nth(0).inner_text(), place.locator("pre").nth(1).inner_text()


@pytest.mark.parametrize("size", [DESKTOP, PHONE], ids=["1440", "390"])
@pytest.mark.parametrize("view", FILLED)
def test_axe_finds_no_violation_and_nothing_sticks_out(open_page: Open, view: str, size: tuple[int, int]) -> None:
    page = open_page(view, size)
    if view == "wall":
        page.locator("#tiles button").nth(3).click()
        page.locator("#dock-reading:not(:empty)").wait_for()
    for summary in page.locator("summary:visible").all():
        summary.click()
    for scheme in ("light", "dark"):
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        found = Axe().run(page).response["violations"]
        assert not [(one["id"], [node["html"] for node in one["nodes"]]) for one in found], scheme
    assert page.evaluate("() => document.documentElement.scrollWidth") <= size[0]


def test_views_are_reached_by_keyboard_and_by_address(open_page: Open) -> None:
    page = open_page()
    expect(page.get_by_role("link", name="Wall")).to_have_attribute("aria-current", "page")
    page.keyboard.press("Tab")
    expect(page.get_by_role("link", name="Skip to the content")).to_be_focused()
    page.get_by_role("link", name="Learned").focus()
    page.keyboard.press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("How it learned.")
    expect(page).to_have_title("How it learned. – digitgan")
    page.go_back()
    expect(page.get_by_role("heading", level=1)).to_have_text("Handwritten digits that nobody wrote.")


@pytest.mark.parametrize(("view", "file"), [("wall", "digits.npy"), ("walk", "walk.npy")])
def test_the_recipes_give_what_the_page_got(open_page: Open, studio: str, tmp_path: Path, view: str, file: str) -> None:
    page = open_page(view)
    page.wait_for_load_state("networkidle")  # an answer to the page before has no body any more
    with page.expect_response(lambda answer: answer.request.method == "POST") as waiting:
        page.reload()
    page.locator(FILLED[view]).wait_for()
    command, code = recipe(page, view)
    assert command.endswith(f"-o {file}")
    assert run(command, tmp_path, studio).returncode == 0
    content = (tmp_path / file).read_bytes()
    if view == "walk":
        assert content == waiting.value.body()
    assert printed_by(code).startswith(f"({(len(content) - 128) // 784}, 28, 28)")


def test_the_recipe_of_a_drawing_sends_the_file(
    open_page: Open, studio: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    page = open_page("draw")
    command, code = recipe(page, "draw")
    assert command == f"curl -s {studio}/score -F images=@drawing.png -F labels=true -F fitted_images=true"
    (tmp_path / "drawing.png").write_bytes(httpx.get(f"{studio}/digits/7.png").content)
    monkeypatch.chdir(tmp_path)
    assert "'digit_probabilities'" in printed_by(code)


def test_a_copied_recipe_is_in_the_clipboard(open_page: Open) -> None:
    page = open_page("learned")
    command, _ = recipe(page, "learned")
    page.get_by_role("button", name="Copy the curl").click()
    expect(page.get_by_role("button", name="Copy the curl")).to_have_text("Copied")
    assert page.evaluate("() => navigator.clipboard.readText()") == command


def test_without_the_gateway_the_wall_says_so_and_goes_on_when_asked(failing_page: Page) -> None:
    failing_page.route("**/generate", lambda route: route.abort())
    failing_page.goto("/")
    expect(failing_page.locator("#wall-status")).to_contain_text("The gateway does not answer.")
    failing_page.unroute("**/generate")
    failing_page.get_by_role("button", name="Try again").click()
    failing_page.locator(FILLED["wall"]).wait_for()


def test_the_studio_and_the_docs_work_where_keys_are_wanted(open_page: Open) -> None:
    """The browser asks its user for one."""
    key = new_key()
    with faulty_gateway(api_keys=f"me:{hash_of(key)}") as http:
        page = open_page(base_url=http.process.url, http_credentials={"username": "me", "password": key})
        page.reload()
        expect(page.locator(FILLED["wall"])).to_be_visible()
        page.goto("/docs")
        expect(page.locator("#operations-default-generate_generate_post")).to_be_visible()
        page.close()


def test_the_studio_and_the_docs_work_below_a_path_prefix(open_page: Open, studio: str) -> None:
    with stripping_proxy(studio) as url:
        page = open_page(base_url=url)
        page.get_by_role("link", name="API").click()
        expect(page.get_by_text("/digits/{seed}.png").first).to_be_visible()
        with page.expect_response(lambda response: "/healthz/live" in response.url) as tried:
            page.locator("#operations-default-live_healthz_live_get").click()
            page.get_by_role("button", name="Try it out").click()
            page.get_by_role("button", name="Execute").click()
        assert tried.value.url == f"{url}healthz/live"
        assert tried.value.status == 200
        page.close()
