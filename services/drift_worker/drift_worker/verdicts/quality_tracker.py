"""Judge the quality of versions by outcomes, and estimate it before the outcomes are known.

Everything is computed from the archive, so it is the same after a restart and whichever worker has judged the windows.
An outcome whose prediction is not archived yet counts as unmatched when its slice closes; later slices look for the
prediction again.
"""

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np
import pandas as pd
import structlog

from drift_worker import metrics
from drift_worker.verdicts.estimate_record import estimate_errors, is_trusted, track_record, tracked_metric
from drift_worker.verdicts.gate_comparison import GateComparison, compare_with_gate, headline_metric
from drift_worker.verdicts.matched_rows import (
    NO_KEY,
    OUTCOME_COLUMNS,
    PREDICTION_COLUMNS,
    known_last,
    name_rows,
    outcome_rows,
    prediction_rows,
)
from drift_worker.verdicts.scored_rows import score_rows, utc_days
from drift_worker.verdicts.window_judge import describe_failure
from drift_worker.windows.recent_slices import RecentSlices
from driftloop.errors import ERRORS_OF_VALUES
from driftloop.evaluation.bootstrap import MIN_DAYS, evaluate
from driftloop.evaluation.metrics import are_probabilities
from driftloop.evaluation.performance_estimation import estimate_performance
from driftloop.evaluation.quality_settings import QualitySettings
from driftloop.events import (
    MODEL_COLUMN,
    RUN_COLUMN,
    VERSION_COLUMN,
    DriftVerdict,
    Evaluation,
    QualityEstimate,
    QualityVerdict,
    Window,
    verdict_id,
)
from driftloop.settings import TopicsSettings
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import ReferenceUnavailable, load_gate_evaluation
from driftloop.telemetry import tracing

log = structlog.get_logger(__name__)

VERSION_COLUMNS = [MODEL_COLUMN, VERSION_COLUMN, RUN_COLUMN]
LISTING_INTERVAL_SECONDS = 10  # a listing takes tenths of a second, and outcomes come much later than predictions


class VersionKey(NamedTuple):
    """A version of a model, as its rows in memory name it."""

    model: str
    version: str
    run_id: str
    """Empty if it is not known."""


class PooledRows(NamedTuple):
    """A version's rows with outcomes, of the latest slices of outcomes."""

    rows: pd.DataFrame
    windows: int
    """The number of slices."""


