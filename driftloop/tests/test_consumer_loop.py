"""The consume loop's contract, on an in-memory broker."""

import threading
import time
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import pytest
from kafka import OffsetAndMetadata, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from kafka.errors import KafkaConnectionError, KafkaTimeoutError, NodeNotReadyError, ProducerFencedError
from kafka.structs import MemberState
from prometheus_client import REGISTRY

from driftloop.errors import BrokerUnavailable
from driftloop.events import Event, Outcome
from driftloop.kafka import consumer_loop, retries
from driftloop.kafka.client import create_consumer
from driftloop.kafka.codec import Message, encode
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.dead_letter_limits import DeadLetterLimitExceeded
from driftloop.kafka.message_handler import Commit, RetryLater
from driftloop.kafka.read_positions import FindHandled, ReadPositions, nothing_handled
from driftloop.kafka.transactional_producer import CommittedPosition, InstanceReplaced, TransactionalProducer
from driftloop.settings import DeadLetterSettings, TopicsSettings
from driftloop.telemetry.health import Health
from tests.support.fake_kafka import KAFKA, FakeBroker, FakeConsumer

TOPIC = "outcomes"
P0, P1 = TopicPartition(TOPIC, 0), TopicPartition(TOPIC, 1)
LENIENT = DeadLetterSettings(max_consecutive=100, max_ratio=1.0)
MAX_POLLS = 500


def outcome(name: str) -> Outcome:
    return Outcome(prediction_id=name, index=0, outcome=1.0)


def outcomes(*names: str) -> list[Message]:
    """Return a message for each name; a name that starts with ``!`` makes an invalid one."""
    return [
        Message(b"key", name.encode(), [("ce_id", b"bad-id")])
        if name.startswith("!")
        else encode(outcome(name), "test")
        for name in names
    ]


class RecordingHandler:
    """Records all calls and commits each message at once; methods are replaced by tests."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, Any]] = []
        self.on_message: Callable[[ConsumedMessage], Iterable[Commit]] = self.commit
        self.on_idle: Callable[[], Iterable[Commit]] = list

    def commit(self, message: ConsumedMessage, *events: Event, metadata: str = "") -> list[Commit]:
        return [Commit(message.topic, message.partition, message.offset + 1, events, metadata)]

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        name = message.event.prediction_id if isinstance(message.event, Outcome) else None
        self.calls.append(("handle", (message.partition, message.offset, name)))
        return self.on_message(message)

    def on_poll(self) -> Iterable[Commit]:
        return self.on_idle()

    def on_assigned(self, positions: Mapping[tuple[str, int], CommittedPosition]) -> None:
        self.calls.append(("assigned", dict(positions)))

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        self.calls.append(("revoked", sorted(number for _, number in partitions)))

    def handled(self) -> list[tuple[int, int, str | None]]:
        """Return partition, offset and name of each message in the order of delivery."""
        return [details for call, details in self.calls if call == "handle"]


class Setup:
    """A loop, its broker and its handler. The loop stops once nothing is left to read."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.broker = FakeBroker(monkeypatch, {TOPIC: 2, "drift": 1, f"{TOPIC}.dlq": 1})
        self.handler = RecordingHandler()
        self.health = Health()
        self.health.mark_started()
        self.consumer: FakeConsumer = create_consumer(KAFKA, "group", "1")
        self.after_poll: Callable[[int], None] = lambda _: None
        self.polls = 0
        self.stop = threading.Event()
        self.pauses: list[float] = []
        self.before_pause: Callable[[], object] = list
        self._poll = self.consumer.poll
        monkeypatch.setattr(self.consumer, "poll", self._poll_until_nothing_is_left)
        monkeypatch.setattr(self.stop, "wait", self._pause)

    def _poll_until_nothing_is_left(self, timeout_ms: float) -> dict[TopicPartition, list[ConsumerRecord]]:
        self.polls += 1
        assert self.polls < MAX_POLLS, "the loop does not end"
        is_stable = self._is_stable()
        polled: dict[TopicPartition, list[ConsumerRecord]] = self._poll(timeout_ms)
        self.after_poll(self.polls)
        if not polled and is_stable and self._is_stable():
            self.stop.set()
        return polled

    def _is_stable(self) -> bool:
        return bool(self.consumer.group_metadata().generation_id == self.broker.generation)

    def _pause(self, seconds: float) -> bool:
        self.before_pause()
        self.pauses.append(seconds)
        return self.stop.is_set()

    def add(self, *names: str, partition: int = 0) -> None:
        for message in outcomes(*names):
            self.broker.append(TOPIC, message, partition)

    def run(self, limits: DeadLetterSettings = LENIENT, find_handled: FindHandled = nothing_handled) -> None:
        """Run a new loop on the consumer. The events that it publishes go to the topic ``drift``."""
        self.stop.clear()
        producer = TransactionalProducer(KAFKA, TopicsSettings(outcomes="drift"), "test", "1")
        self.loop = ConsumerLoop(self.consumer, [TOPIC], self.handler, producer, limits, self.health, find_handled)
        self.loop.run(self.stop)

    def committed(self) -> dict[int, int]:
        return {partition.partition: found.offset for partition, found in self.broker.committed.items()}

    def dead_letters(self) -> list[bytes]:
        return [record.value for record in self.broker.messages(f"{TOPIC}.dlq")]


