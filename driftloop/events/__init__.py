"""The events of every topic. :mod:`driftloop.kafka.codec` turns them into Kafka messages and back.

A type only ever gains optional fields. Readers ignore fields that they do not know, so that events of every version
that was ever written stay readable. This package imports nothing else of the project.
"""

from driftloop.events.base import (
    Event,
    EventId,
    EventTime,
    FrozenModel,
    Topic,
    as_id_part,
    is_new_event_id,
    new_event_id,
    now,
    parse_iso_time,
)
from driftloop.events.predictions import (
    CLASSES_COLUMN,
    CONTEXT_COLUMN,
    ID_COLUMN,
    KEY_COLUMN,
    LABEL_COLUMN,
    MODEL_COLUMN,
    PREDICTION_COLUMN,
    RESERVED_COLUMNS,
    ROW_COLUMN,
    TIME_COLUMN,
    VERSION_COLUMN,
    ContextValue,
    FeatureValue,
    Label,
    Outcome,
    OutcomeValue,
    Prediction,
    PredictionValue,
    RowIndex,
    RowKey,
    frame_to_columns,
)
from driftloop.events.retrains import DataSelection, ModelStateChanged, RetrainRequest, RetrainRequested
from driftloop.events.windows import (
    DataQualityIssue,
    DriftVerdict,
    EstimateTrackRecord,
    Evaluation,
    Finding,
    MetricEstimate,
    QualityEstimate,
    QualityVerdict,
    Window,
    WindowEvent,
    verdict_id,
)

__all__ = [
    "CLASSES_COLUMN",
    "CONTEXT_COLUMN",
    "EVENTS",
    "ID_COLUMN",
    "KEY_COLUMN",
    "LABEL_COLUMN",
    "MODEL_COLUMN",
    "PREDICTION_COLUMN",
    "RESERVED_COLUMNS",
    "ROW_COLUMN",
    "TIME_COLUMN",
    "VERSION_COLUMN",
    "ContextValue",
    "DataQualityIssue",
    "DataSelection",
    "DriftVerdict",
    "EstimateTrackRecord",
    "Evaluation",
    "Event",
    "EventId",
    "EventTime",
    "FeatureValue",
    "Finding",
    "FrozenModel",
    "Label",
    "MetricEstimate",
    "ModelStateChanged",
    "Outcome",
    "OutcomeValue",
    "Prediction",
    "PredictionValue",
    "QualityEstimate",
    "QualityVerdict",
    "RetrainRequest",
    "RetrainRequested",
    "RowIndex",
    "RowKey",
    "Topic",
    "Window",
    "WindowEvent",
    "as_id_part",
    "frame_to_columns",
    "is_new_event_id",
    "new_event_id",
    "now",
    "parse_iso_time",
    "verdict_id",
]

EVENTS: dict[str, type[Event]] = {
    event.type: event
    for event in (
        Prediction,
        Outcome,
        DriftVerdict,
        QualityVerdict,
        QualityEstimate,
        RetrainRequested,
        ModelStateChanged,
    )
}
"""Every type of event by its name in the CloudEvents envelope."""
