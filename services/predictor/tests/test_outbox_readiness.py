"""Readiness says that the outbox is nearly full, or full, before and while requests are rejected."""

from pathlib import Path
from typing import Any

import pytest

from driftloop.events import Outcome
from driftloop.kafka.codec import serialize
from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox, OutboxUnavailable, RelayState
from predictor.outbox.readiness import report_outbox
from predictor.settings import OutboxSettings


@pytest.mark.parametrize(
    ("on_full", "events", "warns", "rejects"),
    [("reject", 7, False, False), ("reject", 8, True, False), ("reject", 10, True, True), ("drop", 10, True, False)],
)
def test_health_reports_depth_of_outbox(tmp_path: Path, on_full: Any, events: int, warns: bool, rejects: bool) -> None:
    outbox, health = Outbox(tmp_path, OutboxSettings(max_events=10, on_full=on_full)), Health()
    health.mark_started()
    outbox.append([serialize(Outcome(prediction_id="p", index=n, outcome=1)) for n in range(events)])
    report_outbox(outbox, health)
    assert ("outbox" in health.warnings, "outbox" in health.unavailable) == (warns, rejects)
    if warns:
        assert "the limit is 10 (DRIFTLOOP_OUTBOX__MAX_EVENTS)" in health.warnings["outbox"]
    outbox.delete_through(2**62)
    report_outbox(outbox, health)
    assert (health.warnings, health.unavailable) == ({}, {})
    outbox.close()


def test_health_reports_outbox_that_cannot_be_read(tmp_path: Path) -> None:
    outbox, health = Outbox(tmp_path, OutboxSettings()), Health()
    outbox.close()
    report_outbox(outbox, health)
    assert "outbox" in health.unavailable


def test_health_reports_failed_writes_until_one_succeeds(tmp_path: Path) -> None:
    outbox, health = Outbox(tmp_path, OutboxSettings()), Health()
    health.mark_started()
    outbox._db.execute("PRAGMA query_only = 1")
    with pytest.raises(OutboxUnavailable):
        outbox.append([serialize(Outcome(prediction_id="p", index=0, outcome=1))])
    report_outbox(outbox, health)
    assert "outbox" in health.unavailable
    outbox._db.execute("PRAGMA query_only = 0")
    report_outbox(outbox, health)
    assert health.unavailable == {}
    outbox.close()


def test_health_reports_disk_without_room(tmp_path: Path) -> None:
    outbox, health = Outbox(tmp_path, OutboxSettings(min_free_bytes=2**62)), Health()
    health.mark_started()
    report_outbox(outbox, health)
    assert "DRIFTLOOP_OUTBOX__MIN_FREE_BYTES" in health.unavailable["outbox"]
    with pytest.raises(OutboxUnavailable, match="DRIFTLOOP_OUTBOX__MIN_FREE_BYTES"):
        outbox.require_capacity()
    assert outbox.free_bytes() == 0
    outbox.close()


def test_health_warns_of_what_the_relay_cannot_do(tmp_path: Path) -> None:
    outbox, health = Outbox(tmp_path, OutboxSettings()), Health()
    outbox.save_relay_state(RelayState(error="no broker"))
    report_outbox(outbox, health)
    assert "no broker" in health.warnings["relay"]
    outbox.save_relay_state(RelayState())
    report_outbox(outbox, health)
    assert health.warnings == {}
    outbox.close()
