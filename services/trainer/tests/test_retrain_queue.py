"""The queue of retrains: in order, one training at a time, one final state each, also after kills."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import pytest

from driftloop import settings
from driftloop.errors import RegistryRefused, RegistryUnavailable
from driftloop.events import DataSelection, Event, ModelStateChanged, RetrainRequested
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.registry.model_registry import TAG_COMPARED_WITH, TAG_RETRAIN_ID, ModelRegistry
from driftloop.registry.rollback import roll_back
from trainer import metrics
from trainer.retrain.queue import MAX_ATTEMPTS, RetrainQueue
from trainer.retrain.subprocess_job import JobResult, Progress

pytest_plugins = "tests.support.registry_file"

MODEL = "m"


class FakeJob:
    """A subprocess job that ends when a test says so."""

    def __init__(self, retrain: RetrainRequested) -> None:
        self.retrain = retrain
        self.phases: list[Progress] = []
        self.result: JobResult | None = None
        self.was_killed = False

    def progress(self) -> list[Progress]:
        phases, self.phases = self.phases, []
        return phases

    def poll(self) -> JobResult | None:
        return self.result

    def kill(self) -> None:
        self.was_killed = True

    def finish(self, state: str, version: str | None = None) -> None:
        """End with a final state."""
        change = state_of(self.retrain.id, state, version)
        self.result = JobResult("done", change.model_dump_json())


class FakeRegistry:
    """A registry in memory."""

    def __init__(self) -> None:
        self.recorded: dict[str, ModelStateChanged] = {}
        self.promoted: list[str] = []
        self.unavailable = False
        self.refusal: str | None = None

    def recorded_result(self, retrain_id: str) -> ModelStateChanged | None:
        self._require_permission()
        return self.recorded.get(retrain_id)

    def _require_permission(self) -> None:
        if self.refusal:
            raise RegistryRefused(self.refusal)

    def promote_challenger(self, version: str) -> None:
        if self.unavailable:
            raise RegistryUnavailable("unavailable")
        self._require_permission()
        self.promoted.append(version)


class RecordingPublisher:
    """A publisher that keeps the events."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def publish(self, event: Event) -> None:
        self.events.append(event)


class QueueFixture:
    """A queue with its surroundings, which outlive a trainer that is killed."""

    def __init__(self) -> None:
        self.registry, self.publisher = FakeRegistry(), RecordingPublisher()
        self.jobs: list[FakeJob] = []
        self.finished: dict[str, ModelStateChanged] = {}
        self.queue = self.restart()

    def final_states(self) -> dict[str, ModelStateChanged]:
        return self.finished

    def start_retrain(self, retrain: RetrainRequested) -> Any:
        self.jobs.append(FakeJob(retrain))
        return self.jobs[-1]

    def restart(self) -> RetrainQueue:
        """Start another trainer."""
        self.queue = RetrainQueue(MODEL, self.registry, self.publisher, self, self)  # type: ignore[arg-type]
        return self.queue

    def deliver(self, *events: Event, first: int = 0) -> list[Commit]:
        """Deliver events one after the other, beginning with an offset."""
        return [
            final
            for offset, event in enumerate(events, first)
            for final in self.queue.handle(ConsumedMessage("retrain", 0, offset, event, offset))
        ]

    def poll(self) -> list[Commit]:
        """Poll once."""
        return list(self.queue.on_poll())


def state_of(retrain_id: str, state: str, version: str | None = None) -> ModelStateChanged:
    return ModelStateChanged.model_validate(
        {"retrain_id": retrain_id, "model": MODEL, "state": state, "version": version, "explanation": "so"}
    )


def request(name: str, *, model: str = MODEL, last_day: str | None = None) -> RetrainRequested:
    data = DataSelection.model_validate({"base_end": last_day})
    return RetrainRequested(id=name, model=model, trigger="manual", reason="why not", requested_by="me", data=data)


def states(finals: list[Commit]) -> list[tuple[str, str]]:
    """Return the published final states with their retrains."""
    return [(event.retrain_id, event.state) for final in finals for event in final.events]  # type: ignore[attr-defined]


@pytest.fixture
def retrains() -> QueueFixture:
    return QueueFixture()


def test_retrain_queue_commits_event_when_its_training_has_ended(retrains: QueueFixture) -> None:
    assert retrains.deliver(request("a")) == []
    assert retrains.poll() == []
    retrains.jobs[0].finish("promoted", "2")
    (final,) = retrains.poll()
    assert (final.offset, states([final]), retrains.registry.promoted) == (1, [("a", "promoted")], ["2"])


def test_retrain_queue_shows_no_metrics_of_other_models(retrains: QueueFixture) -> None:
    retrains.finished = {"b": state_of("b", "promoted", "9").model_copy(update={"model": "another"})}
    retrains.poll()
    assert not [s for s in next(iter(metrics.LAST_RETRAIN.collect())).samples if s.labels["model"] == "another"]


