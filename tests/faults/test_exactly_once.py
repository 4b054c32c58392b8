"""Answered means published, exactly once, and right: on the real stack, while its parts are killed or away.

``make faults`` does the same with many more faults.
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
from predictor.settings import OutboxSettings as Limits
from stack.running import Stack
from tests.support import flights_model, stack_fixture
from tests.support.faults import random_delay, stopped
from tests.support.flights_model import SavedModel
from tests.support.load_client import Responses
from tests.support.predictor_process import Predictor
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until

KILLS = int(os.environ.get("FAULTS_KILLS", "3"))
RESTARTS = int(os.environ.get("FAULTS_RESTARTS", "1"))
AWAY_SECONDS = float(os.environ.get("FAULTS_AWAY_SECONDS", "10"))
BROKER_AWAY_SECONDS = 10
FEW = 300  # events that an outbox may hold where it is to be full soon

pytestmark = pytest.mark.timeout(600 + 30 * KILLS + 60 * RESTARTS)

Make = Callable[..., Predictor]
Start = Callable[..., Predictor]
Serve = Callable[[int], Predictor]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Broker, storage and registry; each test brings its predictor."""
    with Stack(isolated_settings(tmp_path_factory.mktemp("promise")), print, services_to_start=()) as stack:
        yield stack


@pytest.fixture(scope="module")
def versions(stack: Stack) -> dict[str, SavedModel]:
    """Versions 1 and 2, of two seasons."""
    seasons = [(date(2013, month, 1), date(2013, month, 10)) for month in (1, 7)]
    saved = [flights_model.train_and_save(stack.folder / f"model-{n}", days) for n, days in enumerate(seasons, 1)]
    return {stack_fixture.register_model(stack, one): one for one in saved}


@pytest.fixture(scope="module")
def make(stack: Stack, versions: dict[str, SavedModel]) -> Iterator[Make]:
    """Make predictors that are not started yet; all are killed after the last test."""
    rows = flights_model.sample_rows((date(2013, 1, 1), date(2014, 1, 1)))
    made: list[Predictor] = []

    def make(name: str, **settings: str) -> Predictor:
        made.append(Predictor(stack, f"{name}-{len(made)}", versions, rows, **settings))
        return made[-1]

    yield make
    for predictor in made:
        predictor.kill_group()


@pytest.fixture
def start(stack: Stack, make: Make, request: pytest.FixtureRequest) -> Iterator[Start]:
    """Start predictors with settings of this test, which serve version 1."""
    stack.registry.promote("1")
    started: list[Predictor] = []

    def start(**settings: str) -> Predictor:
        started.append(make(re.sub(r"\W+", "-", request.node.name.removeprefix("test_")), **settings))
        started[-1].start()
        return started[-1]

    yield start
    for predictor in started:
        predictor.kill_group()


@pytest.fixture(scope="module")
def predictors(make: Make) -> dict[int, Predictor]:
    """Predictors with default settings that tests share, by their number of processes: a start takes ten seconds."""
    return {workers: make(f"workers-{workers}", PREDICTOR__WORKERS=str(workers)) for workers in (1, 2)}


@pytest.fixture
def serve(stack: Stack, predictors: dict[int, Predictor]) -> Serve:
    """Return the shared predictor with so many processes, which serves version 1."""

    def serve(workers: int) -> Predictor:
        stack.registry.promote("1")
        predictor = predictors[workers]
        if not predictor.running():
            predictor.start()
        wait_until(lambda: predictor.version() == "1" or None, "version 1 answers")
        return predictor

    return serve


