"""Three brokers, of which one is lost, and then two: answers go on, and each event is published and archived once."""

import random
from collections import Counter
from collections.abc import Iterator
from datetime import date
from itertools import pairwise

import pytest

from driftloop.errors import BrokerUnavailable
from driftloop.kafka import reader
from driftloop.kafka.client import admin_client
from tests.support import flights_model, stack_fixture
from tests.support.broker_cluster import BROKERS, ReplicatedStack
from tests.support.flights_model import SavedModel
from tests.support.predictor_process import PredictorProcess
from tests.support.running_stack import isolated_settings
from tests.support.waiting import wait_until
from tests.support.worker_group import WorkerGroup

WINDOW_SECONDS = 5.0  # a slice ends so long after the last event
START_SECONDS = 300

pytestmark = [pytest.mark.integration, pytest.mark.timeout(1_800)]


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ReplicatedStack]:
    with ReplicatedStack(isolated_settings(tmp_path_factory.mktemp("three"))) as stack:
        yield stack


@pytest.fixture(scope="module")
def version(stack: ReplicatedStack) -> dict[str, SavedModel]:
    saved = flights_model.train_and_save(stack.folder / "model", (date(2013, 1, 1), date(2013, 1, 10)))
    return {stack_fixture.register_model(stack, saved): saved}


@pytest.fixture
def predictor(stack: ReplicatedStack, version: dict[str, SavedModel]) -> Iterator[PredictorProcess]:
    stack.registry.promote(next(iter(version)))
    rows = flights_model.sample_rows((date(2013, 1, 1), date(2014, 1, 1)))
    predictor = PredictorProcess(stack, "three", version, rows)
    yield predictor
    predictor.kill_group()


@pytest.fixture
def group(stack: ReplicatedStack, predictor: PredictorProcess) -> Iterator[WorkerGroup]:
    """Make a group of drift workers that reads the predictor's topic."""
    group = WorkerGroup(stack, predictor.topic, partitions=3, idle_timeout_seconds=WINDOW_SECONDS)
    yield group
    group.close()


def test_one_and_two_lost_brokers_of_three_lose_and_double_nothing(
    stack: ReplicatedStack, predictor: PredictorProcess, group: WorkerGroup, random_source: random.Random
) -> None:
    predictor.start()
    worker = group.worker()
    with predictor.under_load() as load:
        predictor.wait_until_loaded()
        wait_until(lambda: group.windows() or None, "the worker archives", START_SECONDS)

        for lost in random_source.sample(BROKERS, len(BROKERS)):  # one of them is the leader, and the coordinator
            stack.kill_brokers(lost)
            wait_until_published(stack, predictor, group)
            wait_until_archived(group)
            stack.start_brokers(lost)
            wait_until_in_sync(stack, group)

        lost_two = random_source.sample(BROKERS, 2)
        stack.kill_brokers(*lost_two)
        for _ in range(3):
            predictor.wait_until_loaded()
        pending = predictor.metric("driftloop_outbox_pending_events")
        stack.start_brokers(*lost_two)
        wait_until_published(stack, predictor, group)
        wait_until_archived(group)
    responses = load.result()
    assert pending > 0
    assert set(responses.status) == {200}
    predictor.assert_exactly_once(responses, single=len(BROKERS), double=1)

    wait_until(
        lambda: reader.is_caught_up(stack.kafka, group.name, [group.name]) or None,
        "everything is archived",
        START_SECONDS,
    )
    assert worker.running()
    archived: Counter[str] = Counter()
    for slices in group.windows().values():
        assert slices[0].first_offset == 0
        assert all(one.last_offset < following.first_offset for one, following in pairwise(slices))
        for slice_ in slices:
            archived.update(group.rows(slice_)["_id"])
    assert set(archived) >= set(responses.id.tolist())
    assert set(archived.values()) == {1}
    verdicts = Counter(verdict.id for verdict in group.verdicts())
    assert verdicts
    assert set(verdicts.values()) == {1}


def published(stack: ReplicatedStack, group: WorkerGroup) -> int | None:
    """Return how many offsets the predictor's topic has had; ``None`` until a lost broker is replaced."""
    try:
        positions = reader.group_positions(stack.kafka, group.name, [group.name]).values()
    except BrokerUnavailable:
        return None
    return sum(position.committed + position.lag for position in positions)


def wait_until_published(stack: ReplicatedStack, predictor: PredictorProcess, group: WorkerGroup) -> None:
    """Wait until events of answers from now on have been published."""
    offsets = wait_until(lambda: published(stack, group), "the topic can be read", START_SECONDS)
    before = offsets + int(predictor.metric("driftloop_outbox_pending_events"))

    def is_further() -> bool | None:
        return (published(stack, group) or 0) > before or None

    wait_until(is_further, "events are published", START_SECONDS)


def wait_until_archived(group: WorkerGroup) -> None:
    """Wait until the worker has written more slices."""
    before = len(group.store.list_objects(f"slices/{group.name}/"))

    def has_more() -> bool | None:
        return len(group.store.list_objects(f"slices/{group.name}/")) > before or None

    wait_until(has_more, "the worker archives more", START_SECONDS)


def wait_until_in_sync(stack: ReplicatedStack, group: WorkerGroup) -> None:
    """Wait until each broker has a copy of all that the predictor's topic has."""
    with admin_client(stack.kafka) as admin:

        def is_in_sync() -> bool | None:
            (topic,) = admin.describe_topics([group.name])
            return all(len(part["isr_nodes"]) == len(BROKERS) for part in topic["partitions"]) or None

        wait_until(is_in_sync, "all brokers are in sync", START_SECONDS)
