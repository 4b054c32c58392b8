"""Split the holdout off a training set, and check that it can decide between two models."""

from typing import NamedTuple

import pandas as pd

from driftloop.evaluation import gate
from driftloop.evaluation.gate_settings import GateSettings
from driftloop.usecase import UseCase
from trainer.retrain.training_set import InvalidTrainingData


class DataSplit(NamedTuple):
    """A training set, split for the gate."""

    train: pd.DataFrame
    holdout: pd.DataFrame
    """The latest labelled rows, which neither model has been trained on; a first version can be without."""
    everything: pd.DataFrame
    """Both, up to the last holdout row."""


def split_for_gate(
    use_case: UseCase,
    settings: GateSettings,
    rows: pd.DataFrame,
    trained_through: pd.Timestamp | None,
    *,
    with_archive: bool,
    note: str = "",
) -> DataSplit:
    """Split a training set for the gate.

    A first version has no champion to be compared with: without enough days for a holdout it is trained on all rows.

    Args:
        use_case: The use case.
        settings: How many days the holdout has.
        rows: The training set.
        trained_through: Time of the champion's last training row; ``None`` without a champion.
        with_archive: Whether the rows of the archive were selected, too.
        note: Ends the message of an error.

    Raises:
        InvalidTrainingData: There is no holdout that the champion has not seen.
    """
    days = use_case.day_ordinals(rows.loc[rows[use_case.target].notna(), use_case.timestamp])
    try:
        train, holdout = split(use_case, rows, gate.holdout_days(days, settings))
        require_two_classes(use_case, train)
        require_two_classes(use_case, holdout)
    except InvalidTrainingData as error:
        if trained_through is not None:
            raise InvalidTrainingData(f"{error}{note}") from error
        everything, nothing = split(use_case, rows, 0)
        return DataSplit(everything, nothing, everything)
    if trained_through is not None:
        try:
            require_unseen_holdout(use_case, holdout, trained_through, with_archive=with_archive)
        except InvalidTrainingData as error:
            raise InvalidTrainingData(f"{error}{note}") from error
    return DataSplit(train, holdout, rows[rows[use_case.timestamp] <= holdout[use_case.timestamp].max()])


def split(use_case: UseCase, rows: pd.DataFrame, holdout_days: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Return the rows to train on, and the labelled rows of the latest ``holdout_days`` days with outcomes.

    Rows after the last outcome belong to neither.

    Raises:
        InvalidTrainingData: No day would be left to train on.
    """
    days = use_case.local_dates(rows[use_case.timestamp])
    labelled = rows[use_case.target].notna()
    days_with_outcomes = sorted(days[labelled].unique())
    if len(days_with_outcomes) <= holdout_days:
        raise InvalidTrainingData(
            f"{len(days_with_outcomes)} days have outcomes, and the holdout needs {holdout_days} of them: at least "
            f"{holdout_days + 1 - len(days_with_outcomes)} more days are needed (DRIFTLOOP_GATE__HOLDOUT_DAYS)"
        )
    if holdout_days == 0:
        return rows[days <= days_with_outcomes[-1]], rows[:0]
    first_holdout_day = days_with_outcomes[-holdout_days]
    return rows[days < first_holdout_day], rows[(days >= first_holdout_day) & labelled]


def require_two_classes(use_case: UseCase, rows: pd.DataFrame) -> None:
    """Check that the labels differ.

    Raises:
        InvalidTrainingData: All labels are the same, so that neither training nor a metric is possible.
    """
    labels = rows[use_case.target].dropna()
    if labels.nunique() < 2:
        raise InvalidTrainingData(
            f"{use_case.target} has {labels.nunique()} different values in {len(labels)} labelled rows; two are needed"
        )


def require_unseen_holdout(
    use_case: UseCase, holdout: pd.DataFrame, trained_through: pd.Timestamp, *, with_archive: bool
) -> None:
    """Check that all holdout rows are later than the champion's training rows.

    Args:
        use_case: The use case.
        holdout: The latest labelled rows.
        trained_through: Time of the champion's last training row.
        with_archive: Whether the rows of the archive were selected, too.

    Raises:
        InvalidTrainingData: The champion was trained on rows of the holdout's time.
    """
    seen = int((holdout[use_case.timestamp] <= trained_through).sum())
    if not seen:
        return
    champion = f"the champion was trained on rows up to {trained_through:%Y-%m-%d %H:%M}"
    if seen < len(holdout):
        raise InvalidTrainingData(
            f"{champion}, and {seen} of {len(holdout)} holdout rows are not later: outcomes of later days are needed, "
            "or a shorter holdout (DRIFTLOOP_GATE__HOLDOUT_DAYS)"
        )
    if with_archive:
        raise InvalidTrainingData(
            f"{champion}, and no outcome of a later prediction is archived yet, so there is nothing to compare on: "
            "wait until the next windows are archived and their outcomes are reported"
        )
    raise InvalidTrainingData(
        f"{champion}, and no selected row with an outcome is later, so there is nothing to compare on: select the "
        "archive, or later rows of the base dataset"
    )
