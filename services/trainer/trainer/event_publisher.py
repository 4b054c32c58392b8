"""What the trainer's parts need of a publisher."""

from typing import Protocol

from driftloop.events import Event


class EventPublisher(Protocol):
    """Publishes events, such as :class:`driftloop.kafka.publisher.Publisher`."""

    def publish(self, event: Event) -> None:
        """Publish an event.

        Raises:
            BrokerUnavailable: The event may not have been published.
        """
