"""Whether a system under steady load stays as it is, which load is too much, and what breaks first. Pure functions.

A trend is the median of all slopes between two samples (Theil and Sen), which single peaks do not move.
"""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from tests.support.chaos.counts import Resources
from tests.support.load_client import Interval

HOUR = 3_600
MAX_GROWTH = 0.02
"""Part of the events that may pile up while a rate is tried, and the part still counts as keeping up."""
MIN_ANSWERED = 0.95
"""Part of the requests at a rate that must be answered for the predictor to count as keeping up."""
MIN_GROWTH = 1.0
"""Events a second; a queue that grows by less does not count as growing."""
BATCH_EVENTS = 2_000
"""That the relay publishes, and the worker reads, at once: what waits goes up and down by as many."""
LATE_SECONDS = 10.0
"""Events that wait for longer are late."""
SLOW_MS = 1_000.0
STEPS_DOWN = 20

PREDICTOR, RELAY, DRIFT_WORKER = "predictor", "relay", "drift_worker"


class Sample(NamedTuple):
    """What was seen at one moment."""

    time: float
    """In seconds since 1970."""
    lag_seconds: Mapping[str, float]
    """The longest lag of a consumer by topic."""
    unread_events: float
    """On the topics of predictions and outcomes, and not consumed by the drift worker."""
    outbox_events: float
    """In all outboxes, and not published."""
    outbox_seconds: float
    """How long the oldest of them has waited."""
    resources: Mapping[str, Resources]
    disk_mb: Mapping[str, float]
    """By part of the stack's folder."""


class Bound(NamedTuple):
    """How much something may grow and still count as flat."""

    per_hour: float
    at_least: float
    """What it may grow in any case, however short the time: noise."""


