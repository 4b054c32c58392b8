"""What faults have lost and doubled, counted on topics, in the archive and among retrains. Pure functions."""

from bisect import bisect_left
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import NamedTuple

from driftloop.events import DriftVerdict, ModelStateChanged, Window

NOT_ANSWERED = "no answer"
"""In place of a fault: of an event whose client got no answer, which may be on its topic but not twice."""
AT_THE_END = "after all faults"
"""In place of a fault: what belongs to no single fault."""
MAX_MEMORY_GROWTH = 1.5
MAX_MEMORY_GROWTH_MB = 150
MAX_FILES_GROWTH = 40

Partition = tuple[str, int]
"""Topic and number."""


class FaultResult(NamedTuple):
    """What one fault has done while it lasted and until everything went on."""

    name: str
    kind: str
    failed: int
    """Requests that got no answer, or another one than 200."""
    seconds: float
    """From the end of the fault until everything went on, without the time that a group may need to notice."""
    stuck: Sequence[str]
    """What did not go on in time."""
    is_predictors_own: bool
    """Whether the fault hits what answers requests."""


@dataclass
class Counts:
    """What is lost and doubled, by the name of the fault; and what is wrong, in words."""

    lost: Counter[str] = field(default_factory=Counter)
    doubled: Counter[str] = field(default_factory=Counter)
    problems: list[str] = field(default_factory=list)

    def __iadd__(self, other: "Counts") -> "Counts":
        """Add other counts to these."""
        self.lost.update(other.lost)
        self.doubled.update(other.doubled)
        self.problems += other.problems
        return self

    def note(self, counter: Counter[str], name: str, problem: str) -> None:
        """Count one, and say what it is."""
        counter[name] += 1
        self.problems.append(f"{name}: {problem}")


class Round(NamedTuple):
    """What was answered, published and archived between two counts."""

    answered: Mapping[str, str]
    """From the id of each answered event to the name of the fault."""
    published: Counter[str]
    """Committed events on the topics, by id."""
    archived: Counter[str]
    """Rows in the archive, by the event's id; each event has one row."""
    deleted: Collection[str]
    """Ids of events that a fault has deleted from the topic, which may or may not be archived."""


def count_events(round_: Round) -> Counts:
    """Count events that are missing on the topic or in the archive, and those that are there twice."""
    counts = Counts()
    for event_id, name in round_.answered.items():
        if not round_.published[event_id]:
            counts.note(counts.lost, name, f"{event_id} was answered and is not on its topic")
    for event_id, copies in round_.published.items():
        name = round_.answered.get(event_id, NOT_ANSWERED)
        if copies > 1:
            counts.note(counts.doubled, name, f"{event_id} is {copies} times on its topic")
        if not round_.archived[event_id] and event_id not in round_.deleted:
            counts.note(counts.lost, name, f"{event_id} is on its topic and not in the archive")
    for event_id, rows in round_.archived.items():
        name = round_.answered.get(event_id, NOT_ANSWERED)
        if rows > 1:
            counts.note(counts.doubled, name, f"{event_id} is in {rows} rows of the archive")
        if not round_.published[event_id] and event_id not in round_.deleted:
            counts.note(counts.doubled, name, f"{event_id} is in the archive and not on its topic")
    return counts


