"""Quality and differences in it, how sure they are, and what probabilities promise."""

import math
from collections.abc import Callable
from itertools import pairwise, product

import numpy as np
import pytest
from scipy import stats
from sklearn.metrics import accuracy_score, brier_score_loss, roc_auc_score, root_mean_squared_error

from driftloop.evaluation.metrics import (
    BINS,
    Floats,
    Ints,
    Name,
    are_probabilities,
    difference,
    expected,
    figure_of,
    measure,
    paired_difference,
    roc_auc,
)
from driftloop.events import Figure

RANDOM = np.random.default_rng(1)


def flights(days: int, rows: int, random: np.random.Generator = RANDOM) -> tuple[Floats, Floats, Ints]:
    """Outcomes and predictions of days whose luck no feature tells."""
    day = np.repeat(np.arange(days), rows)
    logit = random.normal(-1, 1, days * rows)
    luck = random.normal(0, 1, days)[day]
    strength = 1 + random.normal(0, 0.5, days)[day]
    outcomes = (random.random(days * rows) < 1 / (1 + np.exp(-(strength * logit + luck)))).astype(float)
    return outcomes, 1 / (1 + np.exp(-logit)), day


def calibration_error(outcomes: Floats, predictions: Floats, weights: Floats) -> float:
    """By its definition, a bin at a time; the bins are those of the rows as they came."""
    edges = [-np.inf, *np.quantile(predictions, np.arange(1, BINS) / BINS), np.inf]
    total = 0.0
    for low, high in pairwise(edges):
        mine = (predictions >= low) & (predictions < high)
        if weights[mine].sum():
            said = np.average(predictions[mine], weights=weights[mine])
            was = np.average(outcomes[mine], weights=weights[mine])
            total += weights[mine].sum() / weights.sum() * abs(said - was)
    return total


SLOWLY: dict[str, Callable[[Floats, Floats, Floats], float]] = {
    "roc_auc": lambda y, p, w: float(roc_auc_score(y, p, sample_weight=w)),
    "brier": lambda y, p, w: float(brier_score_loss(y, p, sample_weight=w)),
    "accuracy": lambda y, p, w: float(accuracy_score(y, p >= 0.5, sample_weight=w)),
    "calibration_error": calibration_error,
}
"""The same figures by scikit-learn and by definition."""


def rmse(outcomes: Floats, predictions: Floats, weights: Floats) -> float:
    return float(root_mean_squared_error(outcomes, predictions, sample_weight=weights))


@pytest.mark.parametrize("decimals", [16, 1], ids=["distinct", "ties"])
@pytest.mark.parametrize("name", SLOWLY)
def test_a_figure_and_its_interval_are_those_of_a_slow_bootstrap(name: str, decimals: int) -> None:
    outcomes, predictions, days = flights(days=8, rows=40)
    predictions = predictions.round(decimals)
    found = measure(outcomes, predictions, days, resamples=60)
    random = np.random.default_rng(0)
    drawn = random.multinomial(8, np.full(8, 1 / 8), size=60).astype(float)
    slow = [SLOWLY[name](outcomes, predictions, weights[days]) for weights in drawn]
    value = SLOWLY[name](outcomes, predictions, np.ones(len(days)))
    tail = stats.norm.cdf(-np.sqrt(8 / 7) * stats.t.ppf(0.975, 7))
    low, high = np.quantile(slow, [tail, 1 - tail])
    if name == "calibration_error":
        low, high = max(0.0, 2 * value - high), max(0.0, 2 * value - low)
    assert tuple(found.figures[name].model_dump().values()) == pytest.approx((value, low, high), abs=1e-12)
    assert (found.rows, found.days, found.drawn) == (320, 8, "days")


def test_numbers_are_measured_by_their_errors() -> None:
    predictions = RANDOM.normal(50, 20, 300)
    outcomes = predictions + RANDOM.normal(0, 5, 300)
    found = measure(outcomes, predictions, np.repeat(np.arange(10), 30))
    (figure,) = found.figures.values()
    assert figure.value == pytest.approx(root_mean_squared_error(outcomes, predictions), abs=1e-12)
    assert 4 < figure.low < figure.value < figure.high < 6


def test_what_cannot_be_known_is_left_out() -> None:
    found = measure(np.zeros(100), RANDOM.random(100), np.repeat(np.arange(10), 10))
    assert set(found.figures) == {"brier", "accuracy", "calibration_error"}


