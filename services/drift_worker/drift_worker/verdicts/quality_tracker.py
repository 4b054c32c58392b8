"""How good the versions in service are by their outcomes, and how good they should be before these are known.

All of it is made of the archive: it is the same after a restart, and whichever worker judged the windows. An outcome
whose prediction is not archived yet counts as unmatched when its slice closes; later slices look for it again.
"""

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import structlog

from drift_worker import metrics
from drift_worker.settings import QualitySettings
from drift_worker.verdicts.window_judge import verdict_id
from drift_worker.windows import archive
from driftloop.evaluation.metrics import (
    MIN_DAYS,
    are_probabilities,
    unpaired_difference,
    estimate_performance,
    evaluate,
    roc_auc,
)
from driftloop.events import DriftVerdict, QualityEstimate, Evaluation, QualityVerdict, EstimateTrackRecord, Window
from driftloop.settings import TopicsSettings
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import NoReference, read_measured

log = structlog.get_logger(__name__)

READERS = 8  # files at once, so that a start with hundreds of them takes seconds
FEWEST_WINDOWS = 5  # a record of fewer is luck
ANSWERS = ["id", "row", "time", "model", "version", "prediction"]
OUTCOMES = ["id", "row", "time", "outcome"]
Floats = npt.NDArray[np.float64]


class Pooled(NamedTuple):
    """A version's rows whose outcomes are known, of the latest slices."""

    rows: pd.DataFrame
    windows: int