def test_retrain_queue_publishes_progress(retrains: QueueFixture) -> None:
    retrains.deliver(request("a"))
    retrains.jobs[0].phases.append(Progress("training", "on 9 rows"))
    retrains.poll()
    assert [event.explanation for event in retrains.publisher.events if isinstance(event, ModelStateChanged)] == [
        "requested by me: why not",
        "on 9 rows",
    ]


def test_retrain_queue_trains_once_for_waiting_events_with_same_data(retrains: QueueFixture) -> None:
    assert retrains.deliver(request("a"), request("b"), request("c"), request("d", last_day="2013-07-01")) == []
    assert len(retrains.jobs) == 1
    retrains.jobs[0].finish("promoted", "2")
    assert states(retrains.poll()) == [("a", "promoted")]
    assert [child.retrain.id for child in retrains.jobs] == ["a", "b"]
    retrains.jobs[1].finish("rejected", "3")
    (final,) = retrains.poll()
    assert (final.offset, states([final])) == (3, [("b", "rejected"), ("c", "rejected")])
    assert "together with retrain b" in final.events[1].explanation  # type: ignore[attr-defined]
    assert retrains.jobs[2].retrain.id == "d"


def test_retrain_queue_trains_same_id_once(retrains: QueueFixture) -> None:
    retrains.deliver(request("a"), request("a"))
    retrains.jobs[0].finish("failed")
    first, second = retrains.poll()
    assert (states([first]), states([second]), second.offset) == ([("a", "failed")], [], 2)
    assert len(retrains.jobs) == 1
    retrains.finished["b"] = state_of("b", "failed")  # by an earlier trainer
    retrains.restart()
    (final,) = retrains.deliver(request("b"))
    assert (states([final]), len(retrains.jobs)) == ([], 1)


def test_retrain_queue_skips_other_models_and_invalid_messages_in_order(retrains: QueueFixture) -> None:
    (final,) = retrains.deliver(request("x", model="another"))
    assert (final.offset, final.events) == (1, [])
    retrains.deliver(request("a"), first=1)
    assert list(retrains.queue.handle(ConsumedMessage("retrain", 0, 2, None, 2))) == []
    retrains.jobs[0].finish("promoted", "2")
    assert [final.offset for final in retrains.poll()] == [2, 3]


def kill_during_training(retrains: QueueFixture) -> None:
    """The trainer is killed while the job runs."""


def kill_after_result_was_recorded(retrains: QueueFixture) -> None:
    """The job has ended, but the queue has not polled it."""
    retrains.registry.recorded["a"] = state_of("a", "promoted", "2")
    retrains.jobs[0].finish("promoted", "2")


def kill_after_alias_moved(retrains: QueueFixture) -> None:
    """The final state was not published."""
    kill_after_result_was_recorded(retrains)
    retrains.poll()


@pytest.mark.parametrize(
    ("moment", "trainings"),
    [(kill_during_training, 2), (kill_after_result_was_recorded, 1), (kill_after_alias_moved, 1)],
)
def test_retrain_queue_finishes_event_once_after_kill(
    retrains: QueueFixture, moment: Callable[[QueueFixture], None], trainings: int
) -> None:
    retrains.deliver(request("a"))
    moment(retrains)
    retrains.restart()
    finals = retrains.deliver(request("a"))
    if trainings == 2:
        retrains.jobs[1].finish("promoted", "2")
        finals += retrains.poll()
    assert states(finals) == [("a", "promoted")]
    assert retrains.registry.promoted[-1] == "2"
    assert len(retrains.jobs) == trainings


def test_retrain_queue_retries_when_dependency_is_unavailable(retrains: QueueFixture) -> None:
    retrains.deliver(request("a"))
    retrains.jobs[0].result = JobResult("retry", "the bucket is unavailable")
    with pytest.raises(RetryLater, match="the bucket is unavailable"):
        retrains.poll()
    retrains.queue.on_revoked([("retrain", 0)])  # as the consumer loop does before it rewinds
    retrains.deliver(request("a"))
    retrains.jobs[1].finish("promoted", "2")
    retrains.registry.unavailable = True
    with pytest.raises(RetryLater, match="registry"):
        retrains.poll()


def test_retrain_queue_fails_retrain_after_max_attempts(retrains: QueueFixture) -> None:
    for _ in range(MAX_ATTEMPTS - 1):
        retrains.deliver(request("a"))
        retrains.jobs[-1].result = JobResult("killed", "its process ended with code -9")
        with pytest.raises(RetryLater):
            retrains.poll()
        retrains.queue.on_revoked([("retrain", 0)])
    retrains.deliver(request("a"))
    retrains.jobs[-1].result = JobResult("killed", "its process ended with code -9")
    assert states(retrains.poll()) == [("a", "failed")]


def test_retrain_queue_kills_training_on_revoke(retrains: QueueFixture) -> None:
    retrains.deliver(request("a"))
    retrains.queue.on_revoked([("retrain", 0)])
    assert retrains.jobs[0].was_killed
    assert retrains.poll() == []


