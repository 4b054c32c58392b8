"""The gate: whether a challenger may be promoted. Pure: predictions and settings in, a decision out."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import BaseModel

from driftloop.evaluation.bootstrap import Interval, as_gain, detectable_difference, evaluate, paired_difference
from driftloop.evaluation.gate_settings import GateSettings
from driftloop.evaluation.metric import BUILT_IN_METRICS, Metric
from driftloop.evaluation.metric_names import choose_headline, format_interval, format_metric, metric_label
from driftloop.evaluation.metrics import FloatArray, IntArray, are_probabilities
from driftloop.evaluation.targets import Target
from driftloop.events import Evaluation
from driftloop.usecase import UseCase

BRIER = BUILT_IN_METRICS["brier"]
CALIBRATION_TOLERANCE = 0.0025  # in Brier score: the cost of being five points off everywhere, 0.05 squared


class Decision(NamedTuple):
    """The gate's decision with its explanation and the metrics of both models."""

    promote: bool
    explanation: str
    champion: dict[str, float]
    challenger: dict[str, float]
    reasons: tuple[str, ...] = ()
    """Every objection to the challenger; empty if it is promoted."""


class HoldoutPredictions(NamedTuple):
    """Outcomes of holdout rows, which neither model was trained on, and both models' predictions for them."""

    target: Target
    outcomes: FloatArray
    champion: FloatArray
    challenger: FloatArray
    blocks: IntArray
    """The block (such as the day) of each row, see :meth:`driftloop.usecase.UseCase.block_ids`."""
    block_days: int = 1
    subgroups: Mapping[str, npt.NDArray[np.object_]] = {}
    """Each row's value, by the columns whose subgroups are compared as well."""

    def subset(self, rows: npt.NDArray[np.bool_]) -> HoldoutPredictions:
        """Return the selected rows, without their subgroups."""
        return self._replace(
            outcomes=self.outcomes[rows],
            champion=self.champion[rows],
            challenger=self.challenger[rows],
            blocks=self.blocks[rows],
            subgroups={},
        )


class ServingTrial(BaseModel, frozen=True):
    """Signature and latency of one model, observed in a fresh process."""

    columns: dict[str, str]
    """The type of each input column, as text."""
    latency_seconds: dict[int, float]
    """The median processor time of a prediction, by its number of rows."""


class SmokeTestResult(BaseModel, frozen=True):
    """The result of loading and timing the challenger, and the champion if there is one, in a fresh process.

    An empty result raises no objection.
    """

    error: str | None = None
    """Why the challenger cannot be loaded or cannot predict; None if it can, or if that is not known."""
    exceeded_seconds: float | None = None
    """The time limit, if the test did not finish within it: the challenger could not be checked."""
    challenger: ServingTrial | None = None
    champion: ServingTrial | None = None
    output_changes: tuple[str, ...] = ()
    """Why clients that read the champion's predictions would misread the challenger's."""


def describe_holdout(
    use_case: UseCase, rows: pd.DataFrame, *, champion: FloatArray, challenger: FloatArray
) -> HoldoutPredictions:
    """Return holdout rows as they are compared.

    Args:
        use_case: Outcomes, blocks and subgroups.
        rows: Labelled rows that neither model was trained on.
        champion: The champion's predictions for them.
        challenger: The challenger's.
    """
    return HoldoutPredictions(
        target=use_case.target_type,
        outcomes=use_case.outcomes(rows),
        champion=champion,
        challenger=challenger,
        blocks=use_case.block_ids(rows[use_case.timestamp]),
        block_days=use_case.block_days,
        subgroups={column: rows[column].to_numpy(dtype=np.object_) for column in use_case.subgroup_columns},
    )


def evaluate_holdout(use_case: UseCase, rows: pd.DataFrame, predictions: FloatArray) -> Evaluation:
    """Evaluate a model's predictions for labelled rows that it was not trained on."""
    return evaluate(
        use_case.target_type,
        use_case.outcomes(rows),
        predictions,
        use_case.block_ids(rows[use_case.timestamp]),
        use_case.headline_metric,
    )


