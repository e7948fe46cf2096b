"""Where API keys are wanted, a browser asks its user for one, and the pages work."""

from collections.abc import Callable, Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from api.middleware.keys import hash_of, new_key
from tests.browser.conftest import FILLED
from tests.support import gateways
from tests.support.misbehaving import MisbehavingServer

KEY = new_key()


@pytest.fixture
def guarded_page(browser: Browser, watch: Callable[[Page], None]) -> Iterator[Page]:
    """A page of a browser whose user knows the key."""
    with (
        MisbehavingServer("127.0.0.1:0") as server,
        gateways.gateway(server.target, api_keys=f"me:{hash_of(KEY)}") as gateway,
        browser.new_context(base_url=gateway.url, http_credentials={"username": "me", "password": KEY}) as context,
    ):
        page = context.new_page()
        watch(page)
        yield page


def test_the_studio(guarded_page: Page) -> None:
    guarded_page.goto("/")
    expect(guarded_page.locator(FILLED["wall"])).to_be_visible()
    guarded_page.reload()
    expect(guarded_page.locator(FILLED["wall"])).to_be_visible()


def test_the_api_to_click_through(guarded_page: Page) -> None:
    guarded_page.goto("/docs")
    expect(guarded_page.locator("#operations-default-generate_generate_post")).to_be_visible()