def count_slices(
    slices: Iterable[Window], last_offsets: Mapping[Partition, int], deletions: Mapping[Partition, Collection[int]]
) -> Counts:
    """Count gaps and overlaps between the slices of each partition.

    Args:
        slices: All archived slices.
        last_offsets: The offset of the last message of each partition that has one.
        deletions: Offsets before which a fault has deleted the messages of a partition.
    """
    counts = Counts()
    by_partition: dict[Partition, list[Window]] = {partition: [] for partition in last_offsets}
    for each in slices:
        by_partition.setdefault((each.topic, each.partition), []).append(each)
    for partition, of_partition in by_partition.items():
        ordered = sorted(of_partition, key=lambda each: each.first_offset)
        if not ordered or ordered[-1].last_offset < last_offsets.get(partition, -1):
            end = ordered[-1].name if ordered else "nothing"
            counts.note(counts.lost, AT_THE_END, f"the slices of {partition} end with {end}")
        if ordered and ordered[0].first_offset not in (0, *deletions.get(partition, ())):
            counts.note(counts.lost, AT_THE_END, f"the slices of {partition} begin with {ordered[0].name}")
        for one, following in pairwise(ordered):
            expected = one.last_offset + 1
            if following.first_offset < expected:
                counts.note(counts.doubled, AT_THE_END, f"{one.name} overlaps {following.name}")
            elif following.first_offset > expected and following.first_offset not in deletions.get(partition, ()):
                counts.note(counts.lost, AT_THE_END, f"there is a gap between {one.name} and {following.name}")
    return counts


def count_verdicts(
    verdicts: Sequence[DriftVerdict],
    rows: Mapping[Window, Counter[tuple[str, str]]],
    forgotten_through: Mapping[Partition, int],
) -> Counts:
    """Count windows that were judged twice, overlap, or have other rows than the archive, and rows between windows.

    Args:
        verdicts: All verdicts on the topic.
        rows: The number of rows of each model and version in each archived slice of predictions.
        forgotten_through: The last offset of a partition when a fault last made the worker forget its open windows,
            whose rows are not judged. After it each row is.
    """
    counts = Counts()
    for verdict_id, copies in Counter(verdict.id for verdict in verdicts).items():
        if copies > 1:
            counts.note(counts.doubled, AT_THE_END, f"the verdict {verdict_id} is {copies} times on its topic")
    slices: dict[int, list[Window]] = {}
    for each in sorted(rows, key=_first_offset):
        slices.setdefault(each.partition, []).append(each)

    def row_count(model: str, version: str, partition: int, begin: int, end: int) -> int:
        """Return the rows of a version in the slices that begin in a range of offsets, its end not included."""
        of_partition = slices.get(partition, [])
        chosen = (bisect_left(of_partition, offset, key=_first_offset) for offset in (begin, end))
        return sum(rows[each][model, version] for each in of_partition[slice(*chosen)])

    windows: dict[tuple[str, str, int], list[DriftVerdict]] = {}
    for verdict in {verdict.id: verdict for verdict in verdicts}.values():
        windows.setdefault((verdict.model, verdict.version, verdict.window.partition), []).append(verdict)
    for key, of_version in windows.items():
        ordered = sorted(of_version, key=lambda verdict: verdict.window.first_offset)
        for verdict in ordered:
            window = verdict.window
            archived = row_count(*key, window.first_offset, window.last_offset + 1)
            if verdict.rows != archived:
                problem = f"{verdict.id} is about {verdict.rows} rows, and the archive has {archived}"
                counts.note(counts.lost if verdict.rows < archived else counts.doubled, AT_THE_END, problem)
        for one, following in pairwise(verdict.window for verdict in ordered):
            if following.first_offset <= one.last_offset:
                counts.note(counts.doubled, AT_THE_END, f"{one.name} was judged, and overlaps {following.name}")
            elif one.last_offset >= forgotten_through.get((one.topic, one.partition), -1) and row_count(
                *key, one.last_offset + 1, following.first_offset
            ):
                counts.note(counts.lost, AT_THE_END, f"rows of {key} between {one.name} and {following.name}")
    return counts


def _first_offset(window: Window) -> int:
    return window.first_offset


def count_dead_letters(poison: Mapping[tuple[str, int, int], str], letters: Counter[tuple[str, int, int]]) -> Counts:
    """Count poison without a dead letter, and poison with several.

    Args:
        poison: From topic, partition and offset to the name of the fault; of messages that one consumer reads.
        letters: Dead letters by the topic, partition and offset of their message.
    """
    counts = Counts()
    for place, name in poison.items():
        if letters[place] == 0:
            counts.note(counts.lost, name, f"{place} is no dead letter")
        elif letters[place] > 1:
            counts.note(counts.doubled, name, f"{place} is {letters[place]} dead letters")
    return counts