FIRST_VERSION = "the first version: there is no champion to compare it with"


def decide_first(smoke_test: SmokeTestResult, evaluation: Evaluation | None = None) -> Decision:
    """Decide without a champion: promote the version if it can serve at all.

    Args:
        smoke_test: Whether it can be loaded and can predict.
        evaluation: Its quality on a holdout, if there is one.
    """
    metrics = {name: estimate.value for name, estimate in evaluation.metrics.items()} if evaluation else {}
    if reasons := tuple(_serving_problems(smoke_test, np.inf)):
        return Decision(False, reasons[0], {}, metrics, reasons)
    explanation = FIRST_VERSION
    if evaluation is not None and (headline := choose_headline(evaluation.headline, metrics)) is not None:
        interval = format_interval(headline, evaluation.metrics[headline])
        explanation += (
            f"; {metric_label(headline)} {interval} on {evaluation.rows:,} holdout rows of {evaluation.days} days"
        )
    return Decision(True, explanation, {}, metrics)


def holdout_days(days: IntArray, settings: GateSettings) -> int:
    """Return how many of the latest days with outcomes form the holdout.

    A fraction of the rows is rounded to the nearest number of whole days.

    Args:
        days: The day of each labelled row.
        settings: Either a number of days or a fraction of the rows.
    """
    if settings.holdout_fraction is None:
        return settings.holdout_days
    rows_latest_first = np.unique(days, return_counts=True)[1][::-1]
    return 1 + int(np.abs(rows_latest_first.cumsum() / len(days) - settings.holdout_fraction).argmin())


def decide(
    metric: Metric, holdout: HoldoutPredictions, smoke_test: SmokeTestResult, settings: GateSettings
) -> Decision:
    """Compare a challenger with the champion. All objections are listed, not only the first.

    A gain is by how much the challenger is better: a higher ROC AUC, a lower RMSE or Brier score. Margins are absolute
    for metrics with a fixed range, such as ROC AUC, and relative to the champion's value for others, such as RMSE,
    which has the unit of the target.
    """
    champion, challenger = _metric(metric, holdout, "champion"), _metric(metric, holdout, "challenger")
    gain = _gain(metric, holdout, settings.confidence_level)
    limit = 0.0 if settings.test == "superiority" else 0.0 - settings.margin * _unit(metric, champion)
    rows, blocks = len(holdout.outcomes), len(np.unique(holdout.blocks))
    detectable = detectable_difference(gain, blocks, settings.confidence_level)
    comparison = (
        f"{metric_label(metric.name)} {format_metric(metric.name, challenger)} against the champion's "
        f"{format_metric(metric.name, champion)}, {_format_gain(metric, gain, settings.confidence_level)}, on "
        f"{rows:,} rows of {blocks} holdout {_block_name(holdout)}"
    )
    power = (
        f"; a difference of {format_metric(metric.name, detectable)} would be found in four of five comparisons of so "
        f"many {_block_name(holdout)}"
        if np.isfinite(detectable)
        else ""
    )
    reasons = (
        *_too_few_blocks(blocks, holdout, settings),
        *_invalid_predictions(holdout),
        *_insufficient_gain(metric, gain, limit, settings),
        *_worse_subgroups(metric, holdout, settings),
        *_worse_calibration(holdout, settings),
        *_signature_changes(smoke_test),
        *smoke_test.output_changes,
        *_serving_problems(smoke_test, settings.max_latency_ratio),
    )
    passed = f"{comparison}; the interval's lower end is above {_format_limit(limit, settings)}{power}"
    counts = {"rows": float(rows), "days": float(blocks)}
    return Decision(
        not reasons,
        f"{'; '.join(reasons)}. {comparison}{power}" if reasons else passed,
        _finite({metric.name: champion, **_brier(holdout, "champion"), **_latencies(smoke_test.champion), **counts}),
        _finite(
            {
                metric.name: challenger,
                "gain": gain.value,
                "gain_low": gain.low,
                "gain_high": gain.high,
                "detectable_gain": detectable,
                **_brier(holdout, "challenger"),
                **_latencies(smoke_test.challenger),
                **counts,
            }
        ),
        reasons,
    )