@pytest.fixture
def setup(monkeypatch: pytest.MonkeyPatch) -> Setup:
    return Setup(monkeypatch)


def counter(name: str, topic: str = TOPIC) -> float:
    return REGISTRY.get_sample_value(name, {"topic": topic}) or 0.0


def test_loop_delivers_each_partition_in_order_and_commits(setup: Setup) -> None:
    setup.add("a", "b", "c")
    setup.add("x", "y", partition=1)
    before = counter("driftloop_consumed_events_total")
    setup.run()
    assert setup.handler.handled() == [(0, 0, "a"), (0, 1, "b"), (0, 2, "c"), (1, 0, "x"), (1, 1, "y")]
    assert setup.committed() == {0: 3, 1: 2}
    assert counter("driftloop_consumed_events_total") == before + 5


def test_loop_commits_each_poll_in_one_transaction_with_its_events(setup: Setup) -> None:
    setup.add(*"abcdef")
    setup.consumer.config["max_poll_records"] = 3
    setup.handler.on_message = lambda message: setup.handler.commit(message, outcome(f"of-{message.offset}"))
    setup.run()
    assert setup.broker.commits == 2
    published = [record.key for record in setup.broker.messages("drift")]
    assert published == [f"of-{offset}".encode() for offset in range(6)]
    assert setup.committed() == {0: 6}


def test_loop_commits_what_the_handler_returns_after_a_poll(setup: Setup) -> None:
    setup.add("a")
    setup.handler.on_message = lambda _: []
    setup.handler.on_idle = lambda: [Commit(TOPIC, 0, 1, metadata="slice 7")] if setup.handler.handled() else []
    setup.run()
    assert setup.broker.committed[P0][:2] == (1, "slice 7")


def test_loop_commits_nothing_that_the_handler_keeps(setup: Setup) -> None:
    setup.add("a", "b")
    setup.handler.on_message = lambda _: []
    setup.run()
    assert setup.committed() == {}


def test_loop_tells_handler_positions_and_metadata_at_start(setup: Setup) -> None:
    setup.add("a", "b")
    setup.handler.on_message = lambda message: setup.handler.commit(message, metadata="note")
    setup.run()
    setup.handler = RecordingHandler()
    setup.broker.rebalance([P0, P1])
    setup.run()
    assert ("assigned", {(TOPIC, 0): CommittedPosition(2, "note")}) in setup.handler.calls
    assert setup.handler.handled() == []


def test_loop_reports_offsets_of_transaction_markers_as_gap(setup: Setup) -> None:
    setup.add("a")
    setup.broker.logs[P0].append(None)
    setup.add("b")
    ends: list[tuple[int, int]] = []

    def note(message: ConsumedMessage) -> list[Commit]:
        ends.append((message.offset, message.previous_end_offset))
        return setup.handler.commit(message)

    setup.handler.on_message = note
    setup.run()
    assert ends == [(0, 0), (2, 1)]