class QualityTracker:
    """Measures and estimates the quality of each version. What it has read of the archive is kept."""

    def __init__(self, bucket: Bucket, topics: TopicsSettings, settings: QualitySettings) -> None:
        """Nothing is read yet."""
        self._bucket = bucket
        self._settings = settings
        self._answers = RecentSlices(bucket, topics.predictions, settings.prediction_lookback_slices, ANSWERS, _answers)
        self._outcomes = RecentSlices(bucket, topics.outcomes, settings.outcome_lookback_slices, OUTCOMES, _outcomes)
        self._measured: dict[tuple[str, str], Evaluation | None] = {}
        self._errors: dict[tuple[str, str], dict[str, float]] | None = None

    def evaluate_slice(self, window: Window) -> list[QualityVerdict]:
        """What a slice of outcomes, which is in the archive, says of each version that it has outcomes of."""
        beside = self._look()
        slices = [one.name for one in self._outcomes.slices if one.partition == window.partition]
        slices = slices[: slices.index(window.name) + 1]
        recent = beside[beside["told_in"].isin(slices)]
        here = recent[recent["told_in"] == window.name]
        unmatched = int(here["model"].isna().sum())
        metrics.UNMATCHED_OUTCOMES.inc(unmatched)
        if unmatched:
            log.warning("outcomes without an archived prediction", window=window.name, outcomes=unmatched)
        found = []
        for model, version in here[["model", "version"]].dropna().drop_duplicates().itertuples(index=False):
            rows = recent[(recent["model"] == model) & (recent["version"] == version)]
            found.append(self._quality(window, str(model), str(version), self._pooled(rows, slices), unmatched))
        for quality in found:
            _show(quality)
        return found

    def estimate(self, verdict: DriftVerdict, predictions: pd.Series) -> QualityEstimate | None:
        """What the predictions of a window promise; ``None`` where they are too few or no probabilities."""
        probabilities = _numbers(predictions)
        if len(probabilities) < self._settings.min_rows or not are_probabilities(probabilities):
            return None
        if self._errors is None:  # the first one since the start
            self._look()
        record = self._record(verdict)
        trusted, why = self._trust(record)
        estimate = QualityEstimate(
            id=f"{verdict_id(verdict.window, verdict.model, verdict.version)}/estimate",
            window=verdict.window,
            model=verdict.model,
            version=verdict.version,
            rows=len(probabilities),
            first_prediction_at=verdict.first_prediction_at,
            last_prediction_at=verdict.last_prediction_at,
            metrics=estimate_performance(probabilities),
            track_record=record,
            trusted=trusted,
            explanation=why,
        )
        for name, value in estimate.metrics.items():
            metrics.QUALITY_ESTIMATE.labels(estimate.model, estimate.version, name).set(value)
        if record.mean_error is not None:
            metrics.QUALITY_ESTIMATE_BIAS.labels(estimate.model, estimate.version, "roc_auc").set(record.mean_error)
        return estimate

    def _look(self) -> pd.DataFrame:
        """The latest outcomes, each beside its prediction if there is one; of a row's outcomes the last known."""
        outcomes = self._outcomes.refresh()
        answers = self._answers.refresh() if len(outcomes) else self._answers.rows  # where none come, none are read
        known = outcomes.sort_values("told", kind="stable").drop_duplicates("key", keep="last")
        beside = known.merge(answers.drop_duplicates("key"), on="key", how="left")
        self._errors = {}
        for (model, version), of_version in beside.groupby(["model", "version"]):
            self._errors[str(model), str(version)] = self._errors_of(of_version)
        return beside

    def _errors_of(self, rows: pd.DataFrame) -> dict[str, float]:
        """By how much the ROC AUC was estimated too high, by window of predictions, on its rows with an outcome."""
        sizes = rows.groupby("asked_in")["asked"].agg(["size", "max"])
        latest = (
            sizes[sizes["size"] >= self._settings.min_rows]
            .sort_values("max")
            .index[-self._settings.outcome_lookback_slices :]
        )
        errors = {}
        for name, window in rows[rows["asked_in"].isin(latest)].groupby("asked_in"):
            outcomes, predictions = window["outcome"].to_numpy(), window["prediction"].to_numpy()
            if np.isin(outcomes, (0, 1)).all() and are_probabilities(predictions):
                error = estimate_performance(predictions)["roc_auc"] - roc_auc(outcomes, predictions)
                if not np.isnan(error):
                    errors[str(name)] = error
        return errors

    def _record(self, verdict: DriftVerdict) -> EstimateTrackRecord:
        known = (self._errors or {}).get((verdict.model, verdict.version), {})
        errors = [error for name, error in known.items() if name != verdict.window.name]
        if not errors:
            return EstimateTrackRecord()
        return EstimateTrackRecord(
            windows=len(errors),
            mean_error=float(np.mean(errors)),
            mean_absolute_error=float(np.mean(np.abs(errors))),
        )

    def _trust(self, record: EstimateTrackRecord) -> tuple[bool, str]:
        if record.mean_error is None or record.windows < FEWEST_WINDOWS:
            return False, f"the outcomes of {record.windows} windows are known, and {FEWEST_WINDOWS} are needed"
        limit = self._settings.max_estimate_error
        trusted = abs(record.mean_error) <= limit
        return trusted, (
            f"estimates of the ROC AUC of {record.windows} windows were off by {record.mean_error:+.3f} on average, "
            f"{'within' if trusted else 'more than'} {limit:g}"
        )

    def _pooled(self, rows: pd.DataFrame, slices: list[str]) -> Pooled:
        """As few of the latest slices as it takes to have enough rows and days; where days are short, enough rows."""
        days = _days(rows)
        age = len(slices) - 1 - rows["told_in"].map({name: n for n, name in enumerate(slices)}).to_numpy()
        enough_rows = None
        for windows in range(1, len(slices) + 1):
            chosen = age < windows
            if chosen.sum() < self._settings.min_rows:
                continue
            enough_rows = enough_rows or Pooled(rows[chosen], windows)
            if len(np.unique(days[chosen])) >= self._settings.min_days:
                return Pooled(rows[chosen], windows)
        everything = Pooled(rows, len(slices))
        return everything if len(np.unique(days)) >= MIN_DAYS else enough_rows or everything

    def _quality(self, window: Window, model: str, version: str, pooled: Pooled, unmatched: int) -> QualityVerdict:
        rows = pooled.rows
        base = QualityVerdict(
            id=verdict_id(window, model, version),
            window=window,
            windows=pooled.windows,
            model=model,
            version=version,
            rows=len(rows),
            unmatched=unmatched,
            first_prediction_at=rows["asked"].min().to_pydatetime(),
            last_prediction_at=rows["asked"].max().to_pydatetime(),
            verdict="inconclusive",
            explanation="",
        )
        if len(rows) < self._settings.min_rows:
            why = f"too few rows: {len(rows)} with an outcome, and {self._settings.min_rows} are needed"
            return base.model_copy(update={"why": why})
        if rows["prediction"].isna().any():
            return base.model_copy(update={"why": "its predictions are not one number a row"})
        found = evaluate(rows["outcome"].to_numpy(), rows["prediction"].to_numpy(), _days(rows))
        try:
            measured = self._by_gate(model, version)
        except NoReference as error:
            return base.model_copy(update={"found": found, "why": str(error)})
        verdict, why = compare_with_gate(found, measured)
        return base.model_copy(update={"found": found, "measured": measured, "verdict": verdict, "why": why})

    def _by_gate(self, model: str, version: str) -> Evaluation | None:
        if (model, version) not in self._measured:  # it is there before the version's first answer, or never
            self._measured[model, version] = read_measured(self._bucket, model, version)
        return self._measured[model, version]