def _gain(metric: Metric, holdout: HoldoutPredictions, confidence: float) -> Interval:
    difference = paired_difference(
        metric, holdout.outcomes, holdout.champion, holdout.challenger, holdout.blocks, confidence=confidence
    )
    return as_gain(difference, lower_is_better=metric.lower_is_better)


def _unit(metric: Metric, champion: float) -> float:
    """Return what a margin is a multiple of."""
    return abs(champion) if metric.margin_is_relative else 1.0


def _too_few_blocks(blocks: int, holdout: HoldoutPredictions, settings: GateSettings) -> Iterator[str]:
    if blocks < settings.min_holdout_days:
        yield (
            f"the holdout has {blocks} {_block_name(holdout)}, and {settings.min_holdout_days} are needed: "
            f"{settings.min_holdout_days - blocks} more (DRIFTLOOP_GATE__MIN_HOLDOUT_DAYS)"
        )


def _invalid_predictions(holdout: HoldoutPredictions) -> Iterator[str]:
    finite = np.isfinite(holdout.challenger)
    invalid = int((~(finite if finite.ndim == 1 else finite.all(axis=1))).sum())
    if invalid:
        yield f"its prediction is not a finite number for {invalid:,} of {len(holdout.outcomes):,} rows"


def _insufficient_gain(metric: Metric, gain: Interval, limit: float, settings: GateSettings) -> Iterator[str]:
    if np.isnan(gain.value):
        yield f"{metric_label(metric.name)} is undefined on the holdout rows and their predictions"
    elif not gain.low > limit:
        yield (
            f"the lower end of the gain's interval, {format_metric(metric.name, gain.low, signed=True)}, is not above "
            f"{_format_limit(limit, settings)}"
        )


def _worse_subgroups(metric: Metric, holdout: HoldoutPredictions, settings: GateSettings) -> Iterator[str]:
    """Yield large subgroups for which the challenger is clearly worse.

    The more subgroups, the more of them look worse by chance: the confidence level is raised (Bonferroni) so that all
    their intervals together hold the truth as often as a single one should.
    """
    large = _large_subgroups(holdout, settings.subgroup_min_fraction)
    confidence = 1 - (1 - settings.confidence_level) / max(len(large), 1)
    for name, subgroup in large.items():
        champion, challenger = _metric(metric, subgroup, "champion"), _metric(metric, subgroup, "challenger")
        gain = _gain(metric, subgroup, confidence)
        if gain.high < -settings.subgroup_margin * _unit(metric, champion):
            yield (
                f"{name} is clearly worse: {metric_label(metric.name)} {format_metric(metric.name, challenger)} "
                f"against {format_metric(metric.name, champion)} on {len(subgroup.outcomes):,} rows, "
                f"{_format_gain(metric, gain, confidence)} since it is one of {len(large)} subgroups"
            )


def _large_subgroups(holdout: HoldoutPredictions, min_fraction: float) -> dict[str, HoldoutPredictions]:
    """Return the rows of each subgroup with at least ``min_fraction`` of all rows, by column and value."""
    large = {}
    for column, cells in holdout.subgroups.items():
        values = cells.astype(str)
        for value, rows in zip(*np.unique(values, return_counts=True), strict=True):
            if rows >= min_fraction * len(values):
                large[f"{column} {value}"] = holdout.subset(values == value)
    return large


def _worse_calibration(holdout: HoldoutPredictions, settings: GateSettings) -> Iterator[str]:
    champion, challenger = _brier(holdout, "champion"), _brier(holdout, "challenger")
    if not (champion and challenger):
        return
    gain = _gain(BRIER, holdout, settings.confidence_level)
    if gain.high < 0 and gain.value < -CALIBRATION_TOLERANCE:
        yield (
            f"its probabilities are clearly less accurate: Brier score {format_metric('brier', challenger['brier'])} "
            f"against {format_metric('brier', champion['brier'])}, "
            f"{_format_gain(BRIER, gain, settings.confidence_level)}"
        )