def test_loop_tells_when_a_message_was_published(setup: Setup) -> None:
    published = [1_767_225_600.25, 1_767_225_601.0]
    for number, at in enumerate(published):
        event = Outcome(prediction_id="p", index=number, outcome=1)
        setup.broker.append(TOPIC, encode(event, "test"), timestamp=at)
    setup.broker.logs[P0].append(setup.broker.logs[P0][0]._replace(offset=2, timestamp=-1))  # type: ignore[union-attr]
    found: list[float] = []

    def note(message: ConsumedMessage) -> list[Commit]:
        found.append(message.published_at)
        return setup.handler.commit(message)

    setup.handler.on_message = note
    setup.run()
    assert found == [*published, 0.0]


def test_loop_dead_letters_invalid_message_with_its_origin(setup: Setup) -> None:
    setup.add("a", "!bad", "b")
    before = counter("driftloop_dead_letter_messages_total")
    setup.run()
    assert setup.handler.handled() == [(0, 0, "a"), (0, 1, None), (0, 2, "b")]
    (letter,) = setup.broker.messages(f"{TOPIC}.dlq")
    headers = dict(letter.headers)
    assert (letter.key, letter.value) == (b"key", b"!bad")
    assert headers["ce_id"] == b"bad-id"
    assert (headers["dlq_topic"], headers["dlq_partition"], headers["dlq_offset"]) == (b"outcomes", b"0", b"1")
    assert b"no CloudEvent in the headers" in headers["dlq_error"]
    assert setup.committed() == {0: 3}
    assert counter("driftloop_dead_letter_messages_total") == before + 1


def test_loop_dead_letters_invalid_messages_at_the_end_of_a_topic(setup: Setup) -> None:
    setup.add("a", "!1", "!2")
    setup.run()
    assert setup.dead_letters() == [b"!1", b"!2"]
    assert setup.committed() == {0: 3}


def test_loop_moves_dead_letter_only_with_the_commit_of_its_offset(setup: Setup) -> None:
    setup.add("a", "!bad", "b")
    setup.handler.on_message = lambda message: [] if message.offset else setup.handler.commit(message)
    setup.run()
    assert setup.committed() == {0: 1}
    assert setup.dead_letters() == []


def test_loop_stops_at_consecutive_limit_and_moves_none_of_the_run(setup: Setup) -> None:
    setup.add("a", "!1", "!2", "!3", "!4", "b")
    with pytest.raises(DeadLetterLimitExceeded, match=r"^4 consecutive .*outcomes\[0\]@4.*MAX_CONSECUTIVE \(3\)"):
        setup.run(DeadLetterSettings(max_consecutive=3, max_ratio=1.0))
    assert setup.committed() == {0: 1}
    assert setup.dead_letters() == []


def test_loop_stops_at_ratio_limit(setup: Setup) -> None:
    setup.add(*["a", "!1"] * 5)
    with pytest.raises(DeadLetterLimitExceeded, match=r"3 of the last 10 .*MAX_RATIO \(0\.2\)"):
        setup.run(DeadLetterSettings(max_consecutive=3, max_ratio=0.2, ratio_window=10))
    assert setup.committed() == {0: 5}
    assert len(setup.dead_letters()) == 2


def test_loop_resumes_with_raised_limit(setup: Setup) -> None:
    setup.add("a", "!1", "!2", "b")
    with pytest.raises(DeadLetterLimitExceeded):
        setup.run(DeadLetterSettings(max_consecutive=1, max_ratio=1.0))
    setup.broker.rebalance([P0, P1])
    setup.run(DeadLetterSettings(max_consecutive=2, max_ratio=1.0))
    assert setup.dead_letters() == [b"!1", b"!2"]
    assert setup.committed() == {0: 4}


