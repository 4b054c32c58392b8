"""Events on the topic beside what their versions give offline, and beside what the client was answered."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from driftloop.events import FeatureValue, Prediction
from tests.support import flights_model
from tests.support.flights_model import Row, Saved
from tests.support.load_client import Responses

TOLERANCE = 1e-12  # sums of the same numbers; a row's do not depend on its batch
CHUNK_EVENTS = 20_000  # events that are compared at once


class EventComparison(NamedTuple):
    """Events on the topic beside the versions' own predictions, and beside the answers."""

    events: int
    wrong_predictions: int
    """Events with a prediction that the version they name does not give for their features."""
    lost_events: int
    """Answers whose event is not on the topic."""
    duplicate_events: int
    mismatched_responses: int
    """Answers that name another version or prediction than their event, or were asked about another row."""


def compare_events(
    events: Iterable[Prediction], versions: Mapping[str, Saved], answers: Responses, rows: Sequence[Row]
) -> EventComparison:
    """Each event with its version's own predictions, and with its answer, which was asked about one of ``rows``."""
    good = answers.status == 200
    asked = [{name: [cell] for name, cell in row.items()} for row in rows]
    answered = {
        str(name): (str(version), [float(prediction)], asked[row])
        for name, version, prediction, row in zip(
            answers.id[good], answers.version[good], answers.prediction[good], answers.row[good], strict=True
        )
    }
    seen: set[str] = set()
    count = wrong = doubled = differ = 0
    waiting: dict[str, list[Prediction]] = {version: [] for version in versions}
    for event in events:
        count += 1
        doubled += event.id in seen
        seen.add(event.id)
        if event.id in answered:
            differ += answered[event.id] != (event.version, event.predictions, event.features)
        if event.version not in versions:
            wrong += 1
            continue
        waiting[event.version].append(event)
        if len(waiting[event.version]) == CHUNK_EVENTS:
            wrong += count_wrong_predictions(waiting[event.version], versions[event.version])
            waiting[event.version] = []
    wrong += sum(count_wrong_predictions(rest, versions[version]) for version, rest in waiting.items())
    return EventComparison(count, wrong, len(answered.keys() - seen), doubled, differ)


def count_wrong_predictions(events: Sequence[Prediction], saved: Saved) -> int:
    """Events whose predictions are not what the pipeline gives for their features."""
    if not events:
        return 0
    columns: dict[str, list[FeatureValue]] = {name: [] for name in events[0].features}
    for event in events:
        for name, cells in event.features.items():
            columns[name] += cells
    right = saved.of(flights_model.frame(columns, saved.signature))
    said = np.array([score for event in events for score in event.predictions], dtype=float)
    off = np.abs(said - right) > TOLERANCE
    rows = np.repeat(np.arange(len(events)), [len(event.predictions) for event in events])
    return len(np.unique(rows[off]))