class Trend(NamedTuple):
    """How something has developed."""

    name: str
    unit: str
    median: float
    per_hour: float
    bound_per_hour: float

    @property
    def is_flat(self) -> bool:
        """Whether it has not grown by more than its bound."""
        return self.per_hour <= self.bound_per_hour


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the growth a second; 0 of fewer than two moments."""
    if len(set(times)) < 2:
        return 0.0
    return float(stats.theilslopes(values, times).slope)


def last_two_thirds(times: Sequence[float]) -> slice:
    """Return the part of ordered times that is judged: what comes before is the beginning."""
    if not times:
        return slice(0, 0)
    begin = times[0] + (times[-1] - times[0]) / 3
    return slice(int(np.searchsorted(times, begin)), len(times))


def trend(name: str, unit: str, times: Sequence[float], values: Sequence[float], bound: Bound) -> Trend:
    """Judge the last two thirds of a series; it must have a value."""
    judged = last_two_thirds(times)
    hours = max(times[-1] - times[judged][0], 1.0) / HOUR
    return Trend(
        name,
        unit,
        float(np.median(values[judged])),
        slope(times[judged], values[judged]) * HOUR,
        max(bound.per_hour, bound.at_least / hours),
    )


def trends(samples: Sequence[Sample], intervals: Sequence[Interval], rate: float) -> list[Trend]:
    """Judge everything that must stay as it is under a steady load of so many requests a second."""
    times = [sample.time for sample in samples]
    waiting = Bound(rate * LATE_SECONDS, BATCH_EVENTS)
    judged = [
        trend("unread events", "events", times, [sample.unread_events for sample in samples], waiting),
        trend("outbox", "events", times, [sample.outbox_events for sample in samples], waiting),
    ]
    for topic in sorted({topic for sample in samples for topic in sample.lag_seconds}):
        lags = [sample.lag_seconds.get(topic, 0.0) for sample in samples]
        judged.append(trend(f"lag on {topic}", "s", times, lags, Bound(5, 5)))
    answered = [interval for interval in intervals if interval.milliseconds]
    for percent in (50, 99):
        values = [float(np.percentile(interval.milliseconds, percent)) for interval in answered]
        usual = float(np.median(values)) if values else 0.0
        bound = Bound(0.2 * usual, 0.2 * usual + 2)
        judged.append(trend(f"latency p{percent}", "ms", [each.end for each in answered], values, bound))
    for name in samples[0].resources:
        held = [sample.resources[name] for sample in samples]
        judged.append(trend(f"memory of {name}", "MB", times, [each.memory_mb for each in held], Bound(30, 20)))
        judged.append(trend(f"files of {name}", "files", times, [float(each.files) for each in held], Bound(20, 10)))
    for part in ("predictor", "mlflow", "logs"):  # topics and archive grow with the rows
        sizes = [sample.disk_mb.get(part, 0.0) for sample in samples]
        judged.append(trend(f"disk of {part}", "MB", times, sizes, Bound(20, 20)))
    return judged


def disk_mb_per_million_rows(samples: Sequence[Sample], intervals: Sequence[Interval]) -> float:
    """Return what a million answered rows take on all disks together, topics and archive included."""
    judged = samples[last_two_thirds([sample.time for sample in samples])]
    begin, end = judged[0], judged[-1]
    rows = answered_between(intervals, begin.time, end.time)
    return (sum(end.disk_mb.values()) - sum(begin.disk_mb.values())) / max(rows, 1) * 1e6


def answered_between(intervals: Iterable[Interval], begin: float, end: float) -> int:
    """Return how many requests were answered within the intervals that end between two times."""
    return sum(interval.statuses.get(200, 0) for interval in intervals if begin < interval.end <= end)


def statuses(intervals: Iterable[Interval]) -> Counter[int]:
    """Return the number of responses by status; 0 is no response."""
    return sum((Counter(interval.statuses) for interval in intervals), Counter[int]())


class Probe(NamedTuple):
    """What a load of a rate has done."""

    rate: float
    """Requests a second that were to be sent."""
    answered_rate: float
    outbox_growth: float
    """Events a second."""
    unread_growth: float
    """Events a second."""
    too_slow: Sequence[str]
    """Which parts do not keep up, in the order in which an event meets them."""


def judge_probe(rate: float, samples: Sequence[Sample], intervals: Sequence[Interval]) -> Probe:
    """Return which parts do not keep up with a load."""
    judged = samples[last_two_thirds([sample.time for sample in samples])]
    times = [sample.time for sample in judged]
    # Whole intervals: the first one ends after the first sample, the last one before the last sample.
    ends = [interval.end for interval in intervals if times[0] <= interval.end <= times[-1]]
    seconds = ends[-1] - ends[0] if len(ends) > 1 else 0.0
    answered_rate = answered_between(intervals, ends[0], ends[-1]) / seconds if seconds else 0.0
    outbox = slope(times, [sample.outbox_events for sample in judged])
    unread = slope(times, [sample.unread_events for sample in judged])
    allowed = max(MAX_GROWTH * rate, MIN_GROWTH)
    refused = sum(count for status, count in statuses(intervals).items() if status != 200)
    growths = ((PREDICTOR, answered_rate < MIN_ANSWERED * rate or refused), (RELAY, outbox > allowed))
    too_slow = [part for part, is_behind in (*growths, (DRIFT_WORKER, unread > allowed)) if is_behind]
    return Probe(rate, answered_rate, outbox, unread, too_slow)


def find_limit(keeps_up: Callable[[float], bool], start: float, factor: float) -> float:
    """Return the highest rate that everything keeps up with, to within a factor; 0 if there is none.

    Args:
        keeps_up: Tries a rate.
        start: The rate to begin with, from where it goes up as long as everything keeps up, or else down.
        factor: Between two rates that are tried.
    """
    rate = start
    if keeps_up(rate):
        while keeps_up(rate * factor):
            rate *= factor
        return rate
    for _ in range(STEPS_DOWN):
        rate /= factor
        if keeps_up(rate):
            return rate
    return 0.0


def first_signs(rate: float, samples: Sequence[Sample], intervals: Sequence[Interval]) -> list[tuple[float, str]]:
    """Return when which part first showed that the load is too much for it, in that order.

    Args:
        rate: Requests a second.
        samples: From the beginning of the load to its end.
        intervals: Responses to it.

    Returns:
        Seconds since the beginning, and what was seen, in words.
    """
    begin = samples[0].time
    signs: dict[str, float] = {}
    for sample in samples:
        for topic, seconds in sample.lag_seconds.items():
            if seconds > LATE_SECONDS:
                signs.setdefault(f"events on {topic} are read more than {LATE_SECONDS:g} s late", sample.time - begin)
        if sample.outbox_seconds > LATE_SECONDS:
            signs.setdefault(f"events wait in an outbox for more than {LATE_SECONDS:g} s", sample.time - begin)
    last = begin
    for interval in intervals:
        seconds, last = interval.end - last, interval.end
        for status in interval.statuses:
            if status != 200:
                what = f"the predictor answers {status}" if status else "requests get no answer"
                signs.setdefault(what, interval.end - begin)
        if interval is not intervals[0] and interval is not intervals[-1]:
            if interval.statuses.get(200, 0) < MIN_ANSWERED * rate * seconds:
                signs.setdefault("the predictor answers fewer requests than are sent", interval.end - begin)
            if interval.milliseconds and np.percentile(interval.milliseconds, 99) > SLOW_MS:
                signs.setdefault(f"1 % of the answers take more than {SLOW_MS / 1e3:g} s", interval.end - begin)
    return sorted((seconds, what) for what, seconds in signs.items())
