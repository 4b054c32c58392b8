"""Each response of the predictor has its event exactly once, while parts of the stack are killed or stopped.

``make faults`` runs the tests with many more faults.
"""

import os
import random
import re
import time
from collections.abc import Callable, Iterator
from datetime import date
from itertools import cycle, islice

import numpy as np
import pytest

from driftloop.events import ModelStateChanged
from driftloop.kafka.publisher import Publisher
from predictor.outbox.outbox import Outbox
from predictor.settings import OutboxSettings
from stack.running import Stack
from tests.support import flights_model, stack_fixture
from tests.support.faults import random_delay, stopped
from tests.support.flights_model import SavedModel
from tests.support.load_client import Responses
from tests.support.predictor_process import PredictorProcess
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until

KILLS = int(os.environ.get("FAULTS_KILLS", "3"))
RESTARTS = int(os.environ.get("FAULTS_RESTARTS", "1"))
OUTAGE_SECONDS = float(os.environ.get("FAULTS_AWAY_SECONDS", "10"))
BROKER_OUTAGE_SECONDS = 10
SMALL_OUTBOX = 300  # events; such an outbox is full soon

pytestmark = pytest.mark.timeout(600 + 30 * KILLS + 60 * RESTARTS)

Make = Callable[..., PredictorProcess]
Start = Callable[..., PredictorProcess]
Serve = Callable[[int], PredictorProcess]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Start broker, storage and registry; each test starts its predictors."""
    with Stack(isolated_settings(tmp_path_factory.mktemp("promise")), print, services_to_start=()) as stack:
        yield stack


@pytest.fixture(scope="module")
def versions(stack: Stack) -> dict[str, SavedModel]:
    """Register versions 1 and 2, trained on two seasons."""
    seasons = [(date(2013, month, 1), date(2013, month, 10)) for month in (1, 7)]
    saved = [flights_model.train_and_save(stack.folder / f"model-{n}", days) for n, days in enumerate(seasons, 1)]
    return {stack_fixture.register_model(stack, model): model for model in saved}


@pytest.fixture(scope="module")
def make(stack: Stack, versions: dict[str, SavedModel]) -> Iterator[Make]:
    """Return a function that makes a predictor, not started; all are killed after the last test."""
    rows = flights_model.sample_rows((date(2013, 1, 1), date(2014, 1, 1)))
    made: list[PredictorProcess] = []

    def make(name: str, **settings: str) -> PredictorProcess:
        made.append(PredictorProcess(stack, f"{name}-{len(made)}", versions, rows, **settings))
        return made[-1]

    yield make
    for predictor in made:
        predictor.kill_group()


@pytest.fixture
def start(stack: Stack, make: Make, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Return a function that starts a predictor with its own settings, which serves version 1."""
    stack.registry.promote("1")
    started: list[PredictorProcess] = []

    def start(**settings: str) -> PredictorProcess:
        started.append(make(re.sub(r"\W+", "-", request.node.name.removeprefix("test_")), **settings))
        started[-1].start()
        return started[-1]

    yield start
    for predictor in started:
        predictor.kill_group()


@pytest.fixture(scope="module")
def predictors(make: Make) -> dict[int, PredictorProcess]:
    """Return predictors with default settings, by number of processes; tests share them, as a start takes 10 s."""
    return {workers: make(f"workers-{workers}", PREDICTOR__WORKERS=str(workers)) for workers in (1, 2)}


@pytest.fixture
def serve(stack: Stack, predictors: dict[int, PredictorProcess]) -> Serve:
    """Return a function that returns the shared predictor with ``workers`` processes, which serves version 1."""

    def serve(workers: int) -> PredictorProcess:
        stack.registry.promote("1")
        predictor = predictors[workers]
        if not predictor.running():
            predictor.start()
        wait_until(lambda: predictor.version() == "1" or None, "version 1 serves")
        return predictor

    return serve


