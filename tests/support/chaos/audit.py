"""What is on the topics, in the archive, in the registry and in the bucket, read for :mod:`counts`."""

from collections import Counter
from collections.abc import Iterable

import httpx
from kafka import KafkaConsumer, TopicPartition

from driftloop.archive.layout import list_slices
from driftloop.events import DriftVerdict, Event, ModelStateChanged, Outcome, Prediction, Window
from driftloop.kafka import reader
from driftloop.kafka.client import create_reader
from driftloop.kafka.codec import InvalidMessage, decode_record
from driftloop.kafka.dead_letters import parse_origin
from driftloop.kafka.topics import dead_letter_topic
from driftloop.registry.model_registry import TAG_RETRAIN_ID
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from stack.running import Stack
from stack.services import ServedUseCase
from tests.support.chaos.counts import (
    AT_THE_END,
    Counts,
    Partition,
    Round,
    count_dead_letters,
    count_events,
    count_retrains,
    count_slices,
    count_verdicts,
)

ALL = 10**6  # messages of a small topic
ANY_NUMBER = 5_000  # records of a poll


def outcome_key(prediction_id: str) -> str:
    """Return what an outcome is counted by: its event has an id that its client does not learn."""
    return f"outcome of {prediction_id}"


class Audit:
    """Reads all topics of a stack without a proxy, and counts what faults have done."""

    def __init__(self, stack: Stack) -> None:
        """Begin at the beginning of the topics."""
        self.answered: dict[str, str] = {}
        """From the id of each answered event since the last count to the name of the fault."""
        self.published: Counter[str] = Counter()
        """Events on the topics of predictions and outcomes since the last count, by id."""
        self.deletions: dict[Partition, set[int]] = {}
        """Offsets before which a fault has deleted messages."""
        self.poison: dict[tuple[str, int, int], str] = {}
        """From topic, partition and offset of a message that is no event to the name of the fault."""
        self.retrains: dict[str, tuple[str, str]] = {}
        """From the id of each requested retrain to its model and the name of the fault."""
        self._stack = stack
        self._store = ObjectStore(stack.storage)
        self._places: dict[str, TopicPartition] = {}
        self._offsets: dict[str, int] = {}
        self._deleted: set[str] = set()
        self._rows: dict[str, Counter[tuple[str, str]]] = {}  # by the slice's path
        self._last_offsets: dict[Partition, int] = {}
        self._forgotten_through: dict[Partition, int] = {}
        self._positions: dict[TopicPartition, int] = {}
        self._consumer = self._connect()

    def close(self) -> None:
        """Disconnect."""
        self._consumer.close()

    @property
    def topics(self) -> tuple[str, str]:
        """The topics whose events are counted one by one."""
        return self._stack.topics.predictions, self._stack.topics.outcomes

    def _connect(self) -> KafkaConsumer:
        return create_reader(self._stack.kafka, max_poll_records=ANY_NUMBER)

    def read(self) -> None:
        """Count what was committed since the last call. Raises :class:`kafka.errors.KafkaError` without a broker."""
        partitions = [
            TopicPartition(topic, number)
            for topic in self.topics
            for number in self._consumer.partitions_for_topic(topic) or ()
        ]
        self._consumer.assign(partitions)
        beginnings, ends = self._consumer.beginning_offsets(partitions), self._consumer.end_offsets(partitions)
        for partition in partitions:
            self._consumer.seek(partition, max(self._positions.get(partition, 0), beginnings[partition]))
        while any(self._consumer.position(partition) < ends[partition] for partition in partitions):
            for partition, records in self._consumer.poll(500).items():
                self._count(partition, records)
                # Not the consumer's own position: what a poll that fails has fetched is read again.
                self._positions[partition] = records[-1].offset + 1

    def _count(self, partition: TopicPartition, records: Iterable[object]) -> None:
        for record in records:
            offset: int = record.offset  # type: ignore[attr-defined]  # kafka-python has no types
            self._last_offsets[partition.topic, partition.partition] = offset
            try:
                event = decode_record(record)
            except InvalidMessage:
                continue
            key = _key(event)
            self.published[key] += 1
            self._places[key], self._offsets[key] = partition, offset

    def reconnect(self) -> None:
        """Connect again, so that partitions that were added are known at once."""
        self._consumer.close()
        self._consumer = self._connect()

    def note_deletion(self, topic: str, number: int, committed: int, offset: int) -> None:
        """Remember that a fault has deleted what was read before, from a committed offset to another one."""
        partition = TopicPartition(topic, number)
        self.deletions.setdefault((topic, number), set()).add(offset)
        self._deleted |= {
            key
            for key, place in self._places.items()
            if place == partition and committed <= self._offsets[key] < offset
        }

    def note_forgotten_windows(self) -> None:
        """Remember that a fault has made the drift worker forget its open windows, which end before this moment."""
        self.read()
        self._forgotten_through = dict(self._last_offsets)

    def last_read(self, topic: str, number: int) -> int:
        """Return the offset up to which a partition was read."""
        return self._positions.get(TopicPartition(topic, number), 0)

    def states(self) -> list[ModelStateChanged]:
        """Return all states of retrains."""
        events = reader.read_last(self._stack.kafka, self._stack.topics.models, ALL)
        return [event for event in events if isinstance(event, ModelStateChanged)]

    def final_retrains(self) -> set[str]:
        """Return the ids of retrains that have ended."""
        return {state.retrain_id for state in self.states() if state.is_final}

    def slices(self) -> list[str]:
        """Return the paths of all archived slices."""
        return [file.path for topic in self.topics for file in list_slices(self._store, topic)]

    def overlapping_slices(self) -> int:
        """Return how many slices overlap another one, as orphans of killed workers do until they are deleted."""
        counts = count_slices(map(Window.parse, self.slices()), {}, {})
        return counts.doubled.total()

    def count_round(self) -> Counts:
        """Count events since the last call, and everything else since the beginning."""
        self.reconnect()
        self.read()
        paths = self.slices()
        archived: Counter[str] = Counter()
        for path in paths:
            if path in self._rows:
                continue
            if Window.parse(path).topic == self._stack.topics.outcomes:
                self._rows[path] = Counter()
                archived.update(outcome_key(str(each)) for each in self._store.read_parquet(path, ["_id"])["_id"])
            else:
                rows = self._store.read_parquet(path, ["_id", "_model", "_version"])
                self._rows[path] = Counter(zip(rows["_model"], rows["_version"], strict=True))
                archived.update(rows["_id"])
        counts = count_events(Round(self.answered, self.published, archived, self._deleted))
        self.answered, self.published = {}, Counter()
        self._places, self._offsets, self._deleted = {}, {}, set()
        return counts

    def count_rest(self) -> Counts:
        """Count slices, verdicts, dead letters, retrains and versions since the beginning."""
        paths = self.slices()
        counts = count_slices(map(Window.parse, paths), self._last_offsets, self.deletions)
        events = reader.read_last(self._stack.kafka, self._stack.topics.drift, ALL)
        verdicts = [event for event in events if isinstance(event, DriftVerdict)]
        rows = {Window.parse(path): self._rows[path] for path in paths if self._rows.get(path)}
        counts += count_verdicts(verdicts, rows, self._forgotten_through)
        counts += count_dead_letters(self.poison, self._dead_letters())
        states, versions = self.states(), Counter[str]()
        for served in self._stack.use_cases:
            for version in served.registry.client.search_model_versions(f"name = '{served.name}'"):
                versions[version.tags.get(TAG_RETRAIN_ID, "")] += 1
        counts += count_retrains({key: fault for key, (_, fault) in self.retrains.items()}, states, versions)
        counts += self._count_versions(states)
        return counts

    def alias_and_serving(self, served: ServedUseCase) -> tuple[str | None, str | None]:
        """Return the version that a model's alias names, and the one that its predictor serves."""
        url = self._stack.components[served.component_name("predictor")].url
        return served.registry.champion(), httpx.get(f"{url}/models", timeout=30).json().get("version")

    def _dead_letters(self) -> Counter[tuple[str, int, int]]:
        letters: Counter[tuple[str, int, int]] = Counter()
        for topic in self.topics:
            partition = TopicPartition(dead_letter_topic(topic), 0)
            consumer = self._connect()
            consumer.assign([partition])
            consumer.seek_to_beginning(partition)
            end = consumer.end_offsets([partition])[partition]
            while consumer.position(partition) < end:
                for records in consumer.poll(500).values():
                    origins = [parse_origin(record.headers) for record in records]
                    letters.update((origin.topic, origin.partition, origin.offset) for origin in origins)
            consumer.close()
        return letters

    def _count_versions(self, states: Iterable[ModelStateChanged]) -> Counts:
        """Compare alias, serving version and latest promotion of each model, and look for the references."""
        counts = Counts()
        for served in self._stack.use_cases:
            promoted = [s.version for s in states if s.state == "promoted" and s.model == served.name and s.version]
            alias, serving = self.alias_and_serving(served)
            if not alias == serving == promoted[-1]:
                difference = (
                    f"{served.name}: the alias names {alias}, {serving} serves, {promoted[-1]} was promoted last"
                )
                counts.note(counts.lost, AT_THE_END, difference)
            for version in promoted:
                try:
                    run_id = served.registry.identified(version).run_id
                    reference_store.load_profile(self._store, served.name, version, run_id)
                except reference_store.ReferenceUnavailable as error:
                    counts.note(counts.lost, AT_THE_END, str(error))
        return counts


def _key(event: Event) -> str:
    """Return what an event is counted by."""
    assert isinstance(event, Prediction | Outcome)
    return event.id if isinstance(event, Prediction) else outcome_key(str(event.prediction_id))
