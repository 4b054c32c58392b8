"""Choose among a use case's candidates: the best on later days than those it was fitted to. Pure."""

import math
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.errors import InvalidInput
from driftloop.evaluation.metric_names import format_metric, metric_label
from driftloop.privacy import NO_PRIVACY
from driftloop.usecase import UseCase

VALIDATION_FRACTION = 0.2
"""Fraction of the labelled rows, rounded to whole blocks of days, that candidates are compared on."""


DEFAULT = "default"
"""Name of the use case's own pipeline among its candidates."""


class NoCandidate(InvalidInput):
    """No candidate can be chosen; the message says what is wrong with each."""


class Selection(NamedTuple):
    """The candidate that was chosen, and how good all of them are."""

    name: str
    make_pipeline: Callable[[], Any]
    metric: str
    values: dict[str, float]
    """The metric by candidate; those that failed are not there."""
    errors: dict[str, str]
    """Why a candidate failed, by its name."""
    rows: int
    """Rows that they were compared on."""

    def __str__(self) -> str:
        """Return a sentence for people."""
        others = ", ".join(
            f"{name} {format_metric(self.metric, value)}" for name, value in self.values.items() if name != self.name
        )
        failed = "".join(f"; {name} failed: {error}" for name, error in self.errors.items())
        best = format_metric(self.metric, self.values[self.name])
        return (
            f"{self.name} has the best {metric_label(self.metric)} of {len(self.values)} candidates on {self.rows:,} "
            f"later rows: {best}{f' ({others})' if others else ''}{failed}"
        )


def choose(
    use_case: UseCase,
    rows: pd.DataFrame,
    train: Callable[[pd.DataFrame, Callable[[], Any]], Any],
    score: Callable[[Any, pd.DataFrame], npt.NDArray[np.float64]],
    describe_error: Callable[[Exception], str] = NO_PRIVACY.describe_error,
) -> Selection:
    """Fit each candidate to the earlier rows, and return the one with the best metric on the later ones.

    Args:
        use_case: Its pipelines and its metric.
        rows: The rows to train on, ordered by time; the holdout is not among them.
        train: Returns a fitted estimator of rows and a function that makes a pipeline.
        score: Returns an estimator's predictions of rows.
        describe_error: Returns an exception of a pipeline in words.

    Raises:
        NoCandidate: There are too few days, or every candidate failed.
    """
    labelled = rows[~np.isnan(use_case.outcomes(rows))]
    earlier, later = _split(use_case, labelled)
    candidates = {DEFAULT: use_case.make_pipeline, **use_case.candidates}
    metric, outcomes = use_case.headline_metric, use_case.outcomes(later)
    values: dict[str, float] = {}
    errors: dict[str, str] = {}
    for name, make_pipeline in candidates.items():
        try:
            value = metric.compute(outcomes, score(train(earlier, make_pipeline), later))
        except Exception as error:  # noqa: BLE001  # a pipeline is somebody else's code; the others may still work
            errors[name] = describe_error(error)
            continue
        if math.isfinite(value):
            values[name] = value
        else:
            errors[name] = f"{metric_label(metric.name)} is undefined"
    if not values:
        raise NoCandidate(f"no candidate can be used: {'; '.join(f'{name}: {errors[name]}' for name in errors)}")
    best = (min if metric.lower_is_better else max)(values, key=values.__getitem__)
    return Selection(best, candidates[best], metric.name, values, errors, len(later))


def run_metrics(selection: Selection) -> Mapping[str, float]:
    """Return the candidates' metrics by names that MLflow accepts."""
    return {f"candidate/{mlflow_name(name)}/{selection.metric}": value for name, value in selection.values.items()}


def run_params(selection: Selection) -> Mapping[str, str]:
    """Return the name of the chosen candidate, and the errors of those that failed, as parameters of a run."""
    errors = {f"candidate/{mlflow_name(name)}/error": error for name, error in selection.errors.items()}
    return {"candidate": selection.name, **errors}


def mlflow_name(name: str) -> str:
    """Return a name with only the characters that MLflow takes in the name of a metric."""
    return "".join(
        character if (character.isascii() and character.isalnum()) or character in "_-. :" else "_"
        for character in name
    )


def _split(use_case: UseCase, rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Divide labelled rows into earlier and later blocks of days."""
    blocks = use_case.block_ids(rows[use_case.timestamp])  # 0 is the latest
    sizes = np.bincount(blocks)
    if np.count_nonzero(sizes) < 2:
        raise NoCandidate(
            f"candidates are compared on later days, and {len(rows):,} labelled rows are of one block of days: more "
            "days are needed, or a use case without candidates"
        )
    fractions = sizes.cumsum() / len(rows)
    last_validation_block = int(np.abs(fractions[:-1] - VALIDATION_FRACTION).argmin())
    is_later = blocks <= max(last_validation_block, int(np.flatnonzero(sizes)[0]))
    return rows[~is_later], rows[is_later]
