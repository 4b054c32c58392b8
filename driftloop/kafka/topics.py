"""The topics and how they are created: by ``driftloop topics create`` only, never by a client in passing."""

from collections.abc import Collection
from datetime import timedelta
from typing import NamedTuple

from kafka.admin import ConfigResource, ConfigResourceType

from driftloop.errors import BrokerUnavailable
from driftloop.kafka.client import admin_client
from driftloop.settings import KafkaSettings, TopicsSettings

DAY_MS = 24 * 3600 * 1000
TIMESTAMP_TYPE = "message.timestamp.type"
# The time of a message is the broker's, and that of the event is in the event: a broker refuses messages of a machine
# whose clock is an hour ahead, and a clock that is behind would make retention delete them early.
BROKER_TIME = {TIMESTAMP_TYPE: "LogAppendTime"}


def dead_letter_topic(topic: str) -> str:
    """Return the name of the topic that a topic's invalid messages are moved to."""
    return f"{topic}.dlq"


class TopicSpec(NamedTuple):
    """The properties that a topic is created with."""

    partitions: int
    replication_factor: int
    configs: dict[str, str]


def topic_specs(topics: TopicsSettings) -> dict[str, TopicSpec]:
    """Return the specification of every topic and of its dead-letter topic, by name.

    Only predictions and outcomes are large: they are partitioned and deleted after the retention time. The other
    topics are small and kept forever.
    """
    specs = {}
    for name in topics.names():
        is_large = name in (topics.predictions, topics.outcomes)
        retention_ms = int(topics.retention_days * DAY_MS) if is_large else -1
        configs = {"retention.ms": str(retention_ms), **BROKER_TIME}
        specs[name] = TopicSpec(topics.partitions if is_large else 1, topics.replication_factor, configs)
        specs[dead_letter_topic(name)] = TopicSpec(1, topics.replication_factor, configs)
    return specs


def keeping_times(kafka: KafkaSettings, names: Collection[str]) -> dict[str, timedelta | None]:
    """Return for how long topics may keep a message, without those that do not exist; ``None`` means for ever.

    The broker deletes a segment once its last message is older than the retention time, and begins a new one after
    ``segment.ms`` at the latest.

    Raises:
        BrokerUnavailable: No broker answers, or it refuses this client.
    """
    with admin_client(kafka) as admin:
        existing = sorted(set(names) & set(admin.list_topics()))
        settings = ["retention.ms", "segment.ms", "cleanup.policy"]
        resources = [ConfigResource(ConfigResourceType.TOPIC, name, settings) for name in existing]
        described = admin.describe_configs(resources, config_filter="all")["topic"] if existing else {}
    times: dict[str, timedelta | None] = {}
    for name in existing:
        retention, segment = (int(described[name][setting]["value"]) for setting in settings[:2])
        is_deleted = "delete" in described[name]["cleanup.policy"]["value"] and retention >= 0
        times[name] = timedelta(milliseconds=retention + segment) if is_deleted else None
    return times


def create(kafka: KafkaSettings, topics: TopicsSettings) -> list[str]:
    """Create the topics that do not exist and return their names.

    Raises:
        BrokerUnavailable: No broker answers, or it refuses this client.
    """
    with admin_client(kafka) as admin:
        existing = set(admin.list_topics())
        missing = {
            name: {
                "num_partitions": spec.partitions,
                "replication_factor": spec.replication_factor,
                "configs": spec.configs,
            }
            for name, spec in topic_specs(topics).items()
            if name not in existing
        }
        if missing:
            admin.create_topics(missing, wait_for_metadata=True)
        return list(missing)


def use_broker_time(kafka: KafkaSettings, topics: TopicsSettings) -> list[str]:
    """Let existing topics give messages the broker's time, and return the names of those that did not.

    Raises:
        BrokerUnavailable: No broker answers, or it refuses this client.
    """
    with admin_client(kafka) as admin:
        names = sorted(topic_specs(topics).keys() & set(admin.list_topics()))
        described = admin.describe_configs(
            [ConfigResource(ConfigResourceType.TOPIC, name, [TIMESTAMP_TYPE]) for name in names], config_filter="all"
        )
        others = [
            name for name in names if described["topic"][name][TIMESTAMP_TYPE]["value"] != BROKER_TIME[TIMESTAMP_TYPE]
        ]
        if others:
            changes = [ConfigResource(ConfigResourceType.TOPIC, name, dict(BROKER_TIME)) for name in others]
            answers = admin.alter_configs(changes)["topic"]
            refused = [f"{name}: {answers[name]}" for name in others if answers[name] != "OK"]
            if refused:
                raise BrokerUnavailable(f"Kafka refuses to set {TIMESTAMP_TYPE}: {', '.join(refused)}")
    return others
