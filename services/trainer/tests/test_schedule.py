"""Scheduled retrains."""

from datetime import UTC, date, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from driftloop.events import DataSelection, Event, RetrainRequested
from tests.support.model_names import USABLE_NAMES
from trainer.schedule import Cron, Schedule


class RecordingPublisher:
    def __init__(self) -> None:
        self.requests: list[RetrainRequested] = []

    def publish(self, event: Event) -> None:
        assert isinstance(event, RetrainRequested)
        self.requests.append(event)


def test_schedule_requests_each_time_once_in_the_use_cases_time_zone() -> None:
    publisher = RecordingPublisher()
    schedule = Schedule("0 4 * * 1", "America/New_York", "m", publisher, datetime(2013, 7, 5, tzinfo=UTC))
    for time in ("2013-07-08T07:59", "2013-07-08T08:00", "2013-07-08T08:01", "2013-07-29T12:00"):
        schedule.run_due(datetime.fromisoformat(time).replace(tzinfo=UTC))
    assert [retrain.id for retrain in publisher.requests] == [
        "schedule/m/2013-07-08T08:00Z",
        "schedule/m/2013-07-15T08:00Z",
    ]
    assert {retrain.trigger for retrain in publisher.requests} == {"schedule"}
    assert schedule.next == datetime(2013, 8, 5, 8, tzinfo=UTC)


def test_schedule_requests_the_given_rows() -> None:
    publisher, data = RecordingPublisher(), DataSelection(base_end=date(2013, 4, 1))
    schedule = Schedule("0 4 * * 1", "UTC", "m", publisher, datetime(2013, 7, 5, tzinfo=UTC), data)
    schedule.run_due(datetime(2013, 7, 8, 5, tzinfo=UTC))
    assert [retrain.data for retrain in publisher.requests] == [data]


@pytest.mark.parametrize("model", USABLE_NAMES)
def test_schedule_requests_retrains_of_a_model_with_this_name(model: str) -> None:
    publisher = RecordingPublisher()
    schedule = Schedule("0 4 * * 1", "UTC", model, publisher, datetime(2013, 7, 5, tzinfo=UTC))
    for day in (8, 15):
        schedule.run_due(datetime(2013, 7, day, 5, tzinfo=UTC))
    assert [retrain.model for retrain in publisher.requests] == [model, model]
    assert len({retrain.id for retrain in publisher.requests}) == 2


def test_schedule_derives_same_id_after_restart() -> None:
    publisher = RecordingPublisher()
    for second in (1, 2):
        schedule = Schedule("*/5 * * * *", "UTC", "m", publisher, datetime(2013, 7, 5, 1, 2, second, tzinfo=UTC))
        schedule.run_due(datetime(2013, 7, 5, 1, 5, 30, tzinfo=UTC))
    assert publisher.requests[0].id == publisher.requests[1].id


def test_schedule_rejects_invalid_cron_expression() -> None:
    with pytest.raises(ValidationError, match="not a cron expression such as"):
        TypeAdapter(Cron).validate_python("every monday")
