"""Where a partition goes on whose committed offset is forgotten."""

from collections.abc import Sequence
from datetime import UTC, datetime

import pytest

from drift_worker.windows.archived_end import ArchivedEnd
from driftloop.archive.tables import outcomes_table, predictions_table
from driftloop.errors import StorageUnavailable
from driftloop.events import Event, Outcome, Prediction, Window
from driftloop.kafka.codec import Message, encode
from driftloop.kafka.message_handler import RetryLater
from driftloop.storage.object_store import ObjectStore
from tests.support.archived_rows import archive_rows
from tests.support.fake_kafka import KAFKA, FakeBroker

pytest_plugins = "tests.support.drift_windows"

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def prediction(name: str) -> Prediction:
    return Prediction(id=name, time=NOON, model="m", version="1", features={"x": [1.0]}, predictions=[0.5])


def window(topic: str, first: int, last: int, partition: int = 0) -> Window:
    return Window(topic=topic, partition=partition, first_offset=first, last_offset=last)


class Setup:
    """A broker with events, and an archive."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> None:
        self.broker = FakeBroker(monkeypatch, {"predictions": 2, "outcomes": 1})
        self.store = store
        self.find = ArchivedEnd(store, KAFKA).find

    def publish(self, topic: str, events: Sequence[Event]) -> None:
        for event in events:
            self.broker.append(topic, encode(event, "test"))

    def archive(self, first: int, last: int, names: Sequence[str], partition: int = 0) -> None:
        table = predictions_table([prediction(name) for name in names], range(first, first + len(names)))
        archive_rows(self.store, window("predictions", first, last, partition), table)


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch, store: ObjectStore) -> Setup:
    return Setup(monkeypatch, store)


def test_nothing_is_archived(setup: Setup) -> None:
    setup.publish("predictions", [prediction("a")])
    setup.archive(0, 5, ["x"], partition=1)
    assert setup.find("predictions", 0) is None


def test_end_is_behind_the_last_archived_slice(setup: Setup) -> None:
    setup.publish("predictions", [prediction(name) for name in "abcdef"])
    setup.archive(0, 1, "ab")
    setup.archive(2, 4, "cde")
    setup.archive(2, 3, "cd")  # an orphan
    assert setup.find("predictions", 0) == 5


def test_end_is_known_after_the_broker_has_deleted_the_events(setup: Setup) -> None:
    setup.publish("predictions", [prediction(name) for name in "abcdef"])
    setup.archive(0, 3, "abcd")
    setup.broker.beginnings = dict.fromkeys(setup.broker.logs, 5)
    assert setup.find("predictions", 0) == 4


@pytest.mark.parametrize("published", ["xyzuvw", "x"], ids=["longer", "shorter"])
def test_slices_of_a_topic_that_was_made_again_do_not_count(setup: Setup, published: str) -> None:
    setup.archive(0, 3, "abcd")
    setup.publish("predictions", [prediction(name) for name in published])
    assert setup.find("predictions", 0) is None


def test_invalid_messages_at_the_end_do_not_matter(setup: Setup) -> None:
    setup.publish("predictions", [prediction(name) for name in "ab"])
    setup.broker.append("predictions", Message(None, b"no event", []))
    setup.archive(0, 2, "ab")
    assert setup.find("predictions", 0) == 3


@pytest.mark.parametrize(("published", "end"), [("ab", 2), ("xy", None)], ids=["of this log", "of another log"])
def test_outcomes_are_compared_by_what_they_name(setup: Setup, published: str, end: int | None) -> None:
    def events(names: str) -> list[Outcome]:
        return [
            Outcome(prediction_id=names[0], index=0, outcome=1.0, time=NOON),
            Outcome(model="m", key=names[1], outcome=1.0, time=NOON),
        ]

    archive_rows(setup.store, window("outcomes", 0, 1), outcomes_table(events("ab"), range(2)))
    setup.publish("outcomes", events(published))
    assert setup.find("outcomes", 0) == end


def test_loop_is_asked_to_retry_while_the_bucket_is_away(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> list[str]:
        raise StorageUnavailable("gone")

    monkeypatch.setattr(setup.store, "list_objects", fail)
    with pytest.raises(RetryLater, match="gone"):
        setup.find("predictions", 0)