def test_loop_commits_before_handler_exception_ends_it(setup: Setup) -> None:
    setup.add("a", "b", "c")

    def fail(message: ConsumedMessage) -> list[Commit]:
        if message.offset == 1:
            raise RuntimeError("disk full")
        return setup.handler.commit(message)

    setup.handler.on_message = fail
    with pytest.raises(RuntimeError, match="disk full"):
        setup.run()
    assert setup.committed() == {0: 1}
    assert setup.handler.handled() == [(0, 0, "a"), (0, 1, "b")]


def test_loop_redelivers_from_last_commit_after_retry_later(setup: Setup) -> None:
    setup.add("a", "b", "c")
    unavailable = iter([True, True, False])

    def sometimes(message: ConsumedMessage) -> list[Commit]:
        if message.offset == 1 and next(unavailable):
            raise RetryLater("no bucket")
        return setup.handler.commit(message)

    setup.handler.on_message = sometimes
    setup.run()
    assert setup.handler.handled() == [(0, 0, "a"), (0, 1, "b"), (0, 1, "b"), (0, 1, "b"), (0, 2, "c")]
    assert setup.committed() == {0: 3}
    assert len(setup.pauses) == 2
    assert all(1 <= seconds <= 2 for seconds in setup.pauses)
    assert setup.health.unavailable == {}


def test_loop_is_not_ready_while_it_retries(setup: Setup) -> None:
    setup.add("a")
    reasons: list[dict[str, str]] = []

    def once(message: ConsumedMessage) -> list[Commit]:
        reasons.append(setup.health.unavailable)
        if len(reasons) == 1:
            raise RetryLater("no bucket")
        return setup.handler.commit(message)

    setup.handler.on_message = once
    setup.run()
    assert reasons == [{}, {"handler": "no bucket"}]


