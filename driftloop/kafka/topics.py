"""The topics and how they are created: by ``driftloop topics create`` only, never by a client in passing."""

from typing import NamedTuple

from driftloop.kafka.client import admin_client
from driftloop.settings import KafkaSettings, TopicsSettings

DAY_MS = 24 * 3600 * 1000


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
        configs = {"retention.ms": str(retention_ms)}
        specs[name] = TopicSpec(topics.partitions if is_large else 1, topics.replication_factor, configs)
        specs[dead_letter_topic(name)] = TopicSpec(1, topics.replication_factor, configs)
    return specs


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
