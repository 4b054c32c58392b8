"""Any metric that versions may be compared by equals scikit-learn's, has the right direction, and is resampled."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score, f1_score, log_loss, roc_auc_score

from driftloop.errors import InvalidInput
from driftloop.evaluation.block_bootstrap import resample_blocks
from driftloop.evaluation.bootstrap import detectable_difference, evaluate, paired_difference
from driftloop.evaluation.metric import MAX_RESAMPLES, CostMatrix, CustomMetric, find_metric
from driftloop.evaluation.metrics import FloatArray, IntArray
from driftloop.evaluation.scorers import applicable_scorers
from driftloop.evaluation.targets import BINARY, NUMBER, Target

GRADES = Target(("good", "poor", "so-so"))
SEED = 5


def graded(rows: int = 400) -> tuple[FloatArray, FloatArray, FloatArray, IntArray]:
    """Return outcomes of three classes, good and poor probabilities, and days."""
    random = np.random.default_rng(SEED)
    good = random.dirichlet(np.ones(3) / 2, rows)
    outcomes = np.array([random.choice(3, p=line) for line in good], dtype=np.float64)
    poor = 0.5 * good + 0.5 / 3
    return outcomes, good, random.permutation(poor), np.arange(rows) // (rows // 10)


def test_scorers_of_several_classes_equal_scikit_learn() -> None:
    outcomes, good, _, _ = graded()
    labels = good.argmax(axis=1)
    for name, expected in {
        "roc_auc_ovr": roc_auc_score(outcomes, good, multi_class="ovr"),
        "neg_log_loss": log_loss(outcomes, good),
        "balanced_accuracy": balanced_accuracy_score(outcomes, labels),
        "f1_macro": f1_score(outcomes, labels, average="macro"),
    }.items():
        assert find_metric(name, GRADES).compute(outcomes, good) == pytest.approx(expected, abs=1e-12)


def test_built_in_metrics_of_several_classes_equal_their_definitions() -> None:
    outcomes, good, _, days = graded()
    metrics = evaluate(GRADES, outcomes, good, days).metrics
    truth = np.eye(3)[outcomes.astype(int)]
    assert metrics["brier"].value == pytest.approx(((good - truth) ** 2).sum(axis=1).mean(), abs=1e-12)
    assert metrics["log_loss"].value == pytest.approx(log_loss(outcomes, good), abs=1e-12)
    assert metrics["accuracy"].value == (good.argmax(axis=1) == outcomes).mean()
    assert 0 <= metrics["calibration_error"].value < 0.2


@pytest.mark.parametrize("target", [BINARY, GRADES, NUMBER], ids=["binary", "multiclass", "number"])
def test_every_applicable_scorer_is_found_under_its_own_and_its_reported_name(target: Target) -> None:
    names = applicable_scorers(target)
    assert len(names) > 10
    for name in names:
        metric = find_metric(name, target)
        assert metric.lower_is_better is name.startswith("neg_")
        assert find_metric(metric.name, target).name == metric.name


@pytest.mark.parametrize(
    ("name", "target"),
    [
        ("no_such_metric", BINARY),
        ("roc_auc", GRADES),
        ("r2", BINARY),
        ("f1_macro", NUMBER),
        ("adjusted_rand_score", NUMBER),
    ],
    ids=["unknown", "two classes only", "numbers only", "classes only", "clusters"],
)
def test_metric_that_does_not_apply_is_refused_with_those_that_do(name: str, target: Target) -> None:
    with pytest.raises(InvalidInput) as error:
        find_metric(name, target)
    assert name in str(error.value)
    assert applicable_scorers(target)[0] in str(error.value)


def test_default_metric_applies_to_its_target() -> None:
    assert [find_metric(None, target).name for target in (NUMBER, BINARY, GRADES)] == ["rmse", "roc_auc", "roc_auc_ovr"]


def test_paired_difference_of_any_scorer_finds_the_better_model() -> None:
    outcomes, good, poor, days = graded()
    for name in ("roc_auc_ovr", "balanced_accuracy"):
        assert paired_difference(find_metric(name, GRADES), outcomes, poor, good, days).low > 0
    assert paired_difference(find_metric("neg_log_loss", GRADES), outcomes, poor, good, days).high < 0


def test_recomputed_metric_equals_its_value_on_the_resampled_rows() -> None:
    outcomes, good, _, days = graded()
    metric = find_metric("balanced_accuracy", GRADES)
    bootstrap = resample_blocks(days, MAX_RESAMPLES + 20)
    values = metric.resampled(outcomes, good, bootstrap)
    assert np.isnan(values[MAX_RESAMPLES + 1 :]).all()
    rows = np.repeat(np.arange(len(days)), bootstrap.weights[3][days].astype(int))
    assert values[3] == balanced_accuracy_score(outcomes[rows], good[rows].argmax(axis=1))


def test_own_function_is_a_metric() -> None:
    spec = CustomMetric(
        "largest_error", lambda outcomes, predictions: float(np.abs(outcomes - predictions).max()), False
    )
    metric = find_metric(spec, NUMBER)
    assert (metric.name, metric.lower_is_better) == ("largest_error", True)
    assert metric.compute(np.array([1.0, 2.0]), np.array([1.5, 5.0])) == 3.0


def test_costs_are_those_of_the_cheapest_choice() -> None:
    loan = Target(("paid", "unpaid"))
    metric = find_metric(CostMatrix({("paid", "unpaid"): 10.0, ("unpaid", "paid"): 100.0}), loan)
    # A chance of 5 % costs 5 for lending and 9.5 for refusing; one of 20 % costs 20 and 8.
    outcomes, predictions = np.array([0.0, 1.0, 0.0, 1.0]), np.array([0.05, 0.05, 0.2, 0.2])
    assert metric.compute(outcomes, predictions) == (0 + 100 + 10 + 0) / 4
    assert metric.lower_is_better
    with pytest.raises(InvalidInput, match="late"):
        find_metric(CostMatrix({("late", "paid"): 1.0}), loan)
    with pytest.raises(InvalidInput):
        find_metric(CostMatrix({}), NUMBER)


def test_detectable_difference_is_found_in_four_of_five_comparisons() -> None:
    """Two models differ by what ten days can detect; the lower end of the interval is above zero as often."""
    random = np.random.default_rng(SEED)
    days = np.repeat(np.arange(10), 40)
    metric = find_metric("neg_mean_absolute_error", NUMBER)
    outcomes = np.zeros(400)

    def errors(mean: float) -> FloatArray:
        by_day: FloatArray = mean + random.normal(0, 0.2, 10)[days] + random.normal(0, 0.5, 400)
        return by_day

    differences = [
        paired_difference(metric, outcomes, np.full(400, 5.0), errors(5.0), days, resamples=300) for _ in range(60)
    ]
    detectable = float(np.mean([detectable_difference(difference, 10, 0.95) for difference in differences]))
    found = [
        paired_difference(metric, outcomes, np.full(400, 5.0), errors(5.0 + detectable), days, resamples=300).low > 0
        for _ in range(200)
    ]
    print(f"seed {SEED}: detectable {detectable:.3f}, found in {np.mean(found):.0%}")
    assert 0.7 < np.mean(found) < 0.9


def test_one_block_detects_nothing() -> None:
    outcomes, good, poor, _ = graded(40)
    difference = paired_difference(find_metric(None, GRADES), outcomes, poor, good, np.zeros(40, dtype=np.int64))
    assert detectable_difference(difference, 1, 0.95) == float("inf")
