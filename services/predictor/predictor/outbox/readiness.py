"""Readiness of the predictor while its outbox takes no events, or soon will not, or cannot be emptied."""

import structlog

from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox, OutboxUnavailable

log = structlog.get_logger(__name__)

WARNING_RATIO = 0.8
MAX_CLOCK_SKEW_SECONDS = 60


def report_outbox(outbox: Outbox, health: Health) -> None:
    """Record in ``health`` what requests get from the outbox, and what the relay has reported. Does not raise.

    While it is full, requests are rejected, or their events are dropped, as DRIFTLOOP_OUTBOX__ON_FULL says.
    """
    try:
        reason = outbox.full_reason()
        if reason:
            outbox.empty_wal()  # until then a file that has become smaller has its old size on the disk
            reason = outbox.full_reason()
        outbox.probe()
        _warn_of_depth(outbox, health, reason)
        _warn_of_relay(outbox, health)
    except OutboxUnavailable as error:
        health.mark_unavailable("outbox", str(error))
        return
    if outbox.limits.on_full == "drop":
        reason = None
    if reason := reason or outbox.write_error:
        if "outbox" not in health.unavailable:
            log.error("outbox.unavailable", reason=reason, effect="requests are rejected")
        health.mark_unavailable("outbox", reason)
    else:
        health.mark_available("outbox")


def _warn_of_depth(outbox: Outbox, health: Health, full_reason: str | None) -> None:
    pending, limit = outbox.depth().events, outbox.limits.max_events
    if pending >= WARNING_RATIO * limit:
        text = (
            f"{pending:,} events wait to be published, and the limit is {limit:,} "
            "(DRIFTLOOP_OUTBOX__MAX_EVENTS): is the broker available?"
        )
        health.add_warning("outbox", text)
    elif full_reason:
        health.add_warning("outbox", full_reason)
    else:
        health.clear_warning("outbox")


def _warn_of_relay(outbox: Outbox, health: Health) -> None:
    skew, error = outbox.relay_state()
    if error:
        health.add_warning("relay", f"events cannot be published: {error}")
    else:
        health.clear_warning("relay")
    if skew is not None and abs(skew) > MAX_CLOCK_SKEW_SECONDS:
        direction = "ahead of" if skew > 0 else "behind"
        health.add_warning(
            "clock", f"this machine's clock is {abs(skew):,.0f} s {direction} the broker's: times of events are wrong"
        )
    else:
        health.clear_warning("clock")