def count_retrains(requested: Mapping[str, str], states: Sequence[ModelStateChanged], versions: Counter[str]) -> Counts:
    """Count retrains without a final state, with several, and with several versions.

    Args:
        requested: From the id of each retrain to the name of the fault during which it began.
        states: All states on the topic.
        versions: Registered versions by the retrain that they come from.
    """
    counts = Counts()
    finals = Counter(state.retrain_id for state in states if state.is_final)
    promotions = Counter(state.retrain_id for state in states if state.state == "promoted")
    for retrain_id, name in requested.items():
        if not finals[retrain_id]:
            counts.note(counts.lost, name, f"the retrain {retrain_id} has no final state")
        elif finals[retrain_id] > 1:
            counts.note(counts.doubled, name, f"the retrain {retrain_id} has {finals[retrain_id]} final states")
        if promotions[retrain_id] > 1:
            counts.note(counts.doubled, name, f"the retrain {retrain_id} was promoted {promotions[retrain_id]} times")
        if versions[retrain_id] > 1:
            counts.note(counts.doubled, name, f"the retrain {retrain_id} has {versions[retrain_id]} versions")
        if promotions[retrain_id] and not versions[retrain_id]:
            counts.note(counts.lost, name, f"the version of the promoted retrain {retrain_id} is not registered")
    return counts


class Resources(NamedTuple):
    """What a component and its child processes hold."""

    memory_mb: float
    files: int
    sockets: int


def not_back(before: Mapping[str, Resources], after: Mapping[str, Resources]) -> list[str]:
    """Return which components hold clearly more than before the faults, in words."""
    problems = []
    for name, now in after.items():
        then = before[name]
        if now.memory_mb > then.memory_mb * MAX_MEMORY_GROWTH + MAX_MEMORY_GROWTH_MB:
            problems.append(f"{name} has {now.memory_mb:,.0f} MB of memory, and had {then.memory_mb:,.0f}")
        if now.files > then.files + MAX_FILES_GROWTH:
            problems.append(f"{name} has {now.files} open files, and had {then.files}")
        if now.sockets > then.sockets + MAX_FILES_GROWTH:
            problems.append(f"{name} has {now.sockets} open sockets, and had {then.sockets}")
    return problems


class Line(NamedTuple):
    """A line of the table: all faults of one name."""

    name: str
    kind: str
    times: int
    failed: int
    seconds: float
    """The longest recovery."""
    lost: int
    doubled: int
    stuck: int


def summarize(results: Sequence[FaultResult], counts: Counts) -> list[Line]:
    """Return a line for each name of a fault, and one for each other name that something was counted under."""
    by_name: dict[str, list[FaultResult]] = {}
    for result in results:
        by_name.setdefault(result.name, []).append(result)
    lines = [
        Line(
            name,
            same[0].kind,
            len(same),
            sum(result.failed for result in same),
            max(result.seconds for result in same),
            counts.lost[name],
            counts.doubled[name],
            sum(bool(result.stuck) for result in same),
        )
        for name, same in sorted(by_name.items(), key=lambda item: (item[1][0].kind, item[0]))
    ]
    others = (counts.lost.keys() | counts.doubled.keys()) - by_name.keys()
    return lines + [Line(name, "", 0, 0, 0, counts.lost[name], counts.doubled[name], 0) for name in sorted(others)]


def figures(results: Sequence[FaultResult], counts: Counts) -> dict[str, float]:
    """Return the figures of the benchmark by name."""
    return {
        "faults": float(len(results)),
        "kinds": float(len({result.kind for result in results})),
        "lost": float(counts.lost.total()),
        "doubled": float(counts.doubled.total()),
        "stuck": float(sum(bool(result.stuck) for result in results)),
        "longest_recovery_seconds": max((result.seconds for result in results), default=0.0),
        "failed_requests_of_others": float(sum(result.failed for result in results if not result.is_predictors_own)),
    }
