"""Retrains by the clock."""

from datetime import UTC, datetime

import pytest
from pydantic import TypeAdapter, ValidationError

from driftloop.events import Retrain
from trainer.schedule import Cron, Schedule


def test_each_time_is_asked_for_once_in_the_use_cases_own_time() -> None:
    asked: list[Retrain] = []
    schedule = Schedule("0 4 * * 1", "America/New_York", "m", asked.append, datetime(2013, 7, 5, tzinfo=UTC))
    for time in ("2013-07-08T07:59", "2013-07-08T08:00", "2013-07-08T08:01", "2013-07-29T12:00"):
        schedule.look(datetime.fromisoformat(time).replace(tzinfo=UTC))
    assert [retrain.id for retrain in asked] == ["schedule/m/2013-07-08T08:00Z", "schedule/m/2013-07-15T08:00Z"]
    assert {retrain.trigger for retrain in asked} == {"schedule"}
    assert schedule.next == datetime(2013, 8, 5, 8, tzinfo=UTC)


def test_after_a_restart_a_time_has_the_same_id() -> None:
    asked: list[Retrain] = []
    for second in (1, 2):
        schedule = Schedule("*/5 * * * *", "UTC", "m", asked.append, datetime(2013, 7, 5, 1, 2, second, tzinfo=UTC))
        schedule.look(datetime(2013, 7, 5, 1, 5, 30, tzinfo=UTC))
    assert asked[0].id == asked[1].id


def test_what_is_no_cron_expression_is_refused() -> None:
    with pytest.raises(ValidationError, match="no cron expression such as"):
        TypeAdapter(Cron).validate_python("every monday")