def _signature_changes(smoke_test: SmokeTestResult) -> Iterator[str]:
    """Yield changed input columns.

    A column that may be missing now, and could not be before, is no change: every earlier request is still valid.
    """
    if smoke_test.challenger is None or smoke_test.champion is None:
        return
    old, new = smoke_test.champion.columns, smoke_test.challenger.columns
    changes = [
        *(f"{column} is gone" for column in old if column not in new),
        *(f"{column} ({column_type}) is new" for column, column_type in new.items() if column not in old),
        *(
            f"{column} is {new[column]}, and was {column_type}"
            for column, column_type in old.items()
            if column in new and new[column] not in (column_type, f"{column_type} or missing")
        ),
    ]
    if changes:
        yield f"its columns are not the champion's: {', '.join(changes)}"


def _serving_problems(smoke_test: SmokeTestResult, max_latency_ratio: float) -> Iterator[str]:
    if smoke_test.exceeded_seconds is not None:
        yield (
            "it could not be checked in time whether it can serve: the smoke test did not finish within "
            f"{smoke_test.exceeded_seconds:g} s; try again with a higher "
            "DRIFTLOOP_GATE__SMOKE_TEST_TIMEOUT_SECONDS, or while the machine is less busy"
        )
    elif smoke_test.error is not None:
        yield f"it cannot serve: {smoke_test.error}"
    elif smoke_test.challenger is not None and smoke_test.champion is not None:
        for rows, seconds in smoke_test.challenger.latency_seconds.items():
            champion_seconds = smoke_test.champion.latency_seconds[rows]
            if seconds > max_latency_ratio * champion_seconds:
                yield (
                    f"a prediction of {rows} rows takes {seconds * 1000:.3g} ms, {seconds / champion_seconds:.1f} "
                    f"times the champion's {champion_seconds * 1000:.3g} ms, and at most {max_latency_ratio:g} times "
                    "is allowed (DRIFTLOOP_GATE__MAX_LATENCY_RATIO)"
                )


def _predictions(holdout: HoldoutPredictions, role: Literal["champion", "challenger"]) -> FloatArray:
    return holdout.champion if role == "champion" else holdout.challenger


def _metric(metric: Metric, holdout: HoldoutPredictions, role: Literal["champion", "challenger"]) -> float:
    return metric.compute(holdout.outcomes, _predictions(holdout, role))


def _brier(holdout: HoldoutPredictions, role: Literal["champion", "challenger"]) -> dict[str, float]:
    """Return the Brier score if the predictions are probabilities; labels and numbers have none."""
    predictions = _predictions(holdout, role)
    if holdout.target.classes is None or not are_probabilities(predictions):
        return {}
    return {"brier": _metric(BRIER, holdout, role)}


def _latencies(trial: ServingTrial | None) -> dict[str, float]:
    seconds_by_rows = trial.latency_seconds if trial is not None else {}
    return {f"milliseconds_{rows}_rows": seconds * 1000 for rows, seconds in seconds_by_rows.items()}


def _finite(metrics: dict[str, float]) -> dict[str, float]:
    """Drop undefined metrics: JSON has no NaN."""
    return {name: value for name, value in metrics.items() if np.isfinite(value)}


def _format_gain(metric: Metric, gain: Interval, confidence: float) -> str:
    return f"a gain of {format_interval(metric.name, gain, signed=True)} at {100 * confidence:.4g}%"


def _format_limit(limit: float, settings: GateSettings) -> str:
    """Return in words what the lower end of a gain's interval must be above."""
    meaning = ", the loss that is tolerated" if settings.test == "non_inferiority" else ""
    return f"{limit:.3g}{meaning} ({settings.test})"


def _block_name(holdout: HoldoutPredictions) -> str:
    return "days" if holdout.block_days == 1 else f"blocks of {holdout.block_days} days"
