"""Whatever a producer sends, consumers go on, and the message is on the dead-letter topic with its origin."""

import json
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from kafka import KafkaProducer, TopicPartition
from kafka.consumer.fetcher import ConsumerRecord
from typer.testing import CliRunner

from driftloop.events import Outcome
from driftloop.exit_codes import ExitCode
from driftloop.kafka import reader
from driftloop.kafka.dead_letter_queue import DeadLetter, read_dead_letters, settle
from driftloop.kafka.dead_letters import parse_origin
from driftloop.settings import DeadLetterSettings, KafkaSettings
from driftloop_cli.main import app
from tests.support.consumed_topic import TopicUnderTest
from tests.support.poison import ForeignName, Poison, poison_messages, poison_producer, send, valid_message
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]


LENIENT = DeadLetterSettings(max_consecutive=100, max_ratio=1.0)


@pytest.fixture
def topic(broker: KafkaSettings) -> Iterator[TopicUnderTest]:
    topic = TopicUnderTest(broker)
    yield topic
    topic.publisher.close()


@pytest.fixture
def producer(broker: KafkaSettings) -> Iterator[KafkaProducer]:
    producer = poison_producer(broker.bootstrap_servers)
    yield producer
    producer.close()


def test_poison_is_moved_with_its_origin_and_ends_no_consumer(topic: TopicUnderTest, producer: KafkaProducer) -> None:
    poison = poison_messages()
    zeros = poison["zeros"].value
    send(producer, topic.topic, valid_message(1))
    for content in poison.values():
        send(producer, topic.topic, content)
    send(producer, topic.topic, valid_message(2))
    offsets = dict(zip(poison, range(1, len(poison) + 1), strict=True))

    received = topic.run(len(poison) + 2, LENIENT).received
    assert [message.offset for message in received if message.event is None] == list(offsets.values())
    wait_until(lambda: topic.committed() == len(poison) + 2 or None, "all is committed")

    letters = {parse_origin(letter.headers).offset: letter for letter in topic.dead_letters()}
    origins = {name: parse_origin(letters[offset].headers) for name, offset in offsets.items()}
    assert {(origin.topic, origin.partition) for origin in origins.values()} == {(topic.topic, 0)}
    changed = {name: origin.changed for name, origin in origins.items()}
    assert changed == {
        "neither key nor value": {"value": "null"},
        "null header": {"header ce_id": "null"},
        "header name": {"value": "undecodable"},
        "zeros": {"value": "cut"},
        "bomb": {"value": "undecodable"},
        "large key": {"key": "cut"},
        "large headers": {"headers": "cut"},
        "tombstone": {},
        "key alone": {},
    }
    assert (origins["zeros"].size, origins["zeros"].sha256) == (len(zeros), sha256(zeros).hexdigest())
    assert all(size(letter) <= LENIENT.max_bytes for letter in letters.values())
    events = reader.read_last(topic.kafka, topic.topic, 100)
    assert [event.index for event in events if isinstance(event, Outcome)] == [1, 2]


def size(record: ConsumerRecord) -> int:
    headers = sum(len(name) + len(content) for name, content in record.headers)
    return len(record.key or b"") + len(record.value or b"") + headers


def test_undecodable_record_amid_a_batch_takes_no_other_with_it(topic: TopicUnderTest, producer: KafkaProducer) -> None:
    producer.partitions_for(topic.topic)
    for index in range(5):
        key, value, headers = valid_message(index)
        content = [(ForeignName("x"), b"1")] if index == 2 else headers
        producer._accumulator.append(TopicPartition(topic.topic, 0), None, key, value, content)
    producer._sender.wakeup()
    producer.flush(60)
    received = topic.run(5, LENIENT).received
    assert [(message.offset, message.event is None) for message in received] == [
        (offset, offset == 2) for offset in range(5)
    ]
    (letter,) = topic.dead_letters()
    assert parse_origin(letter.headers).offset == 2


def waiting(topic: TopicUnderTest) -> list[DeadLetter]:
    return [letter for letter in read_dead_letters(topic.kafka, [topic.topic]) if letter.state == "waiting"]


