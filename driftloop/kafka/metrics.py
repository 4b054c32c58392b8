"""Metrics of every service that consumes events."""

from prometheus_client import Counter, Gauge

CONSUMED = Counter(
    "driftloop_consumed_events_total",
    "Valid events that the service has consumed, by topic; an event that is read again after a rebalance or a restart "
    "counts again. If it stops growing while requests are answered, events are stuck.",
    ["topic"],
)
DEAD_LETTERS = Counter(
    "driftloop_dead_letter_messages_total",
    "Messages that were no valid events and were moved to the dead-letter topic. Any increase needs a look at who "
    "wrote them.",
    ["topic"],
)
SKIPPED_OFFSETS = Counter(
    "driftloop_skipped_offsets_total",
    "Offsets between the committed one and the beginning of the partition's log: the broker has deleted what was there "
    "before the service has read it. Any increase means that events are lost to it; see "
    "DRIFTLOOP_TOPICS__RETENTION_DAYS.",
    ["topic"],
)
FORGOTTEN_COMMITS = Counter(
    "driftloop_forgotten_commits_total",
    "Partitions of which the broker had no committed offset though the service has handled events of them before: the "
    "group was deleted, or away for longer than the broker keeps offsets (offsets.retention.minutes). Reading went on "
    "behind those events.",
    ["topic"],
)
LAG_EVENTS = Gauge(
    "driftloop_consumer_lag_events",
    "Offsets of the partition that the service has not handled yet; each transaction adds one to those of its events.",
    ["topic", "partition"],
)
LAG_SECONDS = Gauge(
    "driftloop_consumer_lag_seconds",
    "How long ago the last handled event of the partition was published; 0 when everything has been handled. Worrying "
    "if it keeps growing.",
    ["topic", "partition"],
)
