"""The runbooks of the alerts about events, consumers and drift, tried on the real stack."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.admin import ConfigResource, ConfigResourceType

from driftloop.events import Prediction
from driftloop.kafka import reader, topics
from driftloop.kafka.client import admin_client
from driftloop.kafka.codec import encode
from tests.support import regression_usecase
from tests.support.faults import kill_component, stopped
from tests.support.poison import Poison, poison_producer, send
from tests.support.rentals_model import register_by_hand
from tests.support.waiting import wait_until
from tests.support.watched_stack import IDLE_TIMEOUT_SECONDS, WatchedStack, drill_of

pytestmark = [pytest.mark.integration, pytest.mark.drill, pytest.mark.timeout(900)]

OLD = timedelta(minutes=10)
OLD_EVENTS = 5


@drill_of("ConsumerLagging")
def test_worker_lags_without_the_bucket_until_it_is_back(watched: WatchedStack) -> None:
    watched.clients.paused = True
    consumed = f'changes(driftloop_consumed_events_total{{job="drift_worker"}}[{2 * IDLE_TIMEOUT_SECONDS}s])'
    events = [watched.stack.topics.predictions, watched.stack.topics.outcomes]
    with times_of_producers(watched):
        # Any event in front of the old ones would be the oldest that is not archived, and its age the lag.
        wait_until(lambda: publish_old_event(watched) or None, "the broker keeps the time of an event")
        wait_until(lambda: watched.metric(f"sum({consumed}) == 0") is not None or None, "all that was sent is consumed")
        wait_until(lambda: reader.is_caught_up(watched.stack.kafka, "drift_worker", events) or None, "all is archived")
        with stopped(watched.stack, "gcs"):
            assert all(publish_old_event(watched) for _ in range(OLD_EVENTS))
            watched.wait_until_fires("ConsumerLagging", job="drift_worker", topic="predictions", severity="warning")
            assert watched.readiness("drift_worker")["unavailable"]
    watched.wait_until_ends()


@contextmanager
def times_of_producers(watched: WatchedStack) -> Iterator[None]:
    """Let the topic of predictions keep the times of its producers in the block, so that events can be old at once."""
    topic = watched.stack.topics.predictions
    with admin_client(watched.stack.kafka) as admin:
        resource = ConfigResource(ConfigResourceType.TOPIC, topic, {topics.TIMESTAMP_TYPE: "CreateTime"})
        admin.alter_configs([resource])
        try:
            yield
        finally:
            topics.use_broker_time(watched.stack.kafka, watched.stack.topics)


def publish_old_event(watched: WatchedStack) -> bool:
    """Publish a prediction that has waited somewhere for :data:`OLD`; return whether its message has that time."""
    at = datetime.now(UTC) - OLD
    event = Prediction(
        time=at,
        model=watched.registry.model,
        version=watched.first_version,
        features={"hour": [8], "temperature": [15.0]},
        predictions=[100.0],
    )
    key, value, headers = encode(event, "predictor")
    at_ms = int(at.timestamp() * 1_000)
    producer = KafkaProducer(bootstrap_servers=watched.stack.kafka.bootstrap_servers)
    sent = producer.send(watched.stack.topics.predictions, value, key, headers, timestamp_ms=at_ms).get(30)
    producer.close()
    return bool(sent.timestamp == at_ms)


@drill_of("DeadLetters")
def test_message_that_is_no_event_is_listed_shown_and_dropped(watched: WatchedStack) -> None:
    producer = poison_producer(watched.stack.kafka.bootstrap_servers)
    sent = send(producer, watched.stack.topics.predictions, Poison(b"k", b"no event", []))
    producer.close()
    watched.wait_until_fires("DeadLetters", job="drift_worker", topic="predictions", severity="warning")
    letters = json.loads(watched.perform("DeadLetters", "driftloop dlq list", "--json"))["dead_letters"]
    (letter,) = [letter for letter in letters if letter["offset"] == sent.offset]
    watched.perform("DeadLetters", "driftloop dlq show ID", ID=letter["id"])
    watched.perform("DeadLetters", "driftloop dlq redrive --topic TOPIC", TOPIC="predictions")
    watched.perform("DeadLetters", "driftloop dlq drop ID", ID=letter["id"])
    assert letter["id"] not in watched.perform("DeadLetters", "driftloop dlq list", "--json")
    watched.wait_until_ends()


@drill_of("EventsSkipped")
def test_events_deleted_while_the_worker_was_away_are_skipped_loudly(watched: WatchedStack) -> None:
    topic = TopicPartition(watched.stack.topics.predictions, 0)
    consumed = 'driftloop_consumed_events_total{job="drift_worker", topic="predictions"}'
    wait_until(lambda: watched.metric(f"{consumed} > 0"), "the worker has committed")
    kill_component(watched.stack, "drift_worker")
    published = f'driftloop_outbox_relayed_events_total{{instance="{watched.instance("predictor")}"}}'
    before = watched.metric(published) or 0
    wait_until(lambda: watched.metric(f"{published} > {before + 20}"), "events wait for the worker")
    with admin_client(watched.stack.kafka) as admin:
        admin.delete_records({topic: -1})
    watched.stack.start("drift_worker")
    watched.wait_until_fires("EventsSkipped", job="drift_worker", topic="predictions", severity="critical")
    assert watched.log_has("drift_worker", "consumer.offsets_skipped")
    watched.wait_until_ends()


@drill_of("NoEvents")
def test_no_predictions_arrive_until_clients_send_requests_again(watched: WatchedStack) -> None:
    watched.clients.paused = True
    watched.wait_until_fires("NoEvents", job="drift_worker", severity="warning")
    watched.clients.paused = False
    watched.wait_until_ends()


@drill_of("NoOutcomes")
def test_no_outcomes_arrive_until_they_are_reported_again(watched: WatchedStack) -> None:
    watched.clients.outcomes = "none"
    watched.wait_until_fires("NoOutcomes", job="drift_worker", severity="warning")
    watched.clients.outcomes = "right"
    watched.wait_until_ends()


@drill_of("OutcomesUnmatched")
def test_outcomes_of_unknown_ids_are_unmatched_until_the_ids_are_right(watched: WatchedStack) -> None:
    watched.clients.outcomes = "of unknown ids"
    watched.wait_until_fires("OutcomesUnmatched", job="drift_worker", severity="warning")
    assert watched.log_has("drift_worker", "quality.outcomes_unmatched")
    watched.clients.outcomes = "right"
    watched.wait_until_ends()


@drill_of("ServiceDown")
def test_killed_service_is_down_until_it_is_started(watched: WatchedStack) -> None:
    kill_component(watched.stack, "drift_worker")
    watched.wait_until_fires(
        "ServiceDown", job="drift_worker", instance=watched.instance("drift_worker"), severity="critical"
    )
    watched.stack.start("drift_worker")
    watched.wait_until_ends()


@drill_of("DriftSustained")
def test_broken_thermometer_is_drift_until_it_is_repaired(watched: WatchedStack) -> None:
    watched.clients.shift, watched.clients.rows = 100.0, 25
    watched.wait_until_fires(
        "DriftSustained", model=watched.registry.model, version=watched.first_version, severity="warning"
    )
    watched.clients.shift = 0.0
    watched.wait_until_ends()


@drill_of("DriftNotJudged")
def test_version_without_reference_is_not_judged_until_it_is_adopted(watched: WatchedStack, tmp_path: Path) -> None:
    version = register_by_hand(watched.registry, tmp_path)
    watched.registry.promote(version)
    watched.wait_until_fires("DriftNotJudged", model=watched.registry.model, version=version, severity="warning")
    reason = f'driftloop_drift_unjudged_windows_total{{version="{version}", reason="no_reference"}} > 0'
    assert watched.metric(reason)
    rows = regression_usecase.load_rows()
    file = tmp_path / "rows.parquet"
    rows[rows["at"] < str(regression_usecase.FIRST_END)].to_parquet(file)
    watched.perform(
        "DriftNotJudged",
        "driftloop adopt MODEL VERSION --data FILE --promote",
        *("--target", "rented", "--time", "at", "--yes"),
        MODEL=watched.registry.model,
        VERSION=version,
        FILE=str(file),
    )
    watched.wait_until_ends()
    judged = (
        f'sum(driftloop_drift_windows_total{{version="{watched.registry.champion()}", verdict!="inconclusive"}}) > 0'
    )
    wait_until(lambda: watched.metric(judged), "windows of the adopted version are judged")
