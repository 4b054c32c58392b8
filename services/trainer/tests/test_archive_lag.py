"""How long a retrain waits for the archive, and what it says that the archive lacks."""

from collections.abc import Collection
from datetime import UTC, date, datetime

import pytest

from driftloop.archive.settings import ArchiveSettings
from driftloop.errors import BrokerUnavailable
from driftloop.kafka import reader
from driftloop.kafka.reader import GroupPosition
from driftloop.settings import KafkaSettings, TopicsSettings
from trainer.retrain.archive_lag import ArchiveLag, describe_expired, wait_for_archive

END = 1_000
UNTIL = datetime(2013, 7, 1, 12, tzinfo=UTC)


class Worker:
    """A drift worker that archives 400 offsets between two looks, while as many are published."""

    def __init__(self) -> None:
        self.committed, self.end = 0, END
        self.reports: list[str] = []

    def positions(self, _: KafkaSettings, group: str, topics: Collection[str]) -> dict[str, GroupPosition]:
        assert (group, set(topics)) == ("workers_of_flights", {"predictions", "outcomes"})
        return {"predictions-0": GroupPosition(self.committed, self.end - self.committed)}

    def work(self, _: float) -> None:
        self.committed += 400
        self.end += 400

    def wait(self, seconds: float) -> ArchiveLag:
        return wait_for_archive(KafkaSettings(), "workers_of_flights", TopicsSettings(), seconds, self.reports.append)


@pytest.fixture
def worker(monkeypatch: pytest.MonkeyPatch) -> Worker:
    worker = Worker()
    monkeypatch.setattr(reader, "group_positions", worker.positions)
    monkeypatch.setattr("trainer.retrain.archive_lag.time.sleep", worker.work)
    return worker


def test_retrain_goes_on_at_once_by_default_and_says_what_the_archive_lacks(worker: Worker) -> None:
    lag = worker.wait(0)
    assert (lag, worker.committed, worker.reports) == (ArchiveLag(END - 1), 0, [])
    assert lag.describe(UNTIL) == "; 999 published offsets are not in the archive yet, which reaches 2013-07-01 12:00"


def test_retrain_waits_for_what_was_published_before_and_not_for_what_comes(worker: Worker) -> None:
    lag = worker.wait(3_600)
    assert (lag, worker.committed) == (ArchiveLag(0), 1_200)
    (report,) = worker.reports
    assert "999 offsets" in report
    assert "DRIFTLOOP_DATA__ARCHIVE_WAIT_SECONDS" in report
    assert lag.describe(UNTIL) == ""


def test_offset_of_a_transactions_end_is_not_waited_for(worker: Worker) -> None:
    worker.committed = END - 1
    assert worker.wait(3_600) == ArchiveLag(0)
    assert worker.committed == END - 1


def test_retrain_goes_on_while_kafka_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: object) -> None:
        raise BrokerUnavailable("away")

    monkeypatch.setattr(reader, "group_positions", away)
    lag = Worker().wait(3_600)
    assert lag == ArchiveLag(None)
    assert "not known" in lag.describe(UNTIL)


def test_days_that_the_archive_does_not_keep_are_named_if_they_are_asked_for() -> None:
    at = datetime(2026, 11, 30, tzinfo=UTC)
    kept = ArchiveSettings(prediction_retention_days=30)
    assert describe_expired(kept, date(2026, 10, 1), at) == (
        "; rows since 2026-10-01 were asked for, and the archive keeps predictions for 30 days, those since 2026-10-31"
    )
    assert describe_expired(kept, date(2026, 10, 31), at) == ""
    assert describe_expired(kept, None, at) == ""
    assert describe_expired(ArchiveSettings(), date(2013, 1, 1), at) == ""
