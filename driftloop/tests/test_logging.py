"""Log events as JSON lines and as readable text."""

import json
import subprocess
import sys

from tests.support.otlp_collector import running_collector

CODE = """
import logging, structlog
from driftloop.settings import LogSettings, TracingSettings
from driftloop.telemetry import tracing
from driftloop.telemetry.logging import configure_logging
configure_logging("test", LogSettings({settings}))
log = structlog.get_logger("example")
with tracing.tracing_session("test", TracingSettings(endpoint="{endpoint}")), tracing.span("work") as traceparent:
    print(traceparent)
    log.info("window.judged", window="w", version="1")
log.warning("example.warning", event_id="e")
logging.getLogger("other").error("from %s", "a library")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("request.failed")
"""


def run_logging(settings: str) -> tuple[str, list[str]]:
    """Log with these settings in another process; return its standard output and the lines of its log."""
    with running_collector() as received:
        code = CODE.format(settings=settings, endpoint=received.url)
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60)
    return done.stdout.strip(), done.stderr.splitlines()


def test_logging_writes_one_json_object_a_line_with_the_ids_of_the_current_span() -> None:
    traceparent, lines = run_logging("")
    judged, warning, library, failed = map(json.loads, lines)
    assert {name: judged[name] for name in ("service", "event", "window", "version", "level", "logger")} == {
        **{"service": "test", "event": "window.judged", "window": "w", "version": "1"},
        **{"level": "info", "logger": "example"},
    }
    assert traceparent.split("-")[1:3] == [judged["trace_id"], judged["span_id"]]
    assert (warning["event"], warning["event_id"]) == ("example.warning", "e")
    assert "trace_id" not in warning
    assert (library["service"], library["event"], library["level"]) == ("test", "from a library", "error")
    assert "ZeroDivisionError" in failed["exception"]


def test_logging_in_human_format_writes_text_from_the_configured_level_on() -> None:
    _, lines = run_logging('format="human", level="warning"')
    assert "example.warning" in lines[0]
    assert "event_id=e" in lines[0]
    assert "from a library" in lines[1]
    assert not [line for line in lines if "window.judged" in line]
    assert any(line.startswith("ZeroDivisionError") for line in lines)
