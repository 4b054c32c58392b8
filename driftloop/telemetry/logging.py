"""Structured logs: one line an event on standard error."""

import logging
import sys

import structlog

from driftloop.settings import LogSettings
from driftloop.telemetry import tracing

QUIET_LIBRARIES = ("kafka", "httpx")  # log each connection at INFO, which matters only when it fails


def configure_logging(service: str, settings: LogSettings) -> None:
    """Write log events of this service and of its libraries to standard error, one a line.

    Lines are JSON objects, or readable text where standard error is a terminal or the settings ask for it. Events
    that are logged inside a span carry its ``trace_id`` and ``span_id``.
    """

    def add_context(_: object, __: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        return {"service": service, **event, **tracing.log_context()}

    shared: list[structlog.typing.Processor] = [
        add_context,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso"),
    ]
    human = settings.format == "human" or (settings.format is None and sys.stderr.isatty())
    renderers: list[structlog.typing.Processor] = (
        [structlog.dev.ConsoleRenderer(colors=sys.stderr.isatty())]
        if human
        else [structlog.processors.format_exc_info, structlog.processors.JSONRenderer()]
    )
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *renderers,
            ],
        )
    )
    level = logging.getLevelNamesMapping()[settings.level.upper()]
    logging.basicConfig(level=level, handlers=[handler], force=True)
    for library in QUIET_LIBRARIES:
        logging.getLogger(library).setLevel(max(level, logging.WARNING))
    structlog.configure(
        processors=[structlog.stdlib.filter_by_level, *shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        cache_logger_on_first_use=True,
    )
