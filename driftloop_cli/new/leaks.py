"""Find columns that give the target away: a model of such a column alone is all but perfect."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.events import Label

SAMPLE_ROWS = 10_000
MIN_AUC = 0.99
"""ROC AUC of a column alone from which on it gives classes away; with more than two, the mean of each class's."""
MIN_R2 = 0.99
"""The same for numbers: the fraction of the target's variance that the column explains."""
MIN_ROWS = 100  # labelled rows below which any column may seem to know the target
MAX_LEAVES = 64  # enough to follow a line closely, and too few to learn single rows by heart
MIN_LEAF_ROWS = 5

FloatArray = npt.NDArray[np.float64]


def find_leaks(
    rows: pd.DataFrame, target: pd.Series, kinds: Mapping[str, FeatureKind], classes: Sequence[Label] | None
) -> dict[str, str]:
    """Return the columns that give the target away, with how well each does it alone, in words.

    A model of one column learns from every other row, and is judged on the rows between.

    Args:
        rows: The columns of a sample of rows, in order of time.
        target: The target of these rows.
        kinds: The kind of each column; free texts are not looked at.
        classes: The target's classes; ``None`` for a number.
    """
    labelled = target.notna()
    rows, target = rows[labelled], target[labelled]
    if len(rows) < MIN_ROWS:
        return {}
    found = {}
    for name, kind in kinds.items():
        if kind == "text":
            continue
        values = _level_codes(rows[name]) if kind in ("category", "boolean") else _numbers(rows[name])
        if classes is None:
            score = _explained_variance(values, target.to_numpy(np.float64), by_level=kind == "category")
            if score >= MIN_R2:
                found[name] = f"it alone explains {score:.1%} of the target's variance"
        elif (score := _mean_auc(values, target, classes, by_level=kind == "category")) >= MIN_AUC:
            found[name] = f"it alone tells the target (ROC AUC {score:.3f})"
    return found


def _mean_auc(values: FloatArray, target: pd.Series, classes: Sequence[Label], *, by_level: bool) -> float:
    """Return the mean ROC AUC of classes against the others; of two classes, that of the second."""
    from sklearn.metrics import roc_auc_score  # noqa: PLC0415  # takes seconds to import

    aucs = []
    for label in classes[1:] if len(classes) == 2 else classes:
        is_class = (target == label).to_numpy().astype(np.float64)
        if is_class[::2].any() and 0 < is_class[1::2].sum() < len(is_class[1::2]):
            predicted = _predict_other_half(values, is_class, by_level=by_level)
            aucs.append(float(roc_auc_score(is_class[1::2], predicted)))
    return float(np.mean(aucs)) if aucs else 0.0


def _explained_variance(values: FloatArray, target: FloatArray, *, by_level: bool) -> float:
    judged = target[1::2]
    residual = judged - _predict_other_half(values, target, by_level=by_level)
    variance = judged.var()
    return float(1 - (residual**2).mean() / variance) if variance else 0.0


def _predict_other_half(values: FloatArray, target: FloatArray, *, by_level: bool) -> FloatArray:
    """Return predictions for the rows of odd positions, by a model of the others: means by level, or a tree."""
    from sklearn.tree import DecisionTreeRegressor  # noqa: PLC0415

    if by_level:
        means = pd.Series(target[::2]).groupby(values[::2]).mean()
        return np.asarray(pd.Series(values[1::2]).map(means).fillna(target[::2].mean()), dtype=np.float64)
    tree = DecisionTreeRegressor(max_leaf_nodes=MAX_LEAVES, min_samples_leaf=MIN_LEAF_ROWS, random_state=0)
    predicted: FloatArray = tree.fit(values[::2, None], target[::2]).predict(values[1::2, None])
    return predicted


def _level_codes(column: pd.Series) -> FloatArray:
    """Return a number for each level; missing values are a level of their own, -1."""
    return pd.factorize(column)[0].astype(np.float64)


def _numbers(column: pd.Series) -> FloatArray:
    """Return numbers, and datetimes as seconds; NaN for missing values, which a tree can split by, too."""
    if column.dtype.kind == "M":
        return np.asarray((column - pd.Timestamp(0)) / pd.Timedelta(seconds=1), dtype=np.float64)
    return column.to_numpy(np.float64, na_value=np.nan)
