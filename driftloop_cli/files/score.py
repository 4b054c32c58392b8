"""Score a Parquet file by one version, without the predictor; publish an event for each thousand rows, exactly once."""

from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
from pydantic_core import to_json

from driftloop.errors import InvalidInput
from driftloop.events import Label, Prediction, derived_event_id, new_event_id, now
from driftloop.kafka.codec import SerializedEvent, to_message
from driftloop.kafka.positioned_producer import PositionedProducer
from driftloop.kafka.transactional_producer import OutgoingMessage
from driftloop.privacy import NO_PRIVACY, Privacy
from driftloop.registry.labelling import Labelling, choose_labelling, most_probable, predict_labels
from driftloop.registry.loading import LoadedModel
from driftloop.registry.missing_values import declared_missing_values, tried_missing_values
from driftloop.registry.model_output import ModelOutput, describe_output
from driftloop.registry.model_registry import ModelRegistry
from driftloop.setting_values import MissingValues
from driftloop.settings import KafkaSettings, TopicsSettings
from driftloop_cli.files.model_rows import ModelRows, RowConverter
from driftloop_cli.files.scoring_job import (
    Chunk,
    JobFolder,
    ScoringJob,
    ScoringRefused,
    footer_digest,
    open_input,
    read_chunks,
)

EVENT_ROWS = 1_000
TRIED_ROWS = 512
"""The first rows, by which it is found out how labels are found."""
# A broker accepts messages of up to a megabyte, and kafka-python's limit is the same.
MAX_EVENT_BYTES = 900_000
ADDED_COLUMNS = ("prediction", "prediction_label", "prediction_id", "prediction_row")
SOURCE = "score"


class ScoringSummary(NamedTuple):
    """What a scoring job has done."""

    version: str
    rows: int
    rows_before: int
    """Rows that an earlier, interrupted run had scored."""


class Scorer:
    """Predicts for batches of rows with one loaded version, as the predictor does."""

    def __init__(self, loaded: LoadedModel, version: str, missing_values: MissingValues = "auto") -> None:
        """Find out what a missing value is to the model.

        Raises:
            ModelRejected: The signature cannot be used.
        """
        self._loaded = loaded
        self.converter = RowConverter(loaded.signature)
        self.classes: list[Label] | None = None
        """The classes of the probabilities in a prediction; known once rows were predicted for."""
        self._labelling: Labelling | None = None
        self._is_described = False
        names = self.converter.optional_object_columns
        known = declared_missing_values(loaded.estimator, list(self.converter.columns), names, missing_values)
        self.converter.missing_values = known
        if missing_values == "auto" and loaded.example is not None and set(names) - known.keys():
            example = self._example()
            tried = tried_missing_values(names, known, lambda name, values: self._try(example, name, values), version)
            self.converter.missing_values = {**tried, **known}

    def predict(self, rows: ModelRows) -> ModelOutput:
        """Return the output of the estimator's method that the model's description names.

        Raises:
            InvalidInput: The estimator fails for the rows, or does not return one valid prediction for each.
        """
        method = self._loaded.predict_fn
        count = len(next(iter(rows.values.values())))
        frame = rows.to_frame()
        try:
            returned = getattr(self._loaded.estimator, method)(frame)
        except Exception as error:  # an estimator is user code and may raise anything
            span = f"rows {rows.first_row + 1} to {rows.first_row + count}"
            raise InvalidInput(
                f"the model cannot score {span}: {type(error).__name__}: {error}{self._loaded.version_note}"
            ) from error
        output = ModelOutput.from_model(returned, method, count)
        if not self._is_described:
            self._describe(output, frame[:TRIED_ROWS])
        match self._labelling:
            case "most_probable":
                return output._replace(labels=most_probable(output, self.classes or []))
            case "predict":
                return output._replace(labels=predict_labels(self._loaded.estimator, frame))
        return output

    def _describe(self, output: ModelOutput, frame: pd.DataFrame | npt.NDArray[Any]) -> None:
        estimator, method = self._loaded.estimator, self._loaded.predict_fn
        self.classes = describe_output(estimator, method, output).classes
        self._labelling = choose_labelling(estimator, method, self.classes, frame)
        self._is_described = True

    def _example(self) -> pa.RecordBatch:
        example, columns = self._loaded.example, list(self.converter.columns)
        if isinstance(example, pd.DataFrame):
            return pa.RecordBatch.from_pandas(example.rename(columns=str).head(1), preserve_index=False)
        return pa.RecordBatch.from_arrays([pa.array(cells) for cells in np.asarray(example).T], names=columns)

    def _try(self, example: pa.RecordBatch, name: str, missing_values: Mapping[str, Any]) -> list[Any]:
        rows = self.converter.convert(example, 0)
        values = {**rows.values, name: pa.nulls(len(example), rows.values[name].type)}
        frame = rows._replace(values=values, missing_values=missing_values).to_frame()
        method = self._loaded.predict_fn
        return ModelOutput.from_model(getattr(self._loaded.estimator, method)(frame), method, len(example)).to_lists()


