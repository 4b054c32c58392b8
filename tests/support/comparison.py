"""Compare events on the topic with the predictions of their versions, and with the responses that the client got."""

from collections.abc import Iterable, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from driftloop.events import FeatureValue, Prediction
from tests.support import flights_model
from tests.support.flights_model import Row, SavedModel
from tests.support.load_client import Responses

TOLERANCE = 1e-12  # sums of the same numbers; a row's prediction does not depend on its batch
CHUNK_EVENTS = 20_000  # events that are predicted at once


class EventComparison(NamedTuple):
    """Counts of events and of their deviations."""

    events: int
    wrong_predictions: int
    """Events with a prediction that their version does not return for their features."""
    lost_events: int
    """Responses whose event is not on the topic."""
    duplicate_events: int
    mismatched_responses: int
    """Responses with another version, prediction or row than their event."""


def compare_events(
    events: Iterable[Prediction], versions: Mapping[str, SavedModel], responses: Responses, rows: Sequence[Row]
) -> EventComparison:
    """Compare each event with its version's own predictions and with its response.

    Args:
        events: All events on the topic.
        versions: The models that have served, by version.
        responses: What the client got.
        rows: The rows that the client sent, in the order of its request file.
    """
    successful = responses.status == 200
    features = [{name: [value] for name, value in row.items()} for row in rows]
    expected = {
        str(name): (str(version), [float(prediction)], features[row])
        for name, version, prediction, row in zip(
            responses.id[successful],
            responses.version[successful],
            responses.prediction[successful],
            responses.row[successful],
            strict=True,
        )
    }
    seen: set[str] = set()
    count = wrong = duplicates = mismatched = 0
    chunks: dict[str, list[Prediction]] = {version: [] for version in versions}
    for event in events:
        count += 1
        duplicates += event.id in seen
        seen.add(event.id)
        if event.id in expected:
            mismatched += expected[event.id] != (event.version, event.predictions, event.features)
        if event.version not in versions:
            wrong += 1
            continue
        chunks[event.version].append(event)
        if len(chunks[event.version]) == CHUNK_EVENTS:
            wrong += count_wrong_predictions(chunks[event.version], versions[event.version])
            chunks[event.version] = []
    wrong += sum(count_wrong_predictions(chunk, versions[version]) for version, chunk in chunks.items())
    return EventComparison(count, wrong, len(expected.keys() - seen), duplicates, mismatched)


def count_wrong_predictions(events: Sequence[Prediction], model: SavedModel) -> int:
    """Return how many events have a prediction that the model's pipeline does not return for their features."""
    if not events:
        return 0
    columns: dict[str, list[FeatureValue]] = {name: [] for name in events[0].features}
    for event in events:
        for name, values in event.features.items():
            columns[name] += values
    expected = model.predict_frame(flights_model.to_frame(columns, model.signature))
    published = np.array([score for event in events for score in event.predictions], dtype=float)
    is_wrong = np.abs(published - expected) > TOLERANCE
    event_numbers = np.repeat(np.arange(len(events)), [len(event.predictions) for event in events])
    return len(np.unique(event_numbers[is_wrong]))
