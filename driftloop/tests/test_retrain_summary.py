"""Retrains at a glance."""

from datetime import UTC, datetime, timedelta

import pytest

from driftloop.events import ModelStateChanged, RetrainRequested
from driftloop.retrain_summary import summarize_retrains

START = datetime(2026, 1, 1, tzinfo=UTC)


def request(retrain_id: str, model: str = "m") -> RetrainRequested:
    return RetrainRequested(
        id=retrain_id, time=START, model=model, trigger="manual", reason=f"reason {retrain_id}", requested_by="root"
    )


def change(retrain_id: str, state: str, minute: int, version: str | None = None, model: str = "m") -> ModelStateChanged:
    fields = {"retrain_id": retrain_id, "model": model, "version": version, "explanation": f"is {state}"}
    return ModelStateChanged.model_validate({**fields, "state": state, "time": START + timedelta(minutes=minute)})


def test_summary_keeps_request_and_latest_state() -> None:
    events = [request("a"), request("a", model="other"), change("a", "training", 1), change("a", "promoted", 2, "3")]
    (summary,) = summarize_retrains(events, "m", 10)
    assert (summary.state, summary.version, summary.explanation) == ("promoted", "3", "is promoted")
    assert (summary.requested_by, summary.reason, summary.requested_at) == ("root", "reason a", START)


def test_rollback_is_a_summary_of_its_own() -> None:
    events = [
        *(request("a"), change("a", "promoted", 1, "2"), request("b"), change("b", "rejected", 2, "3")),
        *(change("a", "rolled_back", 3, "1"), change("a", "rolled_back", 4, "1")),
    ]
    summaries = summarize_retrains(events, "m", 10)
    assert [(summary.state, summary.version) for summary in summaries] == [
        ("promoted", "2"),
        ("rejected", "3"),
        ("rolled_back", "1"),
        ("rolled_back", "1"),
    ]


def test_requests_after_the_last_one_with_a_state_are_waiting() -> None:
    events = [request("lost"), request("a"), request("b"), change("a", "training", 1)]
    assert [(summary.retrain_id, summary.state) for summary in summarize_retrains(events, "m", 10)] == [
        ("a", "training"),
        ("b", "waiting"),
    ]


@pytest.mark.parametrize(("state", "waits_for"), [("training", "a"), ("promoted", None)], ids=["trained", "finished"])
def test_waiting_request_names_the_retrain_before_it(state: str, waits_for: str | None) -> None:
    *_, waiting = summarize_retrains([request("a"), request("b"), change("a", state, 1)], "m", 10)
    assert (waiting.retrain_id, waiting.state, waiting.waits_for) == ("b", "waiting", waits_for)


def test_state_without_a_request_is_summarized_without_its_origin() -> None:
    (summary,) = summarize_retrains([change("a", "failed", 1)], "m", 10)
    assert (summary.state, summary.requested_by, summary.reason, summary.trigger) == ("failed", None, None, None)


def test_only_the_last_summaries_of_the_model_are_returned() -> None:
    events = [change(str(n), "failed", n) for n in range(5)] + [change("x", "failed", 9, model="other")]
    assert [summary.retrain_id for summary in summarize_retrains(events, "m", 2)] == ["3", "4"]
