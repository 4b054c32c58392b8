"""``make pictures``: the consoles of a Prometheus that watched the demo, and the drift worker's page, for the docs."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo.flights import Demo, empty_stack
from grafana.generate import ALL, name
from stack.prometheus import SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

CHROMIUM = Path("/usr/bin/chromium")
SIZE: "ViewportSize" = {"width": 1280, "height": 900}
DOCS = Path(__file__).parent.parent / "docs"
DRAWN = "() => document.body.dataset.drawn && !document.querySelector('.prom_graph_loading')"


def main() -> int:
    """Runs the demo, which takes minutes, and takes the pictures before its stack ends."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # the stack is stopped then, too
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # the tests' conftest needs no browser

    with empty_stack() as stack:
        began = time.time()
        asyncio.run(Demo(stack).run())
        time.sleep(2 * SECONDS)  # until the last of it is scraped
        with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
            for make in ALL:
                of = name(make())
                with browser.new_page(viewport=SIZE) as page:
                    opened(page, stack.parts["prometheus"].url, of, time.time() - began)
                    page.screenshot(path=DOCS / f"dashboard-{of}.png", full_page=True)
            with browser.new_page(viewport=SIZE) as page:
                page.goto(stack.parts["drift_worker"].url, wait_until="networkidle")
                page.screenshot(path=DOCS / "drift.png", full_page=True)
    return 0


def opened(page: "Page", prometheus: str, name: str, seconds: float) -> None:
    """Shows the latest seconds of a console; returns when everything is drawn."""
    page.goto(f"{prometheus}/consoles/{name}.html?seconds={seconds:.0f}&rate_interval={4 * SECONDS}s")
    page.wait_for_function(DRAWN, timeout=30_000)


if __name__ == "__main__":
    sys.exit(main())