class QualityTracker:
    """Judges and estimates the quality of each version. It keeps in memory what it has read from the archive."""

    def __init__(
        self,
        store: ObjectStore,
        topics: TopicsSettings,
        settings: QualitySettings,
        listing_interval_seconds: float = LISTING_INTERVAL_SECONDS,
    ) -> None:
        """Start without rows; the first evaluation or estimate reads the archive.

        Args:
            store: Where the archive is.
            topics: The names of the archived topics.
            settings: How much is looked at.
            listing_interval_seconds: How long predictions and outcomes that other workers archive may stay unknown.
        """
        self._store = store
        self._settings = settings
        self._predictions = RecentSlices(
            store,
            topics.predictions,
            settings.prediction_lookback_slices,
            PREDICTION_COLUMNS,
            prediction_rows,
            listing_interval_seconds,
        )
        self._outcomes = RecentSlices(
            store,
            topics.outcomes,
            settings.outcome_lookback_slices,
            OUTCOME_COLUMNS,
            outcome_rows,
            listing_interval_seconds,
        )
        self._gate_evaluations: dict[VersionKey, Evaluation | None] = {}
        self._errors_by_version: dict[VersionKey, dict[Window, float]] | None = None

    def on_predictions_archived(self, window: Window) -> None:
        """Note that this worker has archived a slice of predictions."""
        self._predictions.add(window)

    def on_partitions_moved(self) -> None:
        """Look at what is archived before the next evaluation: other workers may have had partitions of this one."""
        self._predictions.forget_listing()
        self._outcomes.forget_listing()

    def evaluate_slice(self, window: Window) -> list[QualityVerdict]:
        """Return a verdict on each version with outcomes in an archived slice of outcomes."""
        self._outcomes.add(window)
        joined = self._refresh(window)
        slices = [earlier.name for earlier in self._outcomes.slices if earlier.partition == window.partition]
        slices = slices[: slices.index(window.name) + 1]
        recent = joined[joined["outcome_slice"].isin(slices)]
        slice_rows = recent[recent["outcome_slice"] == window.name]
        unmatched = int(slice_rows[MODEL_COLUMN].isna().sum())
        metrics.UNMATCHED_OUTCOMES.inc(unmatched)
        if unmatched:
            log.warning("quality.outcomes_unmatched", window=window.name, outcomes=unmatched)
        verdicts = []
        for names in slice_rows[VERSION_COLUMNS].dropna().drop_duplicates().itertuples(index=False, name=None):
            is_version = (recent[VERSION_COLUMNS] == names).all(axis="columns")
            pooled = self._pool_rows(recent[is_version], slices)
            verdicts.append(self._judge_version(window, VersionKey(*map(str, names)), pooled, unmatched))
        for verdict in verdicts:
            _update_metrics(verdict)
        return verdicts

    def estimate(self, verdict: DriftVerdict, rows: pd.DataFrame) -> QualityEstimate | None:
        """Estimate the quality of a judged window's predictions from their probabilities alone.

        Return ``None`` if they are too few, if any is no probability, or if their values make the estimate itself fail.
        """
        try:
            return self._estimate(verdict, rows)
        except ERRORS_OF_VALUES:
            log.exception("quality.estimate_failed", window=verdict.window.name, version=verdict.version)
            return None

    def _estimate(self, verdict: DriftVerdict, rows: pd.DataFrame) -> QualityEstimate | None:
        if len(rows) < self._settings.min_rows:
            return None
        scored = score_rows(rows)
        probabilities = scored.predictions
        if scored.target.classes is None:
            return None
        if invalid := scored.invalid_predictions:
            name = verdict.window.name
            log.warning("quality.invalid_predictions", window=name, version=verdict.version, rows=invalid)
        if not are_probabilities(probabilities):
            return None
        if self._errors_by_version is None:  # the first estimate since the start
            self._refresh()
        key = VersionKey(verdict.model, verdict.version, verdict.run_id or "")
        record = track_record((self._errors_by_version or {}).get(key, {}), verdict.window)
        trusted, explanation = is_trusted(record, self._settings.max_estimate_error)
        estimate = QualityEstimate(
            id=f"{verdict_id(verdict.window, verdict.model, verdict.version, verdict.run_id)}/estimate",
            traceparent=tracing.current_traceparent(),
            window=verdict.window,
            model=verdict.model,
            version=verdict.version,
            run_id=verdict.run_id,
            rows=len(probabilities),
            first_prediction_at=verdict.first_prediction_at,
            last_prediction_at=verdict.last_prediction_at,
            metrics=estimate_performance(probabilities),
            track_record=record,
            trusted=trusted,
            explanation=explanation,
        )
        for name, value in estimate.metrics.items():
            metrics.QUALITY_ESTIMATE.labels(estimate.model, estimate.version, name).set(value)
        if record.mean_error is not None:
            bias = metrics.QUALITY_ESTIMATE_BIAS.labels(estimate.model, estimate.version, tracked_metric(probabilities))
            bias.set(record.mean_error)
        return estimate

    def _refresh(self, until: Window | None = None) -> pd.DataFrame:
        """Return the latest outcome of each row, joined with the row's prediction if the archive has it.

        Args:
            until: The last slice of outcomes of its partition that counts; by default all do.
        """
        self._outcomes.refresh(until)
        outcomes = self._outcomes.rows().sort_values("reported_at", kind="stable")
        if len(outcomes):  # else there is nothing to join: predictions are not read
            self._predictions.refresh()
        keys = outcomes["key_hash"][outcomes["key_hash"] != NO_KEY]
        outcomes = name_rows(outcomes, self._predictions.rows_with("key_hash", keys))
        latest_outcomes = known_last(outcomes).drop_duplicates("row_hash", keep="last")
        predictions = self._predictions.rows_with("row_hash", latest_outcomes["row_hash"])
        predictions = predictions.drop_duplicates("row_hash").drop(columns="key_hash")
        joined = latest_outcomes.merge(predictions, on="row_hash", how="left")
        self._errors_by_version = {}
        for names, version_rows in joined.groupby(VERSION_COLUMNS):
            judged = VersionKey(*map(str, names))
            try:
                self._errors_by_version[judged] = estimate_errors(
                    version_rows, self._settings.min_rows, self._settings.outcome_lookback_slices
                )
            except ERRORS_OF_VALUES:
                log.exception("quality.record_failed", model=judged.model, version=judged.version)
        return joined

    def _pool_rows(self, rows: pd.DataFrame, slices: list[str]) -> PooledRows:
        """Pool a version's rows of the fewest latest slices that have enough rows and days.

        If all slices have fewer days than intervals need, the fewest that have enough rows are pooled.
        """
        days = utc_days(rows)
        position = {name: index for index, name in enumerate(slices)}
        age = len(slices) - 1 - rows["outcome_slice"].map(position).to_numpy()
        enough_rows = None
        for windows in range(1, len(slices) + 1):
            is_selected = age < windows
            if is_selected.sum() < self._settings.min_rows:
                continue
            enough_rows = enough_rows or PooledRows(rows[is_selected], windows)
            if len(np.unique(days[is_selected])) >= self._settings.min_days:
                return PooledRows(rows[is_selected], windows)
        all_rows = PooledRows(rows, len(slices))
        return all_rows if len(np.unique(days)) >= MIN_DAYS else enough_rows or all_rows

    def _judge_version(self, window: Window, judged: VersionKey, pooled: PooledRows, unmatched: int) -> QualityVerdict:
        """Return the verdict on a version's pooled rows; it is the same whenever the window is judged.

        If their values make the judging itself fail, it is inconclusive: an error would end the worker at every start.
        """
        rows = pooled.rows
        verdict_of = partial(
            QualityVerdict,
            id=verdict_id(window, *judged),
            traceparent=tracing.current_traceparent(),
            window=window,
            windows=pooled.windows,
            model=judged.model,
            version=judged.version,
            run_id=judged.run_id or None,
            rows=len(rows),
            unmatched=unmatched,
            first_prediction_at=rows["predicted_at"].min().to_pydatetime(),
            last_prediction_at=rows["predicted_at"].max().to_pydatetime(),
        )
        if len(rows) < self._settings.min_rows:
            explanation = f"too few rows: {len(rows)} with an outcome of at least {self._settings.min_rows}"
            return verdict_of(verdict="inconclusive", reason="too_few_rows", explanation=explanation)
        try:
            return self._compare(window, judged, rows, verdict_of)
        except ERRORS_OF_VALUES as error:
            log.exception("quality.judging_failed", window=window.name, model=judged.model, version=judged.version)
            return verdict_of(verdict="inconclusive", reason="failed", explanation=describe_failure(error))

    def _compare(
        self, window: Window, judged: VersionKey, rows: pd.DataFrame, verdict_of: Callable[..., QualityVerdict]
    ) -> QualityVerdict:
        """Return the verdict on a version's rows compared with the gate's evaluation."""
        try:
            at_gate, gate_error = self._gate_evaluation(judged), None
        except ReferenceUnavailable as error:
            at_gate, gate_error = None, GateComparison("inconclusive", str(error), "unreadable_gate_evaluation")
        scored = score_rows(rows, at_gate.classes if at_gate else None)
        unknown_labels = scored.target.count_unknown(rows["outcome"])
        if unknown_labels:
            log.warning("quality.unknown_labels", window=window.name, version=judged.version, labels=unknown_labels)
        verdict_of = partial(verdict_of, unknown_labels=unknown_labels)
        if scored.invalid_predictions:
            explanation = "the predictions are not one number or label per row"
            return verdict_of(verdict="inconclusive", reason="invalid_predictions", explanation=explanation)
        known = scored.known()
        if not len(known.outcomes):
            explanation = f"the version knows none of the labels of {len(rows):,} outcomes"
            return verdict_of(verdict="inconclusive", reason="unknown_labels", explanation=explanation)
        headline = headline_metric(at_gate, scored.target)
        in_service = evaluate(scored.target, known.outcomes, known.predictions, known.days, headline)
        compared = gate_error or compare_with_gate(in_service, at_gate)
        return verdict_of(**compared._asdict(), in_service=in_service, at_gate=at_gate)

    def _gate_evaluation(self, judged: VersionKey) -> Evaluation | None:
        """Return the gate's evaluation of a version; it is stored before the version serves, or never."""
        if judged not in self._gate_evaluations:
            model, version, run_id = judged
            self._gate_evaluations[judged] = load_gate_evaluation(self._store, model, version, run_id=run_id)
        return self._gate_evaluations[judged]


def _update_metrics(verdict: QualityVerdict) -> None:
    version = (verdict.model, verdict.version)
    if verdict.in_service:
        metrics.QUALITY_END.labels(*version).set(verdict.last_prediction_at.timestamp())
        for name, estimate in verdict.in_service.metrics.items():
            metrics.QUALITY.labels(*version, name).set(estimate.value)
            metrics.QUALITY_LOW.labels(*version, name).set(estimate.low)
            metrics.QUALITY_HIGH.labels(*version, name).set(estimate.high)
    if verdict.at_gate:
        for name, estimate in verdict.at_gate.metrics.items():
            metrics.QUALITY_AT_GATE.labels(*version, name).set(estimate.value)
            metrics.QUALITY_AT_GATE_LOW.labels(*version, name).set(estimate.low)
            metrics.QUALITY_AT_GATE_HIGH.labels(*version, name).set(estimate.high)
    log.info(
        "quality.slice_judged",
        event_id=verdict.id,
        window=verdict.window.name,
        version=verdict.version,
        verdict=verdict.verdict,
        reason=verdict.reason,
        explanation=verdict.explanation,
    )