def test_one_row_is_measured() -> None:
    found = measure(np.ones(1), np.array([0.75]), np.zeros(1, dtype=np.int64))
    assert found.figures["brier"] == Figure(value=0.0625, low=0.0625, high=0.0625)


def test_rows_are_drawn_where_days_are_too_few_and_it_says_so() -> None:
    outcomes, predictions, days = flights(days=4, rows=250)
    found = measure(outcomes, predictions, days)
    assert (found.drawn, found.days) == ("rows", 4)
    drawn = [RANDOM.integers(1000, size=1000) for _ in range(500)]
    low, high = np.quantile([roc_auc(outcomes[rows], predictions[rows]) for rows in drawn], [0.025, 0.975])
    figure = found.figures["roc_auc"]
    assert (figure.high - figure.low) / (high - low) == pytest.approx(1, abs=0.25)


def test_intervals_hold_the_truth_about_as_often_as_they_say_where_days_share_their_luck() -> None:
    random = np.random.default_rng(2)
    outcomes, predictions, _ = flights(days=4000, rows=50, random=random)
    truth = roc_auc(outcomes, predictions)

    held = {"days": 0, "rows": 0}
    for _ in range(50):
        outcomes, predictions, days = flights(days=20, rows=60, random=random)
        for one in (days, np.zeros_like(days)):  # as if all were of one day: rows are drawn
            found = measure(outcomes, predictions, one, resamples=200)
            held[found.drawn] += found.figures["roc_auc"].low <= truth <= found.figures["roc_auc"].high
    assert held["days"] >= 43
    assert held["rows"] < 40


def test_calibrated_probabilities_may_have_no_calibration_error() -> None:
    predictions = RANDOM.beta(2, 5, 2000)
    days = np.repeat(np.arange(20), 100)

    def lows(outcomes: Callable[[], Floats]) -> list[float]:
        return [measure(outcomes(), predictions, days).figures["calibration_error"].low for _ in range(20)]

    assert np.median(lows(lambda: (RANDOM.random(2000) < predictions).astype(float))) < 0.005
    assert np.median(lows(lambda: (RANDOM.random(2000) < predictions / 2).astype(float))) > 0.1


def test_a_difference_of_two_measurements_is_as_unsure_as_both() -> None:
    found = difference(Figure(value=0.7, low=0.66, high=0.73), Figure(value=0.75, low=0.71, high=0.78))
    assert found == pytest.approx((-0.05, -0.05 - 0.05, -0.05 + 0.05))
    sure = Figure(value=0.75, low=0.75, high=0.75)
    assert difference(Figure(value=0.7, low=0.66, high=0.73), sure) == pytest.approx((-0.05, -0.09, -0.02))


def test_what_probabilities_promise_is_what_comes_of_all_outcomes_that_they_allow() -> None:
    probabilities = np.array([0.1, 0.3, 0.3, 0.6, 0.9])
    ways = [np.array(way, dtype=float) for way in product((0, 1), repeat=5)]
    chances = [float(np.prod(np.where(way == 1, probabilities, 1 - probabilities))) for way in ways]
    promised = expected(probabilities)
    for name in ("brier", "accuracy"):
        comes = sum(c * SLOWLY[name](way, probabilities, np.ones(5)) for c, way in zip(chances, ways, strict=True))
        assert promised[name] == pytest.approx(comes, abs=1e-12)
    pairs = [way.sum() * (5 - way.sum()) for way in ways]
    won = [n * roc_auc(way, probabilities) if n else 0.0 for n, way in zip(pairs, ways, strict=True)]
    assert promised["roc_auc"] == pytest.approx(np.dot(chances, won) / np.dot(chances, pairs), abs=1e-12)


def test_promises_of_right_probabilities_are_kept_and_those_of_a_changed_world_are_not() -> None:
    probabilities = RANDOM.beta(1, 3, 20_000)
    promised = expected(probabilities)
    days = np.repeat(np.arange(20), 1000)
    kept = measure((RANDOM.random(20_000) < probabilities).astype(float), probabilities, days).figures
    changed = measure((RANDOM.random(20_000) < (probabilities + 0.25) / 2).astype(float), probabilities, days).figures
    for name, promise in promised.items():
        assert promise == pytest.approx(kept[name].value, abs=0.015)
    assert promised["roc_auc"] > changed["roc_auc"].high + 0.05
    assert promised["brier"] < changed["brier"].low


