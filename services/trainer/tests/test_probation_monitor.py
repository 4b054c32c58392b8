"""When the probation monitor checks a version, and what it does with the result."""

from datetime import UTC, datetime
from typing import Any

import pytest

from driftloop.errors import RegistryUnavailable
from driftloop.events import Event, ModelStateChanged, QualityVerdict, Window
from trainer.probation import probation_monitor
from trainer.probation.probation import ProbationDecision
from trainer.probation.probation_monitor import ProbationMonitor
from trainer.retrain.subprocess_job import JobResult


class FakeJob:
    """A subprocess job that ends when a test says so."""

    def __init__(self) -> None:
        self.result: JobResult | None = None

    def progress(self) -> list[Any]:
        return []

    def poll(self) -> JobResult | None:
        return self.result

    def kill(self) -> None:
        self.result = None


class MonitorFixture:
    """A monitor, and everything that it does with the outside."""

    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []
        self.published: list[Event] = []
        self.missed: list[ModelStateChanged] = []
        self.error: Exception | None = None
        self.monitor = ProbationMonitor("m", self, self)

    def start_check(self) -> Any:
        self.jobs.append(FakeJob())
        return self.jobs[-1]

    def apply(self, decision: ProbationDecision) -> ModelStateChanged | None:
        if decision.status != "failed":
            return None
        return ModelStateChanged(
            retrain_id="r",
            model="m",
            version=decision.previous,
            state="rolled_back",
            explanation=decision.explanation,
        )

    def unpublished_rollbacks(self) -> list[ModelStateChanged]:
        if self.error is not None:
            raise self.error
        return self.missed

    def publish(self, event: Event) -> None:
        self.published.append(event)

    def receive_outcomes(self, version: str, model: str = "m", run_id: str | None = "run") -> None:
        time = datetime(2013, 7, 1, tzinfo=UTC)
        self.monitor.on_event(
            QualityVerdict(
                window=Window(topic="outcomes", partition=0, first_offset=0, last_offset=9),
                windows=1,
                model=model,
                version=version,
                run_id=run_id,
                rows=9,
                unmatched=0,
                first_prediction_at=time,
                last_prediction_at=time,
                verdict="inconclusive",
                explanation="",
            )
        )
        self.monitor.poll()

    def finish_check(self, status: str) -> None:
        decision = {"status": status, "explanation": "", "version": "2", "run_id": "run", "previous": "1"}
        payload = ProbationDecision.model_validate(decision).model_dump_json()
        self.jobs[-1].result = JobResult("done", payload)
        self.monitor.poll()


@pytest.fixture
def probation() -> MonitorFixture:
    return MonitorFixture()


def test_probation_monitor_checks_at_each_outcome_until_version_has_passed(probation: MonitorFixture) -> None:
    for number, status in enumerate(("pending", "passed"), 1):
        probation.receive_outcomes("2")
        probation.monitor.poll()  # one check at a time
        assert len(probation.jobs) == number
        probation.finish_check(status)
    probation.receive_outcomes("2")
    assert (len(probation.jobs), probation.published) == (2, [])


def test_probation_monitor_checks_a_version_whose_number_has_passed_in_another_run(probation: MonitorFixture) -> None:
    probation.receive_outcomes("2")
    probation.finish_check("passed")
    probation.receive_outcomes("2", run_id=None)  # predictions that do not say their run
    assert len(probation.jobs) == 1
    probation.receive_outcomes("2", run_id="run of a model that was made again")
    assert len(probation.jobs) == 2


def test_probation_monitor_publishes_rollback_of_failed_version(probation: MonitorFixture) -> None:
    probation.receive_outcomes("2")
    probation.finish_check("failed")
    (state,) = probation.published
    assert isinstance(state, ModelStateChanged)
    assert (state.version, state.state) == ("1", "rolled_back")


def test_probation_monitor_repeats_failed_check_at_next_outcomes(probation: MonitorFixture) -> None:
    probation.receive_outcomes("2")
    probation.jobs[-1].result = JobResult("retry", "the bucket is unavailable")
    probation.monitor.poll()
    probation.receive_outcomes("2")
    assert len(probation.jobs) == 2


def test_probation_monitor_ignores_other_models(probation: MonitorFixture) -> None:
    probation.receive_outcomes("2", model="another")
    assert probation.jobs == []


def test_probation_monitor_publishes_missed_rollback_once(
    probation: MonitorFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    missed = ModelStateChanged(retrain_id="r", model="m", version="1", state="rolled_back", explanation="")
    probation.missed, probation.error = [missed], RegistryUnavailable("unavailable")
    probation.monitor.poll()
    assert probation.published == []
    probation.error = None
    probation.monitor.poll()
    assert probation.published == []  # ten seconds are not over
    monkeypatch.setattr(probation_monitor, "STARTUP_CHECK_INTERVAL_SECONDS", 0)
    monkeypatch.setattr(probation.monitor, "_next_startup_check", 0)
    probation.monitor.poll()
    probation.monitor.poll()
    assert probation.published == [missed]