def test_dead_letters_are_listed_shown_moved_back_once_and_dropped(
    topic: TopicUnderTest, producer: KafkaProducer, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS", topic.kafka.bootstrap_servers)
    monkeypatch.setenv("DRIFTLOOP_STORAGE__URL", tmp_path.as_uri())
    monkeypatch.setenv("DRIFTLOOP_TOPICS__OUTCOMES", topic.topic)
    send(producer, topic.topic, Poison(b"k", b"garbage", [("trace", b"t")]))
    send(producer, topic.topic, Poison(None, None, []))
    topic.run(2, LENIENT)
    # A message that only an older reader has found invalid.
    key, value, headers = valid_message(7)
    origin = [("dlq_topic", topic.topic), ("dlq_partition", "0"), ("dlq_offset", "9"), ("dlq_timestamp", "1000")]
    facts = [*origin, ("dlq_error", "unknown type"), ("dlq_size", "1"), ("dlq_sha256", "0")]
    send(producer, f"{topic.topic}.dlq", Poison(key, value, [*headers, *((n, text.encode()) for n, text in facts)]))

    listed = run("list", "--topic", topic.topic)["dead_letters"]
    assert [letter["state"] for letter in listed] == ["waiting"] * 3
    garbage, null, valid = (letter["id"] for letter in listed)
    assert len(run("list", "--error", "unknown type")["dead_letters"]) == 1
    assert run("list", "--until", "2001-01-01")["dead_letters"] == []
    shown = run("show", garbage)
    assert (shown["value"], shown["headers"]["trace"], shown["offset"]) == ("garbage", "t", 0)

    assert run("redrive", "--topic", topic.topic, "--dry-run")["redriven"] == [valid]
    assert len(waiting(topic)) == 3
    done = run("redrive", "--topic", topic.topic)
    assert (done["redriven"], set(done["kept"])) == ([valid], {garbage, null})
    assert run("redrive", "--topic", topic.topic)["redriven"] == []
    (event,) = reader.read_last(topic.kafka, topic.topic, 100)
    assert isinstance(event, Outcome)
    assert event.index == 7
    run("redrive", garbage, code=ExitCode.REFUSED)
    run("show", f"{topic.topic}.dlq-0@999", code=ExitCode.REFUSED)
    run("drop", code=ExitCode.USAGE)

    assert run("drop", garbage)["dropped"] == [garbage]
    assert [letter.id for letter in waiting(topic)] == [null]
    states = {letter["id"]: letter["state"] for letter in run("list", "--topic", topic.topic, "--done")["dead_letters"]}
    assert states == {garbage: "dropped", null: "waiting", valid: "redriven"}


def test_messages_that_are_no_dead_letters_are_left_out(topic: TopicUnderTest, producer: KafkaProducer) -> None:
    origin = [("dlq_topic", topic.topic), ("dlq_partition", "0"), ("dlq_offset", "9"), ("dlq_timestamp", "1000")]
    facts = [*origin, ("dlq_error", "unknown type"), ("dlq_size", "1"), ("dlq_sha256", "0")]
    letter = [(name, text.encode()) for name, text in facts]
    others = [
        *([("dlq_state", b"redriven")], [("dlq_state", b"dropped"), ("dlq_letter", b"\xff")]),
        *([("dlq_state", b""), ("dlq_letter", b"")], letter[:3], [*letter[:2], ("dlq_offset", b"nine"), *letter[3:]]),
        *([*letter, ("dlq_changed", changed)] for changed in (b"[]", b"{", b"[" * 100_000, b'{"value": 1}')),
    ]
    for headers in [*others, letter]:
        send(producer, f"{topic.topic}.dlq", Poison(b"k", b"garbage", headers))
    assert [found.offset for found in waiting(topic)] == [len(others)]


def test_interrupted_redrive_moves_each_message_once(topic: TopicUnderTest, producer: KafkaProducer) -> None:
    origin = [("dlq_topic", topic.topic), ("dlq_partition", "0"), ("dlq_offset", "9"), ("dlq_timestamp", "1000")]
    facts = [*origin, ("dlq_error", "unknown type"), ("dlq_size", "1"), ("dlq_sha256", "0")]
    for index in range(20):
        key, value, headers = valid_message(index)
        send(producer, f"{topic.topic}.dlq", Poison(key, value, [*headers, *((n, text.encode()) for n, text in facts)]))
    letters = waiting(topic)
    done = list(settle(topic.kafka, letters[:5], "redriven"))
    done += settle(topic.kafka, letters, "redriven")
    done += settle(topic.kafka, letters, "redriven")
    assert sorted(letter.id for letter in done) == sorted(letter.id for letter in letters)
    events = [event for event in reader.read_last(topic.kafka, topic.topic, 100) if isinstance(event, Outcome)]
    assert sorted(event.index or 0 for event in events) == list(range(20))


def run(*arguments: str, code: ExitCode = ExitCode.SUCCESS) -> Any:
    """Run ``driftloop dlq``; return what it prints as JSON."""
    result = CliRunner().invoke(app, ["dlq", *arguments, "--json"])
    assert result.exit_code == code, result.output
    return json.loads(result.stdout) if result.stdout.startswith("{") else None
