"""Constructors of all Kafka clients, and the translation of their errors.

Options that differ from kafka-python's defaults have their reason beside them. No client creates topics in passing:
``driftloop topics create`` does, with the right number of partitions.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from kafka import KafkaAdminClient, KafkaConsumer, KafkaProducer
from kafka.errors import InvalidRecordError, InvalidTimestampError, KafkaConnectionError, KafkaError, KafkaTimeoutError

from driftloop.errors import BrokerUnavailable
from driftloop.kafka.tolerant_records import read_past_undecodable
from driftloop.settings import KafkaSettings

# How soon a client that is running learns of new partitions. kafka-python's default is five minutes, and a topic whose
# events go to partitions that nobody reads yet has a gap for so long. The request is small.
METADATA_MAX_AGE_MS = 10_000


@contextmanager
def translate_errors(kafka: KafkaSettings) -> Iterator[None]:
    """Raise :class:`BrokerUnavailable` for every ``KafkaError`` of the block."""
    try:
        yield
    except KafkaError as error:
        raise broker_unavailable(kafka, error) from error


def broker_unavailable(kafka: KafkaSettings, error: KafkaError) -> BrokerUnavailable:
    """Return the exception that names the broker's address and setting besides the client's error."""
    if isinstance(error, InvalidTimestampError) or (
        isinstance(error, InvalidRecordError) and "timestamp" in str(error).lower()  # of one record
    ):
        return BrokerUnavailable(
            f"Kafka at {kafka.bootstrap_servers} refuses events because their time, by this machine's clock, is too "
            "far from its own: set the clock, or let `driftloop topics create` set message.timestamp.type=LogAppendTime"
        )
    return BrokerUnavailable(
        f"no answer from Kafka at {kafka.bootstrap_servers} (DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS): "
        f"{type(error).__name__}: {error}"
    )


def create_consumer(
    kafka: KafkaSettings, group: str, instance_id: str, max_poll_interval_seconds: float = 300
) -> KafkaConsumer:
    """Connect a member of a consumer group that commits by hand and reads committed transactions only.

    Args:
        kafka: How to reach the broker.
        group: The consumer group.
        instance_id: Makes the membership static: after a quick restart the member has its partitions back without a
            rebalance, and a killed process' partitions move on after the session timeout.
        max_poll_interval_seconds: The longest time between two polls; a member that takes longer loses its partitions.

    Raises:
        BrokerUnavailable: No broker answers.
    """
    with translate_errors(kafka):
        consumer = KafkaConsumer(
            **kafka.client_config,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            client_id=f"driftloop-{group}",
            group_id=group,
            group_instance_id=f"{group}-{instance_id}",
            session_timeout_ms=int(kafka.session_timeout_seconds * 1000),
            heartbeat_interval_ms=int(kafka.session_timeout_seconds * 1000 / 3),
            max_poll_interval_ms=int(max_poll_interval_seconds * 1000),
            enable_auto_commit=False,
            # Bounds the time between two polls. A poll and its transaction cost as much as hundreds of events.
            max_poll_records=2_000,
            # While one topic is quiet, the broker holds the single fetch request in flight for this long, and data of
            # the other topics waits behind it. The default is 500 ms.
            fetch_max_wait_ms=100,
            max_partition_fetch_bytes=8 * 2**20,
            auto_offset_reset="earliest",
            isolation_level="read_committed",
            allow_auto_create_topics=False,
        )
    return read_past_undecodable(consumer)


def create_reader(kafka: KafkaSettings, **options: Any) -> KafkaConsumer:
    """Connect a consumer that belongs to no group and reads committed transactions only.

    Raises:
        BrokerUnavailable: No broker answers.
    """
    with translate_errors(kafka):
        consumer = KafkaConsumer(
            **kafka.client_config,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            enable_auto_commit=False,
            isolation_level="read_committed",
            allow_auto_create_topics=False,
            **options,
        )
    return read_past_undecodable(consumer)


def create_idempotent_producer(kafka: KafkaSettings, client_id: str, **options: Any) -> KafkaProducer:
    """Connect a producer that writes each record once, on all replicas.

    Raises:
        BrokerUnavailable: No broker answers.
    """
    timeout = kafka.request_timeout_seconds
    with translate_errors(kafka):
        return KafkaProducer(
            **kafka.client_config,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            client_id=client_id,
            acks="all",
            enable_idempotence=True,
            request_timeout_ms=int(timeout * 500),  # leaves time for a second attempt before the delivery times out
            delivery_timeout_ms=int(timeout * 1000),
            max_block_ms=int(timeout * 1000),
            allow_auto_create_topics=False,
            **options,
        )


def create_transactional_producer(
    kafka: KafkaSettings, client_id: str, transactional_id: str, **options: Any
) -> KafkaProducer:
    """Connect a transactional producer; the caller has to call ``init_transactions``.

    Raises:
        BrokerUnavailable: No broker answers.
    """
    timeout_ms = int(kafka.request_timeout_seconds * 1000)
    step_timeout_ms = timeout_ms * 2  # a second attempt; no step may last as long as the watchdog waits
    with translate_errors(kafka):
        producer = KafkaProducer(
            **kafka.client_config,
            metadata_max_age_ms=METADATA_MAX_AGE_MS,
            client_id=client_id,
            transactional_id=transactional_id,
            acks="all",
            request_timeout_ms=timeout_ms,
            delivery_timeout_ms=step_timeout_ms,
            max_block_ms=timeout_ms * 3,
            allow_auto_create_topics=False,
            **options,
        )
    _keep_requests_to_lost_coordinators(producer)
    _limit_waiting(producer, step_timeout_ms)
    return producer


def close_producer(producer: KafkaProducer, seconds: float = 1) -> None:
    """Disconnect a producer after ``seconds`` at most, without what it has not sent by then."""
    try:
        producer.close(timeout=seconds)
    except KafkaTimeoutError:  # raised before anything is closed (in 3.0.12): give up what waits, and close the rest
        producer._sender.force_close()
        producer._sender.join(1)
        with suppress(KafkaTimeoutError):
            producer.close(timeout=0)


def _keep_requests_to_lost_coordinators(producer: KafkaProducer) -> None:
    """Let a producer send a transactional request again whose coordinator has just gone.

    kafka-python's sender looks for another coordinator and tries again if ``await_ready`` returns that the broker is
    not ready. But that function raises instead (in 3.0.12), and then the request is dropped: whoever has made it waits
    for ever. So with three brokers each loss of one could stop a producer for good.
    """
    client = producer._sender._client  # no public name leads to it
    await_ready = client.await_ready

    def is_ready(node_id: Any, timeout_ms: float) -> bool:
        try:
            return bool(await_ready(node_id, timeout_ms=timeout_ms))
        except KafkaConnectionError:
            return False

    client.await_ready = is_ready


def _limit_waiting(producer: KafkaProducer, timeout_ms: int) -> None:
    """Let the steps of a transaction raise ``KafkaTimeoutError`` if the broker does not answer in time.

    kafka-python waits for ever for the broker's answer to offsets, commit and abort (in 3.0.12).
    """
    manager = producer._transaction_manager  # no public method takes a timeout

    def limited(begin: Callable[..., Any]) -> Callable[..., _LimitedResult]:
        return lambda *arguments: _LimitedResult(begin(*arguments), timeout_ms)

    for step in ("send_offsets_to_transaction", "begin_commit", "begin_abort"):
        setattr(manager, step, limited(getattr(manager, step)))


class _LimitedResult:
    def __init__(self, result: Any, timeout_ms: int) -> None:
        self._result = result
        self._timeout_ms = timeout_ms

    def wait(self) -> None:
        if not self._result.wait(timeout_ms=self._timeout_ms):
            raise KafkaTimeoutError(f"no answer for {self._timeout_ms / 1000:g} s to a step of a transaction")


@contextmanager
def admin_client(kafka: KafkaSettings) -> Iterator[KafkaAdminClient]:
    """Connect an admin client for the block.

    Raises:
        BrokerUnavailable: No broker answers, or it refuses a call of the block.
    """
    with translate_errors(kafka):
        admin = KafkaAdminClient(**kafka.client_config)
        try:
            yield admin
        finally:
            admin.close()