@pytest.mark.parametrize(("workers", "kills"), [(1, KILLS), (2, max(1, KILLS // 3))])
def test_a_killed_predictor_publishes_every_answer_once(
    stack: Stack, serve: Serve, workers: int, kills: int, random_source: random.Random
) -> None:
    predictor = serve(workers)
    with predictor.asked() as asked:
        # The relay goes on for a while without the predictor, or ends with it.
        for version, kill in islice(cycle([("2", predictor.kill), ("1", predictor.kill_group)]), kills):
            predictor.loaded()
            stack.registry.promote(version)
            random_delay(random_source)
            kill()
            predictor.start()
        predictor.loaded()
        # A start answers with what lies on the disk before it has looked the alias up.
        wait_until(lambda: predictor.version() == version or None, "the version of the last swap answers")
    answers = asked.result()
    predictor.compare(answers, kills=kills)
    assert set(answers.status) <= {200, 503, 0}
    assert set(answers.version[answers.status == 200]) == {"1", "2"}


def test_a_killed_relay_publishes_every_answer_once(serve: Serve, random_source: random.Random) -> None:
    predictor = serve(1)
    with predictor.asked() as asked:
        for number in range(KILLS):
            if number % 3 != 1:  # or else it may be killed while it starts
                relays(predictor)
            random_delay(random_source)
            killed = predictor.relay()
            killed.kill()
            wait_until(lambda killed=killed: predictor.relay() != killed or None, "another relay runs")  # type: ignore[misc]
        relays(predictor)
    all_answered(asked.result())
    predictor.compare(asked.result(), kills=KILLS)


def test_requests_are_answered_while_the_broker_is_away_and_published_once_when_it_is_back(
    stack: Stack, serve: Serve
) -> None:
    predictor = serve(1)
    with predictor.asked() as asked:
        for kill in islice(cycle([True, False]), RESTARTS):
            predictor.loaded()
            with stopped(stack, "kafka", kill=kill):
                time.sleep(BROKER_AWAY_SECONDS)
                assert waiting(predictor) > 0
            # A relay that is caught in a transaction by the broker's end is replaced after half a minute.
            wait_until(lambda: waiting(predictor) < FEW or None, "only what has just come waits", seconds=120)
    all_answered(asked.result())
    predictor.compare(asked.result(), restarts=RESTARTS)
    assert asked.result().milliseconds.max() < BROKER_AWAY_SECONDS / 2 * 1000, "requests waited for the broker"


def test_without_registry_and_storage_the_last_good_version_serves_and_the_alias_is_followed_later(
    stack: Stack, serve: Serve
) -> None:
    predictor = serve(1)
    with predictor.asked() as asked:
        predictor.loaded()
        with stopped(stack, "gcs"), stopped(stack, "mlflow"):
            back_at = time.monotonic() + AWAY_SECONDS
            wait_until(lambda: predictor.get("/readyz")["warnings"].get("registry"), "the registry is missed")
            killed_at = time.time()
            predictor.kill()
            predictor.start()
            up_again_at = time.time()
            predictor.loaded()
            assert (predictor.get("/models")["version"], predictor.get("/models")["version_source"]) == ("1", "cache")
            wait_until(lambda: predictor.get("/readyz")["warnings"].get("registry"), "the registry is missed")
            time.sleep(max(0, back_at - time.monotonic()))
        stack.registry.promote("2")
        wait_until(lambda: predictor.version() == "2" or None, "the alias is followed")
        wait_until(lambda: predictor.get("/models")["version_source"] == "alias" or None, "the alias names the version")
        assert predictor.get("/readyz")["warnings"] == {}
    answers = asked.result()
    predictor.compare(answers)
    # Nothing but the kill breaks a request off.
    broken = (answers.status != 200) & ((answers.end < killed_at) | (answers.start > up_again_at))
    assert not broken.any()


def test_what_a_dead_predictor_left_is_published_once_by_the_next_on_its_disk(stack: Stack, serve: Serve) -> None:
    predictor = serve(1)
    with predictor.asked() as asked, stopped(stack, "kafka"):
        predictor.loaded()
        wait_until(lambda: waiting(predictor) > FEW or None, "events wait")
        predictor.kill_group()
    left = Outbox(predictor.folder, Limits())
    assert left.depth().events > FEW
    left.close()
    predictor.start()
    predictor.compare(asked.result())


def test_a_full_outbox_refuses_and_publishes_all_that_was_answered(stack: Stack, start: Start) -> None:
    predictor = start(OUTBOX__MAX_EVENTS=str(FEW))
    with stopped(stack, "kafka"), predictor.asked() as asked:
        refused = wait_until(lambda: answer if (answer := predictor.ask()).status_code == 503 else None, "it is full")
        assert "DRIFTLOOP_OUTBOX__MAX_EVENTS" in refused.json()["detail"]
        assert int(refused.headers["Retry-After"]) > 0
        wait_until(lambda: predictor.answered("503") > FEW or None, "many are refused")
    answers = asked.result()
    predictor.compare(answers)
    assert set(answers.status) == {200, 503}
    wait_until(lambda: predictor.ask().status_code == 200 or None, "it answers again")


def test_a_full_outbox_that_drops_answers_all_and_counts_what_is_missing(stack: Stack, start: Start) -> None:
    predictor = start(OUTBOX__MAX_EVENTS=str(FEW), OUTBOX__ON_FULL="drop")
    with stopped(stack, "kafka"), predictor.asked() as asked:
        wait_until(lambda: predictor.metric("driftloop_outbox_dropped_events_total") > FEW or None, "it drops")
    all_answered(asked.result())
    dropped = int(predictor.metric("driftloop_outbox_dropped_events_total"))
    predictor.compare(asked.result(), missing=dropped)


def test_processes_add_up_are_replaced_and_end_with_an_empty_outbox(serve: Serve, random_source: random.Random) -> None:
    predictor = serve(2)
    earlier = predictor.answered("200")
    with predictor.asked() as before:
        predictor.loaded()
    all_answered(before.result())
    wait_until(
        lambda: predictor.answered("200") == earlier + len(before.result().status) or None, "the metrics of both add up"
    )

    killed = predictor.workers()[0]
    with predictor.asked() as meanwhile:
        predictor.loaded()
        random_delay(random_source)
        killed.kill()
        wait_until(
            lambda: (killed not in (now := predictor.workers()) and len(now) == 2) or None, "another takes its place"
        )
        wait_until(lambda: in_service(predictor, "1") == 2 or None, "both answer")
    assert set(meanwhile.result().status) <= {200, 0}

    with predictor.asked() as at_the_end:
        predictor.loaded()
        random_delay(random_source)
        assert predictor.stop() == 0
    outbox = Outbox(predictor.folder, Limits())
    assert outbox.depth().events == 0
    outbox.close()
    assert set(at_the_end.result().status) == {200, 0}
    together = [before.result(), meanwhile.result(), at_the_end.result()]
    predictor.compare(Responses(*map(np.concatenate, zip(*together, strict=True))))


def test_an_announced_version_answers_at_once_except_where_another_is_pinned(
    stack: Stack, start: Start, random_source: random.Random
) -> None:
    began = time.monotonic()
    predictor = start(PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS="3600")
    start_seconds = time.monotonic() - began
    pinned = start(PREDICTOR__ALIAS_POLL_INTERVAL_SECONDS="3600", PREDICTOR__PINNED_VERSION="1")
    with Publisher(stack.kafka, stack.topics, "test") as publisher, predictor.asked() as asked, pinned.asked() as same:

        def announce() -> None:
            publisher.publish(
                ModelStateChanged(retrain_id="r", model=flights_model.MODEL, state="promoted", explanation="a test")
            )

        def announced() -> bool | None:
            announce()
            return predictor.version() == "2" or None

        predictor.loaded()
        pinned.loaded()
        stack.registry.promote("2")
        random_delay(random_source)
        assert predictor.version() == "1"
        wait_until(announced, "version 2 answers")  # until then the predictor may not be following the topic yet
        stack.registry.promote("1")
        announce()
        # A version is loaded in less time than a predictor that loads it needs to start, however slow the machine.
        wait_until(lambda: predictor.version() == "1" or None, "version 1 answers", seconds=max(5, start_seconds))
    for answers in (asked.result(), same.result()):
        all_answered(answers)
    predictor.compare(asked.result())
    pinned.compare(same.result())
    assert set(asked.result().version) == {"1", "2"}
    assert set(same.result().version) == {"1"}


def relays(predictor: Predictor) -> None:
    """Returns when the relay is at work."""
    before = predictor.metric("driftloop_outbox_relayed_events_total")
    wait_until(
        lambda: predictor.metric("driftloop_outbox_relayed_events_total") > before or None, "the relay is at work"
    )


def waiting(predictor: Predictor) -> float:
    return predictor.metric("driftloop_outbox_pending_events")


def in_service(predictor: Predictor, version: str) -> float:
    return predictor.metric("driftloop_predictor_serving_version_info", version=version)


def all_answered(answers: Responses) -> None:
    assert set(answers.status) == {200}
