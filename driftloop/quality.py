"""How good a model's predictions were or may be expected to be, and how sure that is. Pure."""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr, stdtrit

from driftloop.events import Figure, Measurement

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]

FEWEST_DAYS = 5  # drawn from fewer, an interval says next to nothing
GROUPS = 100  # that rows are dealt to where days are too few: the width is as of single rows, give or take 7 %
BINS = 10  # as in most papers that report a calibration error


class Interval(NamedTuple):
    """A difference, with the interval that its blocks leave it."""

    value: float
    low: float
    high: float


def roc_auc(outcomes: Floats, predictions: Floats) -> float:
    """Area under the ROC curve; NaN where all outcomes are the same."""
    won, pairs = _pairs(predictions, outcomes, 1 - outcomes)
    return won / pairs if pairs else float("nan")


def roc_auc_difference(
    outcomes: Floats,
    champion: Floats,
    challenger: Floats,
    blocks: Ints,
    *,
    level: float = 0.95,
    resamples: int = 500,
) -> Interval:
    """By how much the challenger's ROC AUC exceeds the champion's on the same rows.

    The interval is a percentile bootstrap that draws whole blocks (days): rows of a block share what the features do
    not say, and drawn one by one they would make the interval two to four times too narrow.
    """
    rows_of = [np.flatnonzero(blocks == block) for block in np.unique(blocks)]
    random = np.random.default_rng(0)
    drawn = np.empty(resamples)
    for i in range(resamples):
        rows = np.concatenate([rows_of[k] for k in random.integers(len(rows_of), size=len(rows_of))])
        drawn[i] = roc_auc(outcomes[rows], challenger[rows]) - roc_auc(outcomes[rows], champion[rows])
    tail = (1 - level) / 2
    low, high = np.nanquantile(drawn, [tail, 1 - tail])
    value = roc_auc(outcomes, challenger) - roc_auc(outcomes, champion)
    return Interval(value, float(low), float(high))


def are_probabilities(predictions: Floats) -> bool:
    """Whether these can be probabilities: between 0 and 1, and not all of them classes."""
    within = bool(((predictions >= 0) & (predictions <= 1)).all())
    return within and bool(((predictions > 0) & (predictions < 1)).any())


def measure(
    outcomes: Floats, predictions: Floats, days: Ints, *, level: float = 0.95, resamples: int = 2_000
) -> Measurement:
    """How good predictions were; a figure that the rows cannot tell (one outcome only: no ROC AUC) is left out.

    The intervals are of a bootstrap that draws whole days, see :func:`roc_auc_difference`, or rows where there are
    fewer than five. Each figure is made of sums by day (a ROC AUC: of the pairs won between two days), so a resample
    looks at no row. The percentiles are expanded as few days ask for (Hesterberg 2015, "What Teachers Should Know About
    the Bootstrap", 5.3): plain ones of 7 days held the truth 82 times in 100, these 90.
    The calibration error is the expected calibration error (Naeini, Cooper and Hauskrecht 2015) over bins of equally
    many rows (Nguyen and O'Connor 2015). It is never below 0, so chance makes it larger, and once more in a resample:
    its interval is reflected ("basic", Davison and Hinkley 1997, 5.2), the others' are percentiles.
    """
    different, block = np.unique(days, return_inverse=True)
    by_day = len(different) >= FEWEST_DAYS
    if not by_day:  # neighbours go to different groups
        block = np.arange(len(outcomes)) % GROUPS
    count = int(block.max()) + 1
    random = np.random.default_rng(0)
    weights = np.vstack([np.ones(count), random.multinomial(count, np.full(count, 1 / count), size=resamples)])
    tail = float(ndtr(np.sqrt(count / max(count - 1, 1)) * stdtrit(max(count - 1, 1), (1 - level) / 2)))
    figures: dict[str, Figure] = {}
    for name, of_each in _weighted(outcomes, predictions, block, weights).items():
        value = float(of_each[0])
        if np.isnan(value):
            continue
        low, high = np.nanquantile(of_each[1:], [tail, 1 - tail])
        if name == "calibration_error":
            low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
        figures[name] = Figure(value=value, low=low, high=high)
    return Measurement(rows=len(outcomes), days=len(different), drawn="days" if by_day else "rows", figures=figures)