class RecentSlices:
    """The latest archived rows of a topic, so many slices of each partition. A file is read once."""

    def __init__(
        self,
        bucket: Bucket,
        topic: str,
        slices: int,
        columns: list[str],
        made_of: Callable[[pd.DataFrame, str], pd.DataFrame],
    ) -> None:
        """``made_of`` makes what is kept of a slice's ``columns`` and its name. Nothing is read yet."""
        self._bucket = bucket
        self._topic = topic
        self._slices = slices
        self._columns = columns
        self._made_of = made_of
        self._kept: dict[Window, pd.DataFrame] = {}
        self.rows = made_of(pd.DataFrame(columns=columns), "")
        """All that is kept, in order, as of the last look."""

    @property
    def slices(self) -> list[Window]:
        """The slices that were there at the last look, those of a partition in order."""
        return list(self._kept)

    def refresh(self) -> pd.DataFrame:
        """Reads what has come since the last look, forgets what is too old or was cleared."""
        by_partition: dict[int, list[Window]] = {}
        for name in self._bucket.names(f"events/{self._topic}/"):
            window = Window.parse(name)
            by_partition.setdefault(window.partition, []).append(window)
        latest = [window for windows in by_partition.values() for window in windows[-self._slices :]]
        new = [window for window in latest if window not in self._kept]
        if new or len(latest) < len(self._kept):
            with ThreadPoolExecutor(READERS) as readers:
                read = dict(zip(new, readers.map(self._read, new), strict=True))
            self._kept = {window: read[window] if window in read else self._kept[window] for window in latest}
            self.rows = pd.concat([self.rows[:0], *self._kept.values()], ignore_index=True)
        return self.rows

    def _read(self, window: Window) -> pd.DataFrame:
        try:
            rows = self._bucket.read_parquet(archive.slice_path(window), self._columns)
        except (FileNotFoundError, ValueError) as error:  # cleared since it was listed; or no file of ours
            log.warning("archived slice left out", window=window.name, error=str(error))
            rows = pd.DataFrame(columns=self._columns)
        return self._made_of(rows, window.name)


def compare_with_gate(
    found: Evaluation, measured: Evaluation | None
) -> tuple[Literal["consistent", "degraded", "improved", "inconclusive"], str]:
    """The verdict on what was found in service beside what the gate measured, and why."""
    name = next((name for name in ("roc_auc", "rmse") if name in found.metrics), None)
    if name is None:
        return "inconclusive", f"all outcomes of {found.rows:,} rows are the same"
    words = f"{told(name, found)} in service"
    if found.resampling_unit == "rows":
        words += f" (too few days to be drawn whole: {found.days}; rows were drawn, which makes intervals too narrow)"
    if measured is None or name not in measured.metrics:
        return "inconclusive", f"{words}; no gate has measured this version"
    by = unpaired_difference(found.metrics[name], measured.metrics[name])
    words += (
        f", {told(name, measured)} at the gate: a difference of {by.value:+.3f} [{by.low:+.3f}, {by.high:+.3f}] at 95%"
    )
    if by.low <= 0 <= by.high:
        return "consistent", words
    return ("improved" if (by.low > 0) == (name == "roc_auc") else "degraded"), words


def told(name: str, measurement: Evaluation) -> str:
    """A figure in words."""
    figure = measurement.metrics[name]
    label = {"roc_auc": "ROC AUC", "rmse": "RMSE"}[name]
    return (
        f"{label} {figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}] on {measurement.rows:,} rows of "
        f"{measurement.days} days"
    )


def _show(quality: QualityVerdict) -> None:
    version = (quality.model, quality.version)
    if quality.in_service:
        metrics.QUALITY_END.labels(*version).set(quality.last_prediction_at.timestamp())
    for name, figure in quality.in_service.metrics.items() if quality.in_service else ():
        metrics.QUALITY.labels(*version, name).set(figure.value)
        metrics.QUALITY_LOW.labels(*version, name).set(figure.low)
        metrics.QUALITY_HIGH.labels(*version, name).set(figure.high)
    for name, figure in quality.at_gate.metrics.items() if quality.at_gate else ():
        metrics.QUALITY_AT_GATE.labels(*version, name).set(figure.value)
        metrics.QUALITY_AT_GATE_LOW.labels(*version, name).set(figure.low)
        metrics.QUALITY_AT_GATE_HIGH.labels(*version, name).set(figure.high)
    log.info(
        "quality",
        event_id=quality.id,
        window=quality.window.name,
        version=quality.version,
        verdict=quality.verdict,
        why=quality.explanation,
    )


def _answers(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "key": _keys(rows),
            "asked": rows["time"].astype("datetime64[ns, UTC]"),
            "asked_in": pd.Series(name, index=rows.index, dtype=object),
            "model": rows["model"].astype(object),
            "version": rows["version"].astype(object),
            "prediction": _numbers(rows["prediction"]),
        }
    )


def _outcomes(rows: pd.DataFrame, name: str) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "key": _keys(rows),
            "told": rows["time"].astype("datetime64[ns, UTC]"),
            "told_in": pd.Series(name, index=rows.index, dtype=object),
            "outcome": rows["outcome"].astype(np.float64),
        }
    )


def _keys(rows: pd.DataFrame) -> npt.NDArray[np.uint64]:
    """Id and row as one number, an eighth of their size; of 64 bits, so that two of millions never share one."""
    of_ids = pd.util.hash_array(rows["id"].to_numpy(dtype=object))
    return np.asarray(of_ids + rows["row"].to_numpy(dtype=np.uint64), dtype=np.uint64)


def _numbers(predictions: pd.Series) -> Floats:
    """Missing where a prediction is not one number."""
    return pd.to_numeric(predictions, errors="coerce").to_numpy(dtype=np.float64)


def _days(rows: pd.DataFrame) -> npt.NDArray[np.int64]:
    """Days of UTC: nothing here knows where the model's own days begin."""
    return np.asarray(rows["asked"].astype(np.int64) // pd.Timedelta(days=1).value, dtype=np.int64)