@pytest.mark.parametrize(
    ("predictions", "can_be"),
    [([0.1, 0.9], True), ([0.0, 0.5, 1.0], True), ([0.0, 1.0], False), ([0.5, 1.1], False), ([0.5, np.nan], False)],
)
def test_what_can_be_probabilities(predictions: list[float], can_be: bool) -> None:
    assert are_probabilities(np.array(predictions)) is can_be


def test_roc_auc_of_a_perfect_and_of_an_inverted_order() -> None:
    outcomes = np.array([0.0, 0.0, 1.0, 1.0])
    assert roc_auc(outcomes, np.array([0.1, 0.2, 0.8, 0.9])) == 1.0
    assert roc_auc(outcomes, np.array([0.9, 0.8, 0.2, 0.1])) == 0.0


def test_roc_auc_of_one_class_is_unknown() -> None:
    assert math.isnan(roc_auc(np.ones(3), np.array([0.1, 0.2, 0.3])))


def rivals(days: int, rows: int, random: np.random.Generator) -> tuple[Floats, Floats, Floats, Ints]:
    """Outcomes, and the predictions of two models that are equally good in the long run; each has its good days."""
    outcomes, predictions, day = flights(days, rows, random)
    logit = np.log(predictions / (1 - predictions))

    def rival() -> Floats:
        strength = 1 + random.normal(0, 0.5, days)[day]
        scores: Floats = 1 / (1 + np.exp(-(strength * logit + random.normal(0, 0.5, len(logit)))))
        return scores

    return outcomes, rival(), rival(), day


@pytest.mark.parametrize("name", ["roc_auc", "brier", "rmse"])
def test_a_paired_difference_and_its_interval_are_those_of_a_slow_bootstrap(name: Name) -> None:
    outcomes, champion, challenger, days = rivals(8, 40, np.random.default_rng(4))
    slowly = rmse if name == "rmse" else SLOWLY[name]
    found = paired_difference(name, outcomes, champion, challenger, days + 700, level=0.9, resamples=60)
    drawn = np.random.default_rng(0).multinomial(8, np.full(8, 1 / 8), size=60).astype(float)
    slow = [slowly(outcomes, challenger, w[days]) - slowly(outcomes, champion, w[days]) for w in drawn]
    value = slowly(outcomes, challenger, np.ones(320)) - slowly(outcomes, champion, np.ones(320))
    half = stats.t.ppf(0.95, 7) * np.sqrt(8 / 7) * np.std(slow, ddof=1)
    assert found == pytest.approx((value, value - half, value + half), abs=1e-12)
    assert figure_of(name, outcomes, champion) == pytest.approx(slowly(outcomes, champion, np.ones(320)), abs=1e-12)


def test_the_interval_of_a_paired_difference_holds_the_truth_as_often_as_it_says_with_few_days() -> None:
    """The truth is 0. The interval of single rows is shown to say too much."""
    random = np.random.default_rng(3)
    held = {"days": 0, "rows": 0}
    for _ in range(100):
        outcomes, champion, challenger, days = rivals(12, 50, random)
        for drawn, blocks in (("days", days), ("rows", np.arange(600) % 100)):
            found = paired_difference("roc_auc", outcomes, champion, challenger, blocks, resamples=200)
            held[drawn] += found.low <= 0 <= found.high
    assert held["days"] >= 90
    assert held["rows"] < 75


def test_one_block_leaves_every_difference_possible() -> None:
    outcomes, champion, challenger, _ = rivals(4, 50, np.random.default_rng(5))
    found = paired_difference("brier", outcomes, champion, challenger, np.zeros(200, dtype=np.int64))
    assert (found.low, found.high) == (-math.inf, math.inf)
    assert math.isfinite(found.value)


def test_a_difference_that_rows_cannot_tell_is_unknown() -> None:
    _, champion, challenger, days = rivals(4, 50, np.random.default_rng(6))
    assert all(map(math.isnan, paired_difference("roc_auc", np.zeros(200), champion, challenger, days)))


def test_no_difference_between_a_model_and_itself() -> None:
    outcomes, champion, _, days = rivals(4, 100, np.random.default_rng(7))
    assert paired_difference("roc_auc", outcomes, champion, champion, days) == pytest.approx((0, 0, 0))
