"""What a service gives the consumer loop: a handler of its messages, and what can be committed."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import NamedTuple, Protocol

from driftloop.errors import DriftloopError
from driftloop.events import Event
from driftloop.kafka.consumed_message import ConsumedMessage
from driftloop.kafka.transactional_producer import CommittedPosition


class Commit(NamedTuple):
    """A statement of the handler: everything of the partition before ``offset`` has had its effect."""

    topic: str
    partition: int
    offset: int
    events: Sequence[Event] = ()
    """Events to publish in the same transaction."""
    metadata: str = ""
    """Text that is committed with the offset, for the next owner of the partition."""


class MessageHandler(Protocol):
    """What a service does with its messages. The loop calls all methods from one thread."""

    def handle(self, message: ConsumedMessage) -> Iterable[Commit]:
        """Process one message and return what can be committed now, which need not include this message."""

    def on_poll(self) -> Iterable[Commit]:
        """Return what can be committed now. Called after each poll, several times a second while no event arrives."""

    def on_assigned(self, positions: Mapping[tuple[str, int], CommittedPosition]) -> None:
        """Prepare for reading the (topic, partition) pairs from their committed positions.

        Called before the first message of each pair, and again when it is read once more from there. Pairs that are
        read from the beginning are left out: nothing of them is committed, or was found to be handled.
        """

    def on_revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """Drop what is held of the (topic, partition) pairs: another process may own them from now on."""


class RetryLater(DriftloopError):
    """The handler needs something that is unavailable: deliver again from the last commit on, after a pause."""
