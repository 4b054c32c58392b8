"""The log: one line an event, for machines or for people."""

import json
import subprocess
import sys

from tests.support.otlp_collector import collector

CODE = """
import logging, structlog
from driftloop import tracing
from driftloop.settings import Log, Tracing
from driftloop.telemetry import configure_logging
configure_logging("test", Log({settings}))
log = structlog.get_logger("mine")
with tracing.running("test", Tracing(endpoint="{endpoint}")), tracing.span("work") as traceparent:
    print(traceparent)
    log.info("window judged", window="w", version="1")
log.warning("odd", event_id="e")
logging.getLogger("other").error("from %s", "a library")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("a request failed")
"""


def logged(settings: str) -> tuple[str, list[str]]:
    """What standard output and the log, a file, have."""
    with collector() as taken:
        code = CODE.format(settings=settings, endpoint=taken.url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip(), done.stderr.splitlines()


def test_each_event_is_an_object_on_a_line_with_the_ids_of_its_trace() -> None:
    traceparent, lines = logged("")
    judged, odd, other, failed = map(json.loads, lines)
    assert {name: judged[name] for name in ("service", "event", "window", "version", "level", "logger")} == {
        **{"service": "test", "event": "window judged", "window": "w", "version": "1"},
        **{"level": "info", "logger": "mine"},
    }
    assert traceparent.split("-")[1:3] == [judged["trace_id"], judged["span_id"]]
    assert (odd["event"], odd["event_id"]) == ("odd", "e")
    assert "trace_id" not in odd
    assert (other["service"], other["event"], other["level"]) == ("test", "from a library", "error")
    assert "ZeroDivisionError" in failed["exception"]


def test_people_get_lines_and_only_from_the_level_on_that_they_ask_for() -> None:
    _, lines = logged('format="human", level="warning"')
    assert "odd" in lines[0]
    assert "event_id=e" in lines[0]
    assert "from a library" in lines[1]
    assert not [line for line in lines if "window judged" in line]
    assert any(line.startswith("ZeroDivisionError") for line in lines)
