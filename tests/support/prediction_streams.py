"""Random streams of predictions, and a worker that is killed while it reads one."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from typing import NamedTuple, TypeVar

from hypothesis import strategies as st

from driftloop.events import Prediction
from driftloop.kafka.consumed_message import ConsumedMessage

NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)
PARTITION = ("predictions", 0)
VERSIONS = [(model, version, run) for model in ("a", "b") for version in ("1", "2") for run in (None, "r")]
MAX_MESSAGES = 60

Committed = TypeVar("Committed")


class Step(NamedTuple):
    """What a stream goes on with."""

    version: int
    rows: int
    markers: int
    """Offsets before the message that belong to the markers of transactions."""
    seconds: int
    """By how much later than the message before it reaches the topic; a broker's clock may also go back."""
    kind: str
    """``new``, ``duplicate`` of the event before, or ``dead`` letter."""


STEPS = st.builds(
    Step,
    st.integers(0, len(VERSIONS) - 1),
    st.integers(0, 4),
    st.integers(0, 2),
    st.sampled_from([0, 0, 0, 0, 1, 30, 61, -5]),
    st.sampled_from(["new", "new", "new", "new", "duplicate", "dead"]),
)


def _messages(first_offset: int, steps: Sequence[Step]) -> list[ConsumedMessage]:
    messages: list[ConsumedMessage] = []
    end, at, event = first_offset, 1_000_000.0, None
    for version, rows, markers, seconds, kind in steps:
        offset, at = end + markers, at + seconds
        model, number, run_id = VERSIONS[version]
        if event is None or kind == "new":
            cells = [float(offset + row) for row in range(rows)]
            event = Prediction(
                id=f"e{offset}",
                time=NOON,
                model=model,
                version=number,
                run_id=run_id,
                features={"x": [*cells]},
                predictions=[*cells],
            )
        messages.append(ConsumedMessage(*PARTITION, offset, None if kind == "dead" else event, end, at))
        end = offset + 1
    return messages


STREAMS = st.lists(STEPS, max_size=MAX_MESSAGES) | st.lists(STEPS, min_size=MAX_MESSAGES // 2, max_size=MAX_MESSAGES)
MESSAGES = st.builds(_messages, st.sampled_from([0, 7, 2**40]), STREAMS)
KILLS = st.sets(st.integers(1, 2 * MAX_MESSAGES)) | st.integers(8, 30).map(
    lambda each: set(range(each, 4 * MAX_MESSAGES, each))
)
"""Steps of :func:`read_through_kills` before which a worker is killed."""


def read_through_kills(
    messages: Sequence[ConsumedMessage],
    start: Callable[[Committed | None], Callable[[ConsumedMessage], Iterable[Committed]]],
    end_of: Callable[[Committed], int],
    kills: Collection[int] = (),
) -> Iterator[Committed]:
    """Yield what is committed in turn. After a kill, the next worker begins at the end of the latest commit.

    Args:
        messages: What is on the partition.
        start: Returns what handles the messages of a new worker, which goes on with the latest commit.
        end_of: Returns the offset of a commit.
        kills: The steps before which a worker is killed: a step is to receive a message, or to commit.
    """
    latest: Committed | None = None
    step, is_killed = 0, True
    while is_killed:
        is_killed = False
        handle = start(latest)
        first = 0 if latest is None else end_of(latest)
        for message in messages:
            if message.offset < first:
                continue
            step += 1
            if is_killed := step in kills:
                break
            for commit in handle(message):
                step += 1
                if is_killed := step in kills:
                    break
                latest = commit
                yield commit
            if is_killed:
                break