def test_loop_is_ready_again_long_after_a_failure_without_anything_to_commit(
    setup: Setup, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = iter([RetryLater("no bucket")])

    def fail_once() -> list[Commit]:
        for error in failures:
            raise error
        return []

    setup.handler.on_idle = fail_once
    setup.add("a")
    setup.handler.on_message = lambda _: []
    monkeypatch.setattr(retries, "NEW_SERIES_SECONDS", 0)
    setup.run()
    assert len(setup.pauses) == 1
    assert setup.health.unavailable == {}


def test_loop_counts_an_invalid_message_once_and_moves_it_while_the_next_one_waits(setup: Setup) -> None:
    setup.add("a", "!bad", "b")
    before = counter("driftloop_dead_letter_messages_total")
    attempts: list[None] = []

    def wait_for_bucket(message: ConsumedMessage) -> list[Commit]:
        if message.offset == 2:
            attempts.append(None)
            if len(attempts) < 30:
                raise RetryLater("no bucket")
        return setup.handler.commit(message)

    setup.handler.on_message = wait_for_bucket
    setup.run(DeadLetterSettings(max_consecutive=3, max_ratio=0.2, ratio_window=10))
    assert setup.committed() == {0: 3}
    assert setup.dead_letters() == [b"!bad"]
    assert counter("driftloop_dead_letter_messages_total") == before + 1


def test_loop_polls_again_when_a_poll_has_failed(setup: Setup) -> None:
    """kafka-python raises from a poll what it meets while it looks for a broker that has just started."""
    setup.add("a")
    setup.broker.faults["poll"] = [None, KafkaConnectionError("socket disconnected"), NodeNotReadyError("no broker")]
    unavailable: list[dict[str, str]] = []
    setup.before_pause = lambda: unavailable.append(setup.health.unavailable)
    setup.run()
    assert setup.committed() == {0: 1}
    assert [list(each) for each in unavailable] == [["broker"]] * 2
    assert "socket disconnected" in unavailable[0]["broker"]
    assert setup.health.unavailable == {}


def test_loop_is_not_stalled_while_it_retries_what_fails_slowly(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.add("a")
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    setup.health.heartbeat()
    stalled: list[str | None] = []

    def pause(seconds: float) -> bool:
        now[0] += seconds
        stalled.append(setup.health.stalled_reason)
        return False

    def fail_slowly(message: ConsumedMessage) -> list[Commit]:
        now[0] += 35  # as long as the bucket's client tries
        if len(stalled) < 5:
            raise RetryLater("no bucket")
        return setup.handler.commit(message)

    monkeypatch.setattr(setup.stop, "wait", pause)
    setup.handler.on_message = fail_slowly
    setup.run()
    assert stalled == [None] * 5
    assert now[0] > 1000 + 6 * 35 + 3 * consumer_loop.MAX_HANDLER_PAUSE_SECONDS


def test_loop_raises_retry_later_after_deadline(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.add("a")
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def pause(seconds: float) -> bool:
        setup.pauses.append(seconds)
        now[0] += seconds
        return False

    monkeypatch.setattr(setup.stop, "wait", pause)

    def never(_: ConsumedMessage) -> list[Commit]:
        raise RetryLater("no bucket")

    setup.handler.on_message = never
    with pytest.raises(RetryLater, match="no bucket"):
        setup.run()
    assert setup.pauses[:4] == [1, 1, 2, 4]
    assert max(setup.pauses) == consumer_loop.MAX_HANDLER_PAUSE_SECONDS
    assert now[0] - 1000 > retries.DEADLINE_SECONDS
    assert setup.committed() == {}


def test_loop_hands_over_nothing_after_stop(setup: Setup) -> None:
    setup.add("a", "b")

    def stop(message: ConsumedMessage) -> list[Commit]:
        setup.stop.set()
        return setup.handler.commit(message)

    setup.handler.on_message = stop
    setup.run()
    assert setup.handler.handled() == [(0, 0, "a")]
    assert setup.committed() == {0: 1}


def test_loop_drops_revoked_partitions_and_reads_the_rest_again(setup: Setup) -> None:
    setup.add("a", "b")
    setup.add("x", partition=1)
    setup.handler.on_message = lambda message: setup.handler.commit(message) if message.offset == 0 else []
    setup.after_poll = lambda polls: setup.broker.rebalance([P0]) if polls == 3 else None
    setup.run()
    assert ("revoked", [0, 1]) in setup.handler.calls
    assert setup.handler.calls[-1] == ("handle", (0, 1, "b"))
    assert setup.committed() == {0: 1, 1: 1}


def test_loop_rewinds_if_a_rebalance_refuses_its_commit(setup: Setup) -> None:
    setup.add("a", "b")
    rebalanced = [False]

    def handle(message: ConsumedMessage) -> list[Commit]:
        if message.offset == 1 and not rebalanced[0]:
            rebalanced[0] = True
            setup.broker.rebalance([P0, P1])  # after the poll: the commit of this batch meets it
        return setup.handler.commit(message, outcome("published"))

    setup.handler.on_message = handle
    setup.run()
    assert setup.handler.handled() == [(0, 0, "a"), (0, 1, "b"), (0, 0, "a"), (0, 1, "b")]
    assert len(setup.broker.messages("drift")) == 2
    assert setup.committed() == {0: 2}
    assert setup.broker.producers[0].closed, "kafka-python would send the refused offsets again"


def test_loop_counts_consecutive_invalid_messages_again_after_rewind(setup: Setup) -> None:
    setup.add("!1", "!2", "a")
    first = [True]

    def handle(message: ConsumedMessage) -> list[Commit]:
        if message.offset == 2 and first[0]:
            first[0] = False
            raise RetryLater("no bucket")
        return setup.handler.commit(message) if message.offset == 2 else []

    setup.handler.on_message = handle
    setup.run(DeadLetterSettings(max_consecutive=2, max_ratio=1.0))
    assert setup.dead_letters() == [b"!1", b"!2"]
    assert setup.committed() == {0: 3}


@pytest.mark.parametrize("step", ["commit_transaction", "answer to commit_transaction"])
def test_loop_goes_on_after_a_commit_that_the_broker_did_not_answer(setup: Setup, step: str) -> None:
    setup.add("a", "b")
    setup.broker.faults[step] = [KafkaConnectionError("gone")]
    setup.broker.faults["KafkaProducer"] = [None, KafkaConnectionError("still gone")]
    reasons: list[str] = []
    setup.before_pause = lambda: reasons.append(setup.health.unavailable["broker"])
    setup.handler.on_message = lambda message: setup.handler.commit(message, outcome("published"))
    setup.run()
    assert [reason.split(": ")[-1] for reason in reasons] == ["gone", "still gone"]
    assert setup.health.unavailable == {}
    assert setup.committed() == {0: 2}
    assert len(setup.broker.messages("drift")) == 2
    times = 2 if step == "commit_transaction" else 1  # committed, although nobody said so
    assert setup.handler.handled() == [(0, 0, "a"), (0, 1, "b")] * times


def test_loop_reads_again_if_the_broker_does_not_tell_what_is_committed(setup: Setup) -> None:
    setup.add("a")
    setup.broker.faults["committed"] = [KafkaTimeoutError("too slow")]
    setup.run()
    assert setup.handler.handled() == [(0, 0, "a")]
    assert setup.committed() == {0: 1}


def test_loop_ends_if_no_broker_answers_for_long(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.add("a")
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    setup.broker.faults["commit_transaction"] = [KafkaConnectionError("gone")]
    setup.broker.faults["init_transactions"] = [None, *(KafkaConnectionError("gone") for _ in range(1_000))]

    def advance() -> None:
        now[0] += 10

    setup.before_pause = advance
    with pytest.raises(BrokerUnavailable, match=r"fake:9092 \(DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS\).*gone"):
        setup.run()
    assert now[0] - 1000 > retries.DEADLINE_SECONDS
    assert setup.committed() == {}


def test_failures_long_after_one_another_are_no_series(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.add(*"abcdefgh")
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    failed: set[int] = set()

    def fail_once(message: ConsumedMessage) -> list[Commit]:
        if message.offset not in failed:
            failed.add(message.offset)
            now[0] += 300
            raise RetryLater("no bucket")
        return setup.handler.commit(message) if message.offset == 7 else []

    setup.handler.on_message = fail_once
    setup.run()
    assert now[0] - 1000 > retries.DEADLINE_SECONDS
    assert setup.pauses == [1] * 8
    assert setup.committed() == {0: 8}


def test_loop_joins_again_after_stalled_rebalance(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])

    def stall(polls: int) -> None:
        if polls < 5:
            setup.consumer.state = MemberState.REBALANCING
            now[0] += 200
            setup.add(f"{polls}")
        else:
            setup.consumer.state = MemberState.STABLE

    setup.after_poll = stall
    setup.run()
    assert setup.consumer.subscriptions == 3  # at the start, and after each 300 s


def test_loop_close_leaves_group_and_producer(setup: Setup) -> None:
    setup.run()
    setup.loop.close()
    assert setup.consumer.closed
    assert setup.broker.producers[-1].closed


def test_loop_sends_heartbeats(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.add("a", "b")
    beats: list[float] = []
    monkeypatch.setattr(setup.health, "heartbeat", lambda: beats.append(time.monotonic()))
    setup.run()
    assert len(beats) >= 2 + setup.polls


def test_loop_counts_messages_that_were_deleted_before_the_committed_offset_once(setup: Setup) -> None:
    setup.add("a", "b")
    setup.run()
    setup.add(*"cdefg")
    setup.broker.beginnings[P0] = 5
    before = counter("driftloop_skipped_offsets_total")
    setup.handler = RecordingHandler()
    ends: list[tuple[int, int]] = []

    def note(message: ConsumedMessage) -> list[Commit]:
        ends.append((message.offset, message.previous_end_offset))
        return setup.handler.commit(message)

    setup.handler.on_message = note
    setup.broker.rebalance([P0, P1])
    setup.run()
    assert ends == [(5, 5), (6, 6)]
    assert counter("driftloop_skipped_offsets_total") == before + 3
    assert ("assigned", {(TOPIC, 0): CommittedPosition(2, "")}) in setup.handler.calls


def test_loop_reads_a_topic_that_was_made_again_from_its_beginning(setup: Setup) -> None:
    setup.add("a", "b", "c")
    setup.run()
    setup.broker.logs[P0].clear()
    setup.add("x")
    setup.handler = RecordingHandler()
    setup.broker.rebalance([P0, P1])
    setup.run()
    assert setup.handler.handled() == [(0, 0, "x")]
    assert ("assigned", {}) in setup.handler.calls


def test_loop_waits_while_another_process_has_its_place(setup: Setup, monkeypatch: pytest.MonkeyPatch) -> None:
    setup.add("a")
    waited: list[tuple[str, str]] = []
    monkeypatch.setattr(
        consumer_loop, "wait_while_replaced", lambda _, group, instance, *__: waited.append((group, instance))
    )
    setup.broker.faults["commit_transaction"] = [ProducerFencedError()]
    with pytest.raises(InstanceReplaced, match="DRIFTLOOP_INSTANCE_ID"):
        setup.run()
    assert waited == [("group", "group-1")]
    assert setup.consumer.closed


def forgotten() -> float:
    return REGISTRY.get_sample_value("driftloop_forgotten_commits_total", {"topic": TOPIC}) or 0.0


def test_loop_goes_on_behind_what_was_handled_if_nothing_is_committed(setup: Setup) -> None:
    setup.add("a", "b", "c")
    setup.add("x", partition=1)
    before = forgotten()
    setup.run(find_handled=lambda topic, partition: {(TOPIC, 0): 2}.get((topic, partition)))
    assert setup.handler.handled() == [(0, 2, "c"), (1, 0, "x")]
    assert ("assigned", {(TOPIC, 0): CommittedPosition(2)}) in setup.handler.calls
    assert setup.committed() == {0: 3, 1: 1}
    assert forgotten() - before == 1


def test_loop_commits_the_position_that_it_has_found(setup: Setup) -> None:
    setup.add("a", "b")
    setup.run(find_handled=lambda _, partition: None if partition else 2)
    assert setup.handler.handled() == []
    assert setup.committed() == {0: 2}


def test_loop_does_not_ask_what_was_handled_if_it_is_committed(setup: Setup) -> None:
    setup.add("a")
    setup.add("x", partition=1)
    setup.run()
    setup.add("b")
    asked: list[int] = []
    setup.broker.rebalance([P0, P1])
    setup.run(find_handled=lambda _, partition: asked.append(partition))
    assert setup.handler.handled()[-1] == (0, 1, "b")
    assert asked == []


def test_partitions_with_a_commit_are_read_from_there_although_another_cannot_be_found(setup: Setup) -> None:
    setup.add("x", "y", partition=1)
    setup.broker.rebalance([P0, P1])
    setup.consumer.poll(timeout_ms=0)
    setup.broker.committed[P1] = OffsetAndMetadata(1, "", -1)

    def fail(*_: object) -> None:
        raise RetryLater("no bucket")

    with pytest.raises(RetryLater):
        list(ReadPositions(setup.consumer, [TOPIC], fail).seek_to_committed([P0, P1]))
    assert setup.consumer.position(P1) == 1


@pytest.mark.parametrize("handled", [1, 3], ids=["deleted since", "of another log"])
def test_position_that_was_found_is_within_the_log(setup: Setup, handled: int) -> None:
    setup.add("a", "b")
    if handled == 1:
        setup.add("c", "d")
        setup.broker.beginnings[P0] = 2
    setup.run(find_handled=lambda _, partition: None if partition else handled)
    first = setup.handler.handled()[0]
    assert first == ((0, 2, "c") if handled == 1 else (0, 0, "a"))


def test_loop_waits_until_it_knows_what_was_handled(setup: Setup) -> None:
    setup.add("a", "b")
    attempts: list[int] = []

    def find(_: str, partition: int) -> int | None:
        attempts.append(partition)
        if len(attempts) <= 3:
            raise RetryLater("no bucket")
        return None if partition else 1

    setup.run(find_handled=find)
    assert setup.handler.handled() == [(0, 1, "b")]
    assert len(setup.pauses) >= 1
    assert setup.committed() == {0: 2}
