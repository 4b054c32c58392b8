"""``make pictures``: screenshots for the docs, of the consoles and of the drift worker's page after the demo."""

import asyncio
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

from demo.flights import Demo, demo_stack
from grafana.generate import DASHBOARD_BUILDERS, file_stem
from stack.prometheus import SCRAPE_SECONDS

if TYPE_CHECKING:
    from playwright.sync_api import Page, ViewportSize

CHROMIUM = Path("/usr/bin/chromium")
VIEWPORT: "ViewportSize" = {"width": 1280, "height": 900}
IMAGES = Path(__file__).parent.parent / "docs" / "images"
IS_DRAWN = "() => document.body.dataset.drawn && !document.querySelector('.prom_graph_loading')"


def main() -> int:
    """Run the demo, which takes minutes, and take the screenshots before its stack stops."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # so that the stack is stopped, too
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # tests import this module, too

    with demo_stack() as stack:
        started = time.time()
        asyncio.run(Demo(stack).run())
        time.sleep(2 * SCRAPE_SECONDS)  # until the last values are scraped
        with sync_playwright() as playwright, playwright.chromium.launch(executable_path=CHROMIUM) as browser:
            for build in DASHBOARD_BUILDERS:
                name = file_stem(build())
                with browser.new_page(viewport=VIEWPORT) as page:
                    open_console(page, stack.components["prometheus"].url, name, time.time() - started)
                    page.screenshot(path=IMAGES / f"dashboard-{name}.png", full_page=True)
            with browser.new_page(viewport=VIEWPORT) as page:
                page.goto(stack.components["drift_worker"].url, wait_until="networkidle")
                page.screenshot(path=IMAGES / "drift.png", full_page=True)
    return 0


def open_console(page: "Page", prometheus: str, name: str, seconds: float) -> None:
    """Open a console that shows the latest ``seconds``, and return when all panels are drawn."""
    page.goto(f"{prometheus}/consoles/{name}.html?seconds={seconds:.0f}&rate_interval={4 * SCRAPE_SECONDS}s")
    page.wait_for_function(IS_DRAWN, timeout=30_000)


if __name__ == "__main__":
    sys.exit(main())
