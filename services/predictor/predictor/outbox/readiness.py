"""Readiness of the predictor while its outbox fills up."""

import structlog

from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox, OutboxUnavailable

log = structlog.get_logger(__name__)

WARNING_RATIO = 0.8


def report_depth(outbox: Outbox, health: Health) -> None:
    """Record in ``health`` whether the outbox is full, or nearly. Does not raise.

    While it is full, requests are rejected, or their events are dropped, as DRIFTLOOP_OUTBOX__ON_FULL says.
    """
    limits = outbox.limits
    try:
        pending = outbox.depth().events
    except OutboxUnavailable as error:
        health.mark_unavailable("outbox", str(error))
        return
    text = (
        f"{pending:,} events wait to be published, and the limit is {limits.max_events:,} "
        "(DRIFTLOOP_OUTBOX__MAX_EVENTS): is the broker available?"
    )
    is_full = pending >= limits.max_events
    if is_full and limits.on_full == "reject":
        if "outbox" not in health.unavailable:
            log.error("outbox.full", pending=pending, effect="requests are rejected")
        health.mark_unavailable("outbox", text)
    else:
        health.mark_available("outbox")
    if pending >= WARNING_RATIO * limits.max_events:
        health.add_warning("outbox", text)
    else:
        health.clear_warning("outbox")