def test_event_that_was_published_three_times_has_one_final_state(retrains: QueueFixture) -> None:
    earlier = request("earlier", last_day="2013-07-01")
    assert not retrains.deliver(earlier, request("a"), request("b"), request("a"), request("a"))
    retrains.jobs[0].finish("rejected", "2")
    assert states(retrains.poll()) == [("earlier", "rejected")]
    retrains.jobs[1].finish("rejected", "3")
    (final,) = retrains.poll()
    assert (states([final]), final.offset) == ([("a", "rejected"), ("b", "rejected")], 5)
    assert [event.retrain_id for event in retrains.publisher.events] == ["earlier", "a", "b"]  # type: ignore[attr-defined]
    assert states(retrains.deliver(request("a"), first=5)) == []
    assert not retrains.poll()


def test_refusal_of_the_registry_ends_the_retrain_with_its_words(retrains: QueueFixture) -> None:
    retrains.registry.refusal = "400: invalid name"
    (final,) = retrains.deliver(request("a"))
    assert states([final]) == [("a", "failed")]
    assert "400: invalid name" in final.events[0].explanation  # type: ignore[attr-defined]
    assert not retrains.jobs
    retrains.registry.refusal = None
    retrains.deliver(request("b"), first=1)
    retrains.jobs[0].finish("promoted", "2")
    retrains.registry.refusal = "403: no permission"
    (final,) = retrains.poll()
    assert states([final]) == [("b", "failed")]
    assert "403: no permission" in final.events[0].explanation  # type: ignore[attr-defined]


@pytest.fixture
def mlflow_registry(registry_uri: str, tmp_path: Path) -> ModelRegistry:
    """A registry in which version 1 is in service, and the gate has compared version 2, of retrain a, with it."""
    registry = ModelRegistry(settings.RegistrySettings(uri=registry_uri, model=tmp_path.name))
    registry.client.create_registered_model(registry.model)
    run = registry.client.create_run(mlflow.set_experiment(MODEL).experiment_id).info.run_id
    for tags in ({}, {TAG_RETRAIN_ID: "a", TAG_COMPARED_WITH: "1"}, {}):
        registry.client.create_model_version(registry.model, str(tmp_path), run, tags=tags)
    registry.promote("1")
    registry.record_result("2", state_of("a", "promoted", "2"))
    return registry


@pytest.fixture
def registered(retrains: QueueFixture, mlflow_registry: ModelRegistry) -> QueueFixture:
    """A queue with that registry."""
    retrains.registry = mlflow_registry  # type: ignore[assignment]
    retrains.restart()
    return retrains


def roll_back_by_operator(registry: ModelRegistry) -> None:
    roll_back(registry, "it is wrong at night")


def move_alias_in_mlflow(registry: ModelRegistry) -> None:
    """Move the alias by hand, which notes nothing on the versions."""
    registry.client.set_registered_model_alias(registry.model, registry.alias, "1")


def promote_another(registry: ModelRegistry) -> None:
    registry.promote("3")


@pytest.mark.integration
@pytest.mark.parametrize("change_alias", [roll_back_by_operator, move_alias_in_mlflow, promote_another])
def test_redelivered_retrain_does_not_move_the_alias_again(
    registered: QueueFixture, mlflow_registry: ModelRegistry, change_alias: Callable[[ModelRegistry], None]
) -> None:
    (lost,) = registered.deliver(request("a"))  # its transaction is not committed
    assert (states([lost]), mlflow_registry.champion()) == ([("a", "promoted")], "2")
    change_alias(mlflow_registry)
    champion, rollbacks = mlflow_registry.champion(), mlflow_registry.recorded_rollbacks()
    registered.restart()
    assert states(registered.deliver(request("a"))) == [("a", "promoted")]
    assert (mlflow_registry.champion(), mlflow_registry.recorded_rollbacks()) == (champion, rollbacks)


@pytest.mark.integration
def test_retrain_fails_if_another_champion_is_in_service_than_it_was_compared_with(
    registered: QueueFixture, mlflow_registry: ModelRegistry
) -> None:
    promote_another(mlflow_registry)
    for _ in range(2):  # the second time the event is delivered again
        registered.restart()
        (final,) = registered.deliver(request("a"))
        assert (states([final]), mlflow_registry.champion()) == ([("a", "failed")], "3")
        assert final.events[0].explanation == (  # type: ignore[attr-defined]
            "not promoted: version 2 was compared with version 1, and version 3 is in service by now: "
            "request the retrain again"
        )
        mlflow_registry.promote("1")  # a retrain that has failed is not promoted later
        mlflow_registry.promote("3")
    description = mlflow_registry.client.get_model_version(mlflow_registry.model, "2").description
    assert description.startswith("failed: not promoted: ")


@pytest.mark.integration
def test_retrain_that_was_killed_while_the_alias_moved_finishes_its_promotion(
    registered: QueueFixture, mlflow_registry: ModelRegistry
) -> None:
    mlflow_registry.client.set_registered_model_alias(mlflow_registry.model, mlflow_registry.alias, "2")
    assert states(registered.deliver(request("a"))) == [("a", "promoted")]
    assert mlflow_registry.champion() == "2"
