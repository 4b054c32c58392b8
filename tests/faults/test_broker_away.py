"""A consumer loop that loses its broker amid transactions: it goes on in the same process, with each event once."""

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

from driftloop.events import Outcome, RetrainRequested
from driftloop.kafka import reader
from driftloop.kafka.client import create_consumer
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.consumer_loop import ConsumerLoop
from driftloop.kafka.message_handler import Commit
from driftloop.kafka.transactional_producer import TransactionalProducer
from driftloop.settings import DeadLetterSettings, KafkaSettings
from driftloop.telemetry.health import Health
from stack import kafka
from stack.running import Stack
from tests.support.chaos.setup import kafka_properties
from tests.support.consumed_topic import RecordingHandler, TopicUnderTest
from tests.support.ports import reserve_ports
from tests.support.running_stack import isolated_settings
from tests.support.tcp_proxy import TcpProxy, Trouble
from tests.support.waiting import wait_until

pytestmark = [pytest.mark.integration, pytest.mark.timeout(600)]

REQUEST_TIMEOUT_SECONDS = 1.0


class RequestingHandler(RecordingHandler):
    """Requests a retrain for each message, in the transaction that commits its offset."""

    before_commit: Callable[[], object] = list
    """Called once, between a poll and its commit."""

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        (commit,) = super().handle(message)
        assert isinstance(message.event, Outcome)
        reason = str(message.event.index)
        request = RetrainRequested(model="loans", trigger="manual", reason=reason, requested_by="test")
        before_commit, self.before_commit = self.before_commit, list
        before_commit()
        return [commit._replace(events=[request])]


@pytest.fixture
def proxied_broker(tmp_path: Path) -> Iterator[tuple[TcpProxy, KafkaSettings, KafkaSettings]]:
    """A broker behind a proxy: the proxy, and the addresses behind it and in front of it."""
    stack = Stack(isolated_settings(tmp_path), print)
    ports = stack.settings.stack
    listener, proxy_port = reserve_ports(2)
    stack.components["kafka"] = kafka.kafka_component(
        stack.folder / "kafka",
        ports.kafka_port,
        ports.kafka_controller_port,
        kafka_properties(ports.kafka_port, ports.kafka_controller_port, [("loop", listener, proxy_port)]),
    )
    with ExitStack() as parts:
        parts.callback(stack.stop)
        stack.start("kafka")
        proxy = parts.enter_context(TcpProxy(proxy_port, listener))
        through_proxy = KafkaSettings(
            bootstrap_servers=f"127.0.0.1:{proxy_port}", request_timeout_seconds=REQUEST_TIMEOUT_SECONDS
        )
        yield proxy, stack.kafka, through_proxy


def test_loop_goes_on_in_its_process_after_each_trouble_with_the_network(
    proxied_broker: tuple[TcpProxy, KafkaSettings, KafkaSettings],
) -> None:
    proxy, direct, through_proxy = proxied_broker
    troubles: tuple[Trouble, ...] = ("cut", "half-open", "reset")
    topic = TopicUnderTest(direct)
    stop, health = threading.Event(), Health()
    health.mark_started()
    handler = RequestingHandler(stop, message_count=-1)
    consumer = create_consumer(through_proxy, topic.group, "test")
    producer = TransactionalProducer(through_proxy, topic.topics, "test", topic.topic)
    loop = ConsumerLoop(consumer, [topic.topic], handler, producer, DeadLetterSettings(), health)
    published = 0

    def publish_until(condition: str, is_met: Callable[[], object]) -> None:
        def met() -> bool | None:
            nonlocal published
            topic.publisher.publish(Outcome(prediction_id="p", index=published, outcome=1.0))
            published += 1
            assert not running.done(), running.exception()
            return bool(is_met()) or None

        wait_until(met, condition)

    with ThreadPoolExecutor(1) as thread:
        running = thread.submit(loop.run, stop)
        try:
            for trouble in troubles:
                publish_until("messages are handled", lambda: handler.received)
                with ExitStack() as active:
                    handler.before_commit = partial(active.enter_context, proxy.trouble(trouble))
                    publish_until(f"the loop misses the broker ({trouble})", lambda: "broker" in health.unavailable)
                    tries_until = time.monotonic() + 5 * REQUEST_TIMEOUT_SECONDS
                    publish_until("it has tried again", partial(is_past, tries_until))
                publish_until("it has the broker again", lambda: not health.unavailable)
            wait_until(lambda: reader.is_caught_up(direct, topic.group, [topic.topic]) or None, "all is handled")
        finally:
            stop.set()
    running.result()
    loop.close()
    topic.publisher.close()
    requests = reader.read_last(direct, topic.topics.retrain, 10 * published)
    reasons = [int(request.reason) for request in requests if isinstance(request, RetrainRequested)]
    assert sorted(reasons) == list(range(published))


def is_past(moment: float) -> bool:
    return time.monotonic() > moment
