"""The studio and the API's page below a path prefix that a reverse proxy strips, with no setting."""

from playwright.sync_api import Browser, expect

from tests.browser.conftest import FILLED
from tests.support.http_servers import stripping_proxy


def test_the_studio_and_the_docs_work_below_a_path_prefix(browser: Browser, studio: str) -> None:
    with stripping_proxy(studio) as url, browser.new_context() as context:
        page = context.new_page()
        page.goto(f"{url}#wall")
        expect(page.locator(FILLED["wall"])).to_be_visible()
        page.get_by_role("link", name="API").click()
        expect(page.get_by_text("/digits/{seed}.png").first).to_be_visible()
        with page.expect_response(lambda response: "/healthz/live" in response.url) as tried:
            page.locator("#operations-default-live_healthz_live_get").click()
            page.get_by_role("button", name="Try it out").click()
            page.get_by_role("button", name="Execute").click()
        assert tried.value.url == f"{url}healthz/live"
        assert tried.value.status == 200