def score_file(
    input_file: Path,
    output_file: Path,
    registry: ModelRegistry,
    kafka: KafkaSettings,
    topics: TopicsSettings,
    version: str | None,
    key: str | None,
    missing_values: MissingValues,
    report_progress: Callable[[int, int], None],
    privacy: Privacy = NO_PRIVACY,
) -> ScoringSummary:
    """Score a file, or go on with a job that was interrupted.

    Args:
        input_file: The rows.
        output_file: Gets the rows with their predictions.
        registry: Where the version is.
        kafka: How to reach the broker.
        topics: The names of the topics.
        version: The version to score with; by default the one in service, or of an interrupted job its own.
        key: The column with the rows' own keys, which outcomes may name.
        missing_values: What a null in a column of texts or booleans is to the model.
        report_progress: Called with the number of rows that are done, and of all rows.
        privacy: What becomes of private values in events; the output has the file's own.

    Raises:
        InvalidInput: The file cannot be scored by the version.
        ScoringRefused: The job cannot begin or go on.
        ModelRejected: The version cannot be loaded.
        DependencyUnavailable: Broker or registry do not answer; call it again to go on.
    """
    file, folder = open_input(input_file), JobFolder(output_file)
    if clashes := set(ADDED_COLUMNS) & set(file.schema_arrow.names):
        raise InvalidInput(f"{input_file} has columns of the names that the output adds: {', '.join(sorted(clashes))}")
    if key is not None:
        require_key_column(file.schema_arrow, key)
    with folder.locked():
        job = _find_job(folder, input_file, registry, version, key)
        scorer = Scorer(registry.load(job.version), job.version, missing_values)
        scorer.converter.require_columns(file.schema_arrow)
        privacy.require_features(scorer.converter.columns, f"version {job.version}")
        name = f"driftloop-score-{job.id}"
        with closing(PositionedProducer(kafka, name, "driftloop-score", topics.predictions)) as producer:
            job = _announce(job, folder, producer)
            rows_before = producer.position or 0
            report_progress(rows_before, file.metadata.num_rows)
            for done in _score_chunks(scorer, job, read_chunks(file, rows_before), folder, producer, topics, privacy):
                report_progress(done, file.metadata.num_rows)
        metadata = {"driftloop.model": job.model, "driftloop.version": job.version}
        folder.write_output(read_chunks(file), metadata)
    return ScoringSummary(job.version, file.metadata.num_rows, rows_before)


def _find_job(
    folder: JobFolder, input_file: Path, registry: ModelRegistry, version: str | None, key: str | None
) -> ScoringJob:
    """Return the interrupted job, or a new one that is stored already."""
    digest, job = footer_digest(input_file), folder.read()
    if job is None:
        version = version or registry.champion()
        if version is None:
            raise ScoringRefused(f"{registry.model} has no version in service: name one with --version")
        job = ScoringJob(
            id=new_event_id(), started_at=now(), input_digest=digest, model=registry.model, version=version, key=key
        )
        folder.write(job)
    if job.input_digest != digest:
        raise ScoringRefused(f"{input_file} has changed since it was scored in part: {folder.how_to_restart}")
    if version not in (None, job.version) or key != job.key:
        with_key = f" and the key {job.key}" if job.key else ""
        raise ScoringRefused(f"the file was scored in part by version {job.version}{with_key}: {folder.how_to_restart}")
    return job


