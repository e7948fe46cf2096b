"""How long does it take from opening the studio until a hundred digits are on screen?

    python -m benchmarks.studio                              # starts the service on the models in the package
    python -m benchmarks.studio --url http://127.0.0.1:8000  # a gateway that runs

Opens the page in a headless Chromium, each time in a fresh profile, so that nothing is cached; and beside it, in turns,
a page of nothing but text from the same gateway, which is what Chromium and the way to it take by themselves.
"""

import shutil
import statistics
import time
from typing import Annotated

import typer
from rich.console import Console
from rich.progress import track

from benchmarks.service import service

PLAIN = "/healthz/live"
ARGUMENTS = ["--no-sandbox", "--disable-gpu"]
WALL = "#tiles button:nth-child(100)"


def main(
    url: Annotated[str | None, typer.Option(help="A gateway that runs. Default: one is started.")] = None,
    rounds: Annotated[int, typer.Option(min=1, help="How often the page is opened.")] = 20,
    chromium: Annotated[str, typer.Option(help="The browser's command.")] = "chromium",
) -> None:
    """Times the studio's first wall."""
    from playwright.sync_api import Browser, sync_playwright

    console = Console(highlight=False)
    found = shutil.which(chromium)
    if not found:
        raise typer.BadParameter(f"{chromium} is not on the PATH (Debian's package: chromium)", param_hint="--chromium")

    def seconds(browser: Browser, address: str, awaited: str) -> float:
        context = browser.new_context(viewport={"width": 1280, "height": 860})
        page = context.new_page()
        start = time.perf_counter()
        page.goto(address, wait_until="commit")
        page.locator(awaited).wait_for()
        taken = time.perf_counter() - start
        context.close()
        return taken

    with service(url) as http, sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=found, headless=True, args=ARGUMENTS)
        here = str(http.base_url).rstrip("/")
        places = {
            "a hundred digits": (f"{here}/", WALL),
            "plain text": (here + PLAIN, "body"),
        }
        times: dict[str, list[float]] = {name: [] for name in places}
        for _ in track(range(rounds), "Opening pages", console=Console(stderr=True)):
            for name, (address, awaited) in places.items():
                times[name].append(seconds(browser, address, awaited))
        browser.close()
    console.print("| seconds until there is | median | least | most |\n| --- | --- | --- | --- |")
    for name, taken in times.items():
        console.print(f"| {name} | {statistics.median(taken):.2f} | {min(taken):.2f} | {max(taken):.2f} |")


if __name__ == "__main__":
    typer.run(main)