@pytest.mark.parametrize(("workers", "kills"), [(1, KILLS), (2, max(1, KILLS // 3))])
def test_killed_predictor_publishes_every_response_once(
    stack: Stack, serve: Serve, workers: int, kills: int, random_source: random.Random
) -> None:
    predictor = serve(workers)
    with predictor.under_load() as load:
        # The relay outlives the predictor for a while, or is killed with it.
        for version, kill in islice(cycle([("2", predictor.kill), ("1", predictor.kill_group)]), kills):
            predictor.wait_until_loaded()
            stack.registry.promote(version)
            random_delay(random_source)
            kill()
            predictor.start()
        predictor.wait_until_loaded()
        # After a start, the cached version serves until the alias has been looked up.
        wait_until(lambda: serving_workers(predictor, version) == workers or None, "all serve the last version")
        predictor.wait_until_loaded()
    responses = load.result()
    predictor.assert_exactly_once(responses, kills=kills)
    assert set(responses.status) <= {200, 503, 0}
    assert set(responses.version[responses.status == 200]) == {"1", "2"}


def test_killed_relay_publishes_every_response_once(serve: Serve, random_source: random.Random) -> None:
    predictor = serve(1)
    with predictor.under_load() as load:
        for number in range(KILLS):
            if number % 3 != 1:  # otherwise it may be killed while it starts
                wait_until_relaying(predictor)
            random_delay(random_source)
            killed = predictor.relay()
            killed.kill()
            wait_until(lambda killed=killed: predictor.relay() != killed or None, "another relay runs")  # type: ignore[misc]
        wait_until_relaying(predictor)
    assert_all_succeeded(load.result())
    predictor.assert_exactly_once(load.result(), kills=KILLS)


def test_predictor_serves_without_broker_and_publishes_once_afterwards(stack: Stack, serve: Serve) -> None:
    predictor = serve(1)
    with predictor.under_load() as load:
        for kill in islice(cycle([True, False]), RESTARTS):
            predictor.wait_until_loaded()
            with stopped(stack, "kafka", kill=kill):
                time.sleep(BROKER_OUTAGE_SECONDS)
                assert pending_events(predictor) > 0
            # A relay whose transaction was interrupted by the broker's end is restarted after half a minute.
            wait_until(
                lambda: pending_events(predictor) < SMALL_OUTBOX or None, "the backlog is published", seconds=120
            )
    assert_all_succeeded(load.result())
    predictor.assert_exactly_once(load.result(), restarts=RESTARTS)
    assert load.result().milliseconds.max() < BROKER_OUTAGE_SECONDS / 2 * 1000, "requests waited for the broker"


def test_predictor_starts_from_cache_without_registry_and_follows_alias_afterwards(stack: Stack, serve: Serve) -> None:
    predictor = serve(1)
    with predictor.under_load() as load:
        predictor.wait_until_loaded()
        with stopped(stack, "gcs"), stopped(stack, "mlflow"):
            back_at = time.monotonic() + OUTAGE_SECONDS
            wait_until(lambda: predictor.get("/readyz")["warnings"].get("registry"), "a warning reports the registry")
            killed_at = time.time()
            predictor.kill()
            predictor.start()
            restarted_at = time.time()
            predictor.wait_until_loaded()
            assert (predictor.get("/models")["version"], predictor.get("/models")["version_source"]) == ("1", "cache")
            wait_until(lambda: predictor.get("/readyz")["warnings"].get("registry"), "a warning reports the registry")
            time.sleep(max(0, back_at - time.monotonic()))
        stack.registry.promote("2")
        wait_until(lambda: predictor.version() == "2" or None, "the version of the alias serves")
        wait_until(
            lambda: predictor.get("/models")["version_source"] == "alias" or None, "the version comes from the alias"
        )
        assert predictor.get("/readyz")["warnings"] == {}
    responses = load.result()
    predictor.assert_exactly_once(responses)
    # Only the kill interrupts requests.
    interrupted = (responses.status != 200) & ((responses.end < killed_at) | (responses.start > restarted_at))
    assert not interrupted.any()


def test_next_predictor_on_same_disk_publishes_pending_events_of_killed_one(stack: Stack, serve: Serve) -> None:
    predictor = serve(1)
    with predictor.under_load() as load, stopped(stack, "kafka"):
        predictor.wait_until_loaded()
        wait_until(lambda: pending_events(predictor) > SMALL_OUTBOX or None, "events are pending")
        predictor.kill_group()
    outbox = Outbox(predictor.folder, OutboxSettings())
    assert outbox.depth().events > SMALL_OUTBOX
    outbox.close()
    predictor.start()
    predictor.assert_exactly_once(load.result())


def test_full_outbox_rejects_requests_and_publishes_every_response(stack: Stack, start: Start) -> None:
    predictor = start(OUTBOX__MAX_EVENTS=str(SMALL_OUTBOX))
    with stopped(stack, "kafka"), predictor.under_load() as load:
        rejected = wait_until(
            lambda: response if (response := predictor.predict()).status_code == 503 else None, "the outbox is full"
        )
        assert "DRIFTLOOP_OUTBOX__MAX_EVENTS" in rejected.json()["detail"]
        assert int(rejected.headers["Retry-After"]) > 0
        wait_until(lambda: predictor.response_count("503") > SMALL_OUTBOX or None, "many requests are rejected")
    responses = load.result()
    predictor.assert_exactly_once(responses)
    assert set(responses.status) == {200, 503}
    wait_until(lambda: predictor.predict().status_code == 200 or None, "the predictor responds again")


def test_full_outbox_set_to_drop_serves_all_and_counts_lost_events(stack: Stack, start: Start) -> None:
    predictor = start(OUTBOX__MAX_EVENTS=str(SMALL_OUTBOX), OUTBOX__ON_FULL="drop")
    with stopped(stack, "kafka"), predictor.under_load() as load:
        wait_until(
            lambda: predictor.metric("driftloop_outbox_dropped_events_total") > SMALL_OUTBOX or None,
            "events are dropped",
        )
    assert_all_succeeded(load.result())
    dropped = int(predictor.metric("driftloop_outbox_dropped_events_total"))
    predictor.assert_exactly_once(load.result(), missing=dropped)


def test_workers_share_metrics_are_replaced_and_drain_the_outbox(serve: Serve, random_source: random.Random) -> None:
    predictor = serve(2)
    earlier = predictor.response_count("200")
    with predictor.under_load() as before:
        predictor.wait_until_loaded()
    assert_all_succeeded(before.result())
    wait_until(
        lambda: predictor.response_count("200") == earlier + len(before.result().status) or None,
        "the metrics count the requests of both workers",
    )

    killed = predictor.workers()[0]
    with predictor.under_load() as meanwhile:
        predictor.wait_until_loaded()
        random_delay(random_source)
        killed.kill()
        wait_until(
            lambda: (killed not in (now := predictor.workers()) and len(now) == 2) or None,
            "another worker replaces the killed one",
        )
        wait_until(lambda: serving_workers(predictor, "1") == 2 or None, "both workers serve")
    assert set(meanwhile.result().status) <= {200, 0}

    with predictor.under_load() as at_the_end:
        predictor.wait_until_loaded()
        random_delay(random_source)
        assert predictor.stop() == 0
    outbox = Outbox(predictor.folder, OutboxSettings())
    assert outbox.depth().events == 0
    outbox.close()
    assert set(at_the_end.result().status) == {200, 0}
    all_responses = [before.result(), meanwhile.result(), at_the_end.result()]
    predictor.assert_exactly_once(Responses(*map(np.concatenate, zip(*all_responses, strict=True))))


def test_announced_version_serves_at_once_except_if_another_is_pinned(
    stack: Stack, start: Start, random_source: random.Random
) -> None:
    started_at = time.monotonic()
    predictor = start(PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS="3600")
    start_seconds = time.monotonic() - started_at
    pinned = start(PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS="3600", PREDICTOR__PINNED_VERSION="1")
    with (
        Publisher(stack.kafka, stack.topics, "test") as publisher,
        predictor.under_load() as load,
        pinned.under_load() as pinned_load,
    ):

        def announce() -> None:
            publisher.publish(
                ModelStateChanged(retrain_id="r", model=flights_model.MODEL, state="promoted", explanation="a test")
            )

        def announced() -> bool | None:
            announce()
            return predictor.version() == "2" or None

        predictor.wait_until_loaded()
        pinned.wait_until_loaded()
        stack.registry.promote("2")
        random_delay(random_source)
        assert predictor.version() == "1"
        wait_until(announced, "version 2 serves")  # until then the predictor may not be following the topic yet
        stack.registry.promote("1")
        announce()
        # A version is loaded in less time than a predictor that loads it needs to start, however slow the machine.
        wait_until(lambda: predictor.version() == "1" or None, "version 1 serves", seconds=max(5, start_seconds))
    for responses in (load.result(), pinned_load.result()):
        assert_all_succeeded(responses)
    predictor.assert_exactly_once(load.result())
    pinned.assert_exactly_once(pinned_load.result())
    assert set(load.result().version) == {"1", "2"}
    assert set(pinned_load.result().version) == {"1"}


def wait_until_relaying(predictor: PredictorProcess) -> None:
    """Wait until the relay has published more events."""
    before = predictor.metric("driftloop_outbox_relayed_events_total")
    wait_until(
        lambda: predictor.metric("driftloop_outbox_relayed_events_total") > before or None, "the relay publishes"
    )


def pending_events(predictor: PredictorProcess) -> float:
    return predictor.metric("driftloop_outbox_pending_events")


def serving_workers(predictor: PredictorProcess, version: str) -> float:
    return predictor.metric("driftloop_predictor_serving_version_info", version=version)


def assert_all_succeeded(responses: Responses) -> None:
    assert set(responses.status) == {200}