def _announce(job: ScoringJob, folder: JobFolder, producer: PositionedProducer) -> ScoringJob:
    """Commit a first position, so that one that is missing later is known to be forgotten."""
    if job.is_announced:
        if producer.position is None:
            raise ScoringRefused(
                "the broker has forgotten how many events were published, as it does after some days "
                f"(offsets.retention.minutes): {folder.how_to_restart}"
            )
        return job
    if producer.position is None:
        producer.commit([], 0)
    announced = job.model_copy(update={"is_announced": True})
    folder.write(announced)
    return announced


def _score_chunks(
    scorer: Scorer,
    job: ScoringJob,
    chunks: Iterator[Chunk],
    folder: JobFolder,
    producer: PositionedProducer,
    topics: TopicsSettings,
    privacy: Privacy,
) -> Iterator[int]:
    """Score and publish chunk by chunk; yield the number of rows that are done after each."""
    topic = topics.name_of(Prediction.topic)
    with ThreadPoolExecutor(1, "publisher") as executor:
        # One chunk is published while the next one is scored.
        publishing: Future[int] | None = None
        for chunk in chunks:
            predictions, events = score_chunk(scorer, job, chunk, privacy)
            folder.write_predictions(chunk, predictions)
            if publishing is not None:
                yield publishing.result()
            publishing = executor.submit(_publish, producer, topic, events, chunk.end)
        if publishing is not None:
            yield publishing.result()


def _publish(producer: PositionedProducer, topic: str, events: list[SerializedEvent], position: int) -> int:
    producer.commit((OutgoingMessage(topic, to_message(event, SOURCE)) for event in events), position)
    return position


def require_key_column(schema: pa.Schema, key: str) -> None:
    """Raise :class:`InvalidInput` unless a file has a column with keys: texts or integers."""
    if key not in schema.names:
        raise InvalidInput(f"there is no column {key}")
    kind = schema.field(key).type
    if not (pa.types.is_integer(kind) or pa.types.is_string(kind) or pa.types.is_large_string(kind)):
        raise InvalidInput(f"the column {key} has the type {kind}: a key is a text or an integer")


def score_chunk(
    scorer: Scorer, job: ScoringJob, chunk: Chunk, privacy: Privacy = NO_PRIVACY
) -> tuple[pa.Table, list[SerializedEvent]]:
    """Return the predictions of a chunk's rows, and the events that report them."""
    (batch,) = chunk.rows.combine_chunks().to_batches()
    rows = scorer.converter.convert(batch, chunk.start)
    output = scorer.predict(rows)
    scores, labels = output.scores(), output.labels
    own_keys = None if job.key is None else pc.cast(batch.column(job.key), pa.string()).to_pylist()
    keys = privacy.treat_keys(own_keys)
    events: list[SerializedEvent] = []
    ids: list[str] = []
    positions: list[int] = []
    time = now().isoformat()
    spans = [(start, min(start + EVENT_ROWS, len(scores))) for start in range(0, len(scores), EVENT_ROWS)]
    while spans:
        start, end = spans.pop(0)
        event_id = derived_event_id(job.started_at, job.id, str(chunk.start + start))
        value = to_json(
            {
                "id": event_id,
                "time": time,
                "model": job.model,
                "version": job.version,
                "features": privacy.treat_features(rows.to_lists(start, end)),
                "predictions": scores[start:end],
                "classes": scorer.classes,
                "labels": labels and labels[start:end],
                "keys": keys and keys[start:end],
            },
            inf_nan_mode="null",
        )
        if len(value) > MAX_EVENT_BYTES and end - start > 1:
            middle = (start + end) // 2
            spans[:0] = [(start, middle), (middle, end)]
            continue
        events.append(SerializedEvent(Prediction.type, event_id, time, event_id, value))
        ids += [event_id] * (end - start)
        positions += range(end - start)
    added = {"prediction": pa.array(scores)} | ({"prediction_label": pa.array(labels)} if labels else {})
    return pa.table({**added, "prediction_id": ids, "prediction_row": pa.array(positions, pa.int32())}), events
