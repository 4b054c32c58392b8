"""Fixtures for tests across services: the shared stack, its first version, a browser, a random source."""

import os
from collections.abc import Iterator
from importlib.util import find_spec
from typing import TYPE_CHECKING

import pytest

from stack import services
from stack.running import Stack
from tests.support import otlp_collector, regression_usecase
from tests.support.otlp_collector import Collector
from tests.support.running_stack import (
    HOLDOUT_DAYS,
    RENTALS,
    WINDOW_ROWS,
    isolated_settings,
    run_command,
    serves_version,
)
from tests.support.waiting import wait_until
from tools.screenshots import CHROMIUM

if TYPE_CHECKING:
    from playwright.sync_api import Browser


@pytest.fixture(scope="session")
def collector() -> Iterator[Collector]:
    """What takes the stack's traces."""
    with otlp_collector.running_collector() as collector:
        yield collector


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory, collector: Collector) -> Iterator[Stack]:
    """The running stack, empty at the start. What asks for a trace is traced, and what is rare.

    Its services are those of the flights. The test that needs a second use case starts that one's.
    """
    extra = {
        "DRIFTLOOP_WINDOW__ROWS": str(WINDOW_ROWS),
        "DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "2",
        "DRIFTLOOP_GATE__HOLDOUT_DAYS": str(HOLDOUT_DAYS),
        regression_usecase.POINTER_VARIABLE: str(tmp_path_factory.mktemp("rentals") / "rentals.parquet.dvc"),
        "DRIFTLOOP_POLICY__ENABLED": "false",  # retrains are the tests' own
        "DRIFTLOOP_PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS": "0.5",
        "DRIFTLOOP_TRACING__ENDPOINT": collector.url,
        "DRIFTLOOP_TRACING__SAMPLE_RATIO": "0",
        "OTEL_BSP_SCHEDULE_DELAY": "200",  # milliseconds
    }
    settings = isolated_settings(tmp_path_factory.mktemp("stack"), RENTALS)
    with Stack(settings, print, extra, services_to_start=services.NAMES) as stack:
        yield stack


@pytest.fixture(scope="session")
def version_1(stack: Stack) -> str:
    """The first version, trained on January to March and in service."""
    done = run_command(
        stack,
        *("driftloop", "retrain", "--reason", "the first version", "--wait", "--no-archive"),
        *("--from", "2013-01-01", "--to", "2013-04-01"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "promoted version 1: the first version" in done.stdout
    wait_until(lambda: serves_version(stack, "1"), "version 1 answers")
    return "1"


@pytest.fixture(scope="module")  # playwright's loop is in the way of asyncio.run in other modules
def browser() -> "Iterator[Browser]":
    """Debian's chromium, driven by playwright; where either is missing the tests are skipped, but not in CI."""
    lacks = [
        name for name, there in (("chromium", CHROMIUM.exists()), ("playwright", find_spec("playwright"))) if not there
    ]
    if lacks and os.environ.get("CI") != "true":
        pytest.skip(f"{' and '.join(lacks)} not installed: apt-get install chromium, make setup")
    from playwright.sync_api import sync_playwright  # noqa: PLC0415  # it may be missing

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield browser
        browser.close()
