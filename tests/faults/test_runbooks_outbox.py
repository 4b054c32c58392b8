"""The runbooks of the alerts about the outbox, tried: the fault is made, the alert fires, the steps end it."""

import shutil
from pathlib import Path

import pytest

from tests.support.ports import reserve_ports
from tests.support.small_disk import fill, skip_without_small_disk
from tests.support.waiting import wait_until
from tests.support.watched_stack import SPARE, WatchedStack, drill_of

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(900)]

SECONDS_AHEAD = 120.0


@drill_of("OutboxStalled", "EventsDropped", "BackgroundTaskFailing")
def test_wrong_address_of_the_broker_is_an_outage_until_it_is_corrected(watched: WatchedStack) -> None:
    nobody = f"127.0.0.1:{reserve_ports(1)[0]}"
    settings = {"OUTBOX__ON_FULL": "drop", "OUTBOX__MAX_EVENTS": "5", "KAFKA__REQUEST_TIMEOUT_SECONDS": "1"}

    def request() -> None:
        watched.served_version(SPARE)

    with watched.spare_predictor(**settings, KAFKA__BOOTSTRAP_SERVERS=nobody):
        instance = watched.instance(SPARE)
        watched.wait_until_serves(watched.first_version, SPARE)
        watched.wait_until_fires("EventsDropped", request, instance=instance, severity="critical")
        watched.wait_until_fires("BackgroundTaskFailing", instance=instance, task="model_changes", severity="warning")
        watched.wait_until_fires("OutboxStalled", instance=instance, severity="critical")
        assert {"relay", "model_changes"} <= watched.readiness(SPARE)["warnings"].keys()
    with watched.spare_predictor(**settings):
        watched.wait_until_ends(request)
        pending = f'driftloop_outbox_pending_events{{instance="{instance}"}}'
        wait_until(lambda: watched.metric(f"{pending} == 0"), "what waited is published")


@drill_of("OutboxGrowing")
def test_outbox_grows_without_the_broker_and_empties_itself_once_it_is_back(watched: WatchedStack) -> None:
    with watched.proxies["kafka"].trouble("cut"):
        watched.wait_until_fires(
            "OutboxGrowing", watched.served_version, instance=watched.instance("predictor"), severity="warning"
        )
    watched.wait_until_ends()


@drill_of("OutboxDiskFull")
def test_disk_of_the_outbox_is_full_until_there_is_room(watched: WatchedStack) -> None:
    if watched.no_small_disk:
        skip_without_small_disk(watched.no_small_disk)
    ballast = Path(watched.stack.components["predictor"].environment["DRIFTLOOP_PREDICTOR__DATA_DIR"]) / "ballast"
    fill(ballast)
    try:
        watched.wait_until_fires("OutboxDiskFull", instance=watched.instance("predictor"), severity="critical")
        assert "outbox" in watched.readiness("predictor")["unavailable"]
    finally:
        ballast.unlink()
    watched.wait_until_ends()


@drill_of("OutboxRenamed")
def test_copied_folder_is_renamed_and_an_empty_one_ends_the_alert(watched: WatchedStack) -> None:
    original = Path(watched.stack.components["predictor"].environment["DRIFTLOOP_PREDICTOR__DATA_DIR"])
    copy = watched.stack.folder / "predictor" / SPARE
    shutil.rmtree(copy, ignore_errors=True)
    watched.clients.paused = True
    pending = f'driftloop_outbox_pending_events{{instance="{watched.instance("predictor")}"}}'
    wait_until(lambda: watched.metric(pending) == 0 or None, "the outbox is empty")
    shutil.copytree(original, copy)
    published = f'driftloop_outbox_relayed_events_total{{instance="{watched.instance("predictor")}"}}'
    before = watched.metric(published) or 0
    watched.clients.paused = False
    wait_until(lambda: watched.metric(f"{published} > {before}"), "the original publishes more than the copy has")
    with watched.spare_predictor():
        watched.wait_until_fires("OutboxRenamed", lambda: watched.served_version(SPARE), severity="warning")
        renamed = "relay.outbox_renamed"
        assert watched.log_has(SPARE, renamed) or watched.log_has("predictor", renamed)
    shutil.rmtree(copy)
    with watched.spare_predictor():
        watched.wait_until_ends(lambda: watched.served_version(SPARE))


@drill_of("ClockSkew")
def test_clock_that_is_ahead_alerts_until_it_is_right(watched: WatchedStack) -> None:
    watched.clock.set(SECONDS_AHEAD)
    instance = watched.instance("predictor")
    watched.wait_until_fires("ClockSkew", instance=instance, severity="warning")
    assert (watched.metric(f'driftloop_outbox_clock_skew_seconds{{instance="{instance}"}}') or 0) > 0
    watched.clock.set(0)
    watched.wait_until_ends()