def difference(one: Figure, other: Figure) -> Interval:
    """By how much a figure exceeds another one that was measured on other rows.

    From the two intervals alone (Newcombe 1998, method 10; as a general method Zou and Donner 2008).
    """
    value = one.value - other.value
    return Interval(
        value,
        value - float(np.hypot(one.value - one.low, other.high - other.value)),
        value + float(np.hypot(one.high - one.value, other.value - other.low)),
    )


def expected(probabilities: Floats) -> dict[str, float]:
    """What the figures of :func:`measure` would be if each probability were right: no outcome is needed.

    Confidence-based performance estimation, as NannyML published it (Białek, Kivimäki, Kuberski and Perrakis 2024,
    arXiv:2401.08348), without a calibration of its own. It cannot see that the relation of features to outcome has
    changed: the estimate then stays what it was. The ROC AUC is the expected number of pairs won among the expected
    number of pairs of different rows.
    """
    against = 1 - probabilities
    uncertain = probabilities * against
    won, pairs = _pairs(probabilities, probabilities, against)
    own = float(uncertain.sum())  # a row is no pair with itself, which counted as a draw
    expectations = {"brier": float(uncertain.mean()), "accuracy": float(np.maximum(probabilities, against).mean())}
    return {"roc_auc": (won - own / 2) / (pairs - own), **expectations} if pairs - own > 0 else expectations


def _pairs(scores: Floats, positive: Floats, negative: Floats) -> tuple[float, float]:
    """Pairs of a positive and a negative row in which the positive has the higher score, a draw half; and all pairs.

    Rows may be both, in part.
    """
    place = np.unique(scores, return_inverse=True)[1]
    ups, downs = np.bincount(place, positive), np.bincount(place, negative)
    return float(ups @ (np.cumsum(downs) - downs / 2)), float(ups.sum() * downs.sum())


def _weighted(outcomes: Floats, predictions: Floats, block: Ints, weights: Floats) -> Mapping[str, Floats]:
    """Each figure for each line of weights of the blocks."""
    count = weights.shape[1]
    rows = weights @ np.bincount(block, minlength=count)

    def mean(values: Floats) -> Floats:
        means: Floats = (weights @ np.bincount(block, values, count)) / rows
        return means

    if not (np.isin(outcomes, (0, 1)).all() and ((predictions >= 0) & (predictions <= 1)).all()):
        return {"rmse": np.sqrt(mean((predictions - outcomes) ** 2))}

    def by_block(groups: Ints, values: Floats) -> Floats:
        across = int(groups.max()) + 1
        sums = np.bincount(block * across + groups, values, count * across)
        return sums.astype(np.float64).reshape(count, across)

    place = np.unique(predictions, return_inverse=True)[1]
    ups, downs = by_block(place, outcomes), by_block(place, 1 - outcomes)
    won = ups @ (np.cumsum(downs, axis=1) - downs / 2).T
    pairs = (weights @ ups.sum(axis=1)) * (weights @ downs.sum(axis=1))
    inner = np.quantile(predictions, np.linspace(0, 1, BINS + 1)[1:-1])
    excess = weights @ by_block(np.searchsorted(inner, predictions, side="right"), predictions - outcomes)
    with np.errstate(invalid="ignore"):  # where all outcomes are the same
        area = ((weights @ won) * weights).sum(axis=1) / pairs
    return {
        "roc_auc": area,
        "brier": mean((predictions - outcomes) ** 2),
        "accuracy": mean(((predictions >= 0.5) == (outcomes == 1)).astype(np.float64)),
        "calibration_error": np.abs(excess).sum(axis=1) / rows,
    }
