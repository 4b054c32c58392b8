"""The gate's decision on champion and challenger."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from driftloop.evaluation.gate import (
    FIRST_VERSION,
    Decision,
    HoldoutPredictions,
    ServingTrial,
    SmokeTestResult,
    decide,
    decide_first,
    holdout_days,
)
from driftloop.evaluation.gate_settings import GateSettings
from driftloop.evaluation.metric import BUILT_IN_METRICS
from driftloop.evaluation.metrics import FloatArray, IntArray
from driftloop.evaluation.targets import BINARY, NUMBER
from driftloop.events import Evaluation, MetricEstimate

RANDOM = np.random.default_rng(0)
DAYS, ROWS = 14, 200
BLOCKS = np.repeat(np.arange(DAYS), ROWS)
ORIGINS = np.tile(np.array(["EWR", "JFK", "LGA", "LGA"], dtype=object), DAYS * ROWS // 4)
TRUTH = RANDOM.normal(-1, 1, DAYS * ROWS) + RANDOM.normal(0, 0.3, DAYS)[BLOCKS]
OUTCOMES = (RANDOM.random(DAYS * ROWS) < 1 / (1 + np.exp(-TRUTH))).astype(float)


def probabilities(noise: float) -> FloatArray:
    """Calibrated ones of a model that sees the truth through noise."""
    seen = TRUTH + RANDOM.normal(0, noise, len(TRUTH))
    found: FloatArray = 1 / (1 + np.exp(-(seen - noise**2) / (1 + noise**2)))
    return found


CHAMPION, GOOD, POOR = probabilities(0.7), probabilities(0.5), probabilities(1)
TOO_HIGH = GOOD**0.5
"""In the same order as the good ones."""
POOR_AT_EWR = np.where(ORIGINS == "EWR", RANDOM.permutation(GOOD), GOOD)


def answers(
    challenger: FloatArray,
    champion: FloatArray = CHAMPION,
    outcomes: FloatArray = OUTCOMES,
    blocks: IntArray = BLOCKS,
    **more: Any,
) -> HoldoutPredictions:
    target = BINARY if np.isin(outcomes, (0, 1)).all() else NUMBER
    return HoldoutPredictions(target, outcomes, champion, challenger, blocks, **more)


def ranked(challenger: FloatArray, champion: FloatArray = CHAMPION, **more: Any) -> HoldoutPredictions:
    """By scores that are no probabilities, so that nothing but their order can be judged."""
    return answers(challenger * 10, champion * 10, **more)


def trial(seconds: float = 0.002, **columns: str) -> ServingTrial:
    return ServingTrial(
        columns=columns or {"x": "double", "y": "string or missing"}, latency_seconds={1: seconds, 128: seconds * 2}
    )


def both(challenger: ServingTrial) -> SmokeTestResult:
    return SmokeTestResult(challenger=challenger, champion=trial())


SAME = both(trial())


def decision_on(
    holdout: HoldoutPredictions,
    smoke_test: SmokeTestResult = SAME,
    *,
    metric: str = "roc_auc",
    **changes: Any,
) -> Decision:
    return decide(BUILT_IN_METRICS[metric], holdout, smoke_test, GateSettings(**changes))


def test_gate_promotes_better_challenger() -> None:
    decision = decision_on(answers(GOOD, subgroups={"origin": ORIGINS}), test="superiority")
    assert decision.promote, decision.explanation
    assert decision.reasons == ()
    assert f"ROC AUC {decision.challenger['roc_auc']:.3f} against the champion's" in decision.explanation
    assert "2,800 rows of 14 holdout days" in decision.explanation
    assert "lower end is above 0 (superiority)" in decision.explanation
    assert f"a difference of {decision.challenger['detectable_gain']:.3f} would be found" in decision.explanation


def test_explanation_names_the_loss_that_is_tolerated() -> None:
    assert "above -0.02, the loss that is tolerated (non_inferiority)" in decision_on(answers(GOOD)).explanation


def test_explanation_of_a_single_block_has_no_infinite_difference() -> None:
    decision = decision_on(answers(GOOD, blocks=np.zeros_like(BLOCKS)))
    assert "detectable_gain" not in decision.challenger
    assert "would be found" not in decision.explanation


@pytest.mark.parametrize(
    ("holdout", "smoke_test", "changes", "reason"),
    [
        pytest.param(ranked(POOR), SAME, {}, "is not above -0.02, the loss that is tolerated", id="worse"),
        pytest.param(
            answers(GOOD, blocks=BLOCKS // 2),
            SAME,
            {},
            "the holdout has 7 days, and 10 are needed: 3 more (DRIFTLOOP_GATE__MIN_HOLDOUT_DAYS)",
            id="few days",
        ),
        pytest.param(
            answers(GOOD, blocks=BLOCKS // 7, block_days=7),
            SAME,
            {"margin": 1},
            "the holdout has 2 blocks of 7 days, and 10 are needed: 8 more",
            id="few blocks",
        ),
        pytest.param(
            ranked(POOR_AT_EWR, subgroups={"origin": ORIGINS}),
            SAME,
            {"margin": 1},
            "origin EWR is clearly worse: ROC AUC 0.",
            id="a group",
        ),
        pytest.param(
            answers(TOO_HIGH), SAME, {}, "its probabilities are clearly less accurate: Brier", id="calibration"
        ),
        pytest.param(
            answers(GOOD),
            both(trial(x="long", z="double")),
            {},
            "its columns are not the champion's: y is gone, z (double) is new, x is long, and was double",
            id="columns",
        ),
        pytest.param(
            answers(GOOD), both(trial(x="double", y="string")), {}, "y is string, and was string or", id="required"
        ),
        pytest.param(
            answers(GOOD), SmokeTestResult(error="no such file"), {}, "it cannot serve: no such file", id="broken"
        ),
        pytest.param(
            answers(GOOD),
            SmokeTestResult(exceeded_seconds=120),
            {},
            "within 120 s; try again with a higher DRIFTLOOP_GATE__SMOKE_TEST_TIMEOUT_SECONDS",
            id="not checked",
        ),
        pytest.param(
            answers(GOOD),
            SmokeTestResult(
                challenger=ServingTrial(columns={}, latency_seconds={1: 0.002, 128: 0.0121}),
                champion=ServingTrial(columns={}, latency_seconds={1: 0.002, 128: 0.004}),
            ),
            {},
            "a prediction of 128 rows takes 12.1 ms, 3.0 times the champion's 4 ms, and at most 3 times is allowed",
            id="slow",
        ),
        pytest.param(
            answers(np.where(np.arange(len(GOOD)) < 3, np.nan, GOOD)), SAME, {}, "for 3 of 2,800 rows", id="no numbers"
        ),
        pytest.param(
            answers(GOOD, GOOD, outcomes=np.zeros(len(GOOD))), SAME, {}, "ROC AUC is undefined", id="one outcome only"
        ),
    ],
)
def test_gate_rejects_for_single_reason(
    holdout: HoldoutPredictions, smoke_test: SmokeTestResult, changes: dict[str, Any], reason: str
) -> None:
    decision = decision_on(holdout, smoke_test, **changes)
    assert not decision.promote
    (text,) = decision.reasons
    assert reason in text
    assert decision.explanation.startswith(text)


def test_gate_lists_all_reasons() -> None:
    guesses = RANDOM.permutation(TOO_HIGH)
    holdout = answers(guesses, blocks=BLOCKS // 2, subgroups={"origin": ORIGINS})
    decision = decision_on(holdout, both(trial(seconds=0.02, x="long")))
    assert len(decision.reasons) == 9, decision.reasons  # days, worse, 3 origins, calibration, columns, slow twice
    assert all(reason in decision.explanation for reason in decision.reasons)


@pytest.mark.parametrize(
    ("challenger", "changes", "promoted"),
    [
        (GOOD, {"test": "superiority"}, True),
        (GOOD, {"test": "superiority", "margin": 1}, True),
        (CHAMPION, {"test": "superiority", "margin": 1}, False),
        (CHAMPION, {}, True),
        (CHAMPION, {"margin": 0}, False),
        (POOR, {"margin": 0.2}, True),
        (POOR, {"margin": 0.02}, False),
    ],
)
def test_gate_applies_test_and_margin(challenger: FloatArray, changes: dict[str, Any], promoted: bool) -> None:
    decision = decision_on(ranked(challenger), **changes)
    assert decision.promote is promoted, decision.explanation
    assert decision.challenger["gain_low"] <= decision.challenger["gain"] <= decision.challenger["gain_high"]


@pytest.mark.parametrize("beyond", [-1e-6, 1e-6])
def test_gate_compares_lower_end_of_gain_with_margin(beyond: float) -> None:
    low = decision_on(ranked(POOR)).challenger["gain_low"]
    assert decision_on(ranked(POOR), margin=-low + beyond).promote is (beyond > 0)


NUMBERS = TRUTH * 100


@pytest.mark.parametrize(
    ("error", "changes", "promoted"),
    [
        (8, {"test": "superiority"}, True),
        (10, {"test": "superiority"}, False),
        (10, {"margin": 0.08}, True),
        (12, {"margin": 0.08}, False),
        (12, {"margin": 0.3}, True),
    ],
)
def test_gate_treats_lower_rmse_as_gain_and_margin_as_relative(
    error: float, changes: dict[str, Any], promoted: bool
) -> None:
    """The champion's error is 10: a margin of 0.08 is 0.8."""
    random = np.random.default_rng(1)
    old, new = (NUMBERS + random.normal(0, size, len(NUMBERS)) for size in (10, error))
    decision = decision_on(answers(new, old, NUMBERS), metric="rmse", **changes)
    assert decision.promote is promoted, decision.explanation
    assert decision.challenger["gain"] == pytest.approx(decision.champion["rmse"] - decision.challenger["rmse"])
    assert "brier" not in decision.challenger
    assert "RMSE" in decision.explanation


def test_gate_names_subgroup_with_higher_rmse() -> None:
    random = np.random.default_rng(1)
    old, new = (NUMBERS + random.normal(0, 10, len(NUMBERS)) for _ in range(2))
    new = np.where(ORIGINS == "JFK", NUMBERS + random.normal(0, 14, len(NUMBERS)), new)
    decision = decision_on(answers(new, old, NUMBERS, subgroups={"origin": ORIGINS}), metric="rmse", margin=1)
    (reason,) = decision.reasons
    assert reason.startswith("origin JFK is clearly worse: RMSE 1")


@pytest.mark.parametrize(("share", "promoted"), [(0.25, False), (0.26, True)])
def test_gate_ignores_small_subgroups(share: float, promoted: bool) -> None:
    holdout = ranked(POOR_AT_EWR, subgroups={"origin": ORIGINS})
    assert decision_on(holdout, margin=1, subgroup_min_fraction=share).promote is promoted


def test_gate_rarely_rejects_by_chance_with_many_subgroups() -> None:
    """20 groups of equally good models, 40 times: with 95 % for each group, every second gate would reject."""
    random = np.random.default_rng(2)
    groups = {"letter": np.tile(np.arange(20).astype(object), DAYS * ROWS // 20)}
    rejected = 0
    for _ in range(40):
        old, new = (TRUTH + random.normal(0, 0.7, len(TRUTH)) for _ in range(2))
        outcomes = (random.random(len(TRUTH)) < 1 / (1 + np.exp(-TRUTH))).astype(float)
        rejected += not decision_on(answers(new, old, outcomes, subgroups=groups), margin=1, subgroup_margin=0).promote
    assert rejected <= 3


def test_gate_accepts_column_that_became_optional() -> None:
    assert decision_on(answers(GOOD), both(trial(x="double or missing", y="string or missing"))).promote


def test_gate_skips_calibration_of_scores_that_are_no_probabilities() -> None:
    decision = decision_on(ranked(TOO_HIGH))
    assert decision.promote
    assert "brier" not in decision.challenger


def test_gate_metrics_are_finite() -> None:
    one_block = decision_on(answers(GOOD, blocks=np.zeros_like(BLOCKS)))
    assert {"gain_low", "gain_high"}.isdisjoint(one_block.challenger)
    for decision in (one_block, decision_on(answers(GOOD, outcomes=np.zeros(len(GOOD))))):
        assert np.isfinite([*decision.champion.values(), *decision.challenger.values()]).all()
    assert decision_on(answers(GOOD)).challenger["milliseconds_128_rows"] == 4


@pytest.mark.parametrize(
    ("changes", "holdout"),
    [
        ({}, 14),
        ({"holdout_days": 20}, 20),
        ({"holdout_fraction": 0.10}, 1),
        ({"holdout_fraction": 0.30}, 2),
        ({"holdout_fraction": 0.6}, 3),
        ({"holdout_fraction": 0.001}, 1),
    ],
)
def test_holdout_days_by_number_or_fraction(changes: dict[str, Any], holdout: int) -> None:
    days = np.repeat([3, 5, 6, 9], [40, 30, 20, 10])  # of the latest day 0.1 of the rows, of the latest two 0.3
    assert holdout_days(days, GateSettings(**changes)) == holdout


def test_gate_promotes_first_version_that_passes_smoke_test() -> None:
    promoted = decide_first(SmokeTestResult(challenger=trial()))
    assert (promoted.promote, promoted.explanation, promoted.challenger) == (True, FIRST_VERSION, {})
    rejected = decide_first(SmokeTestResult(error="no such file"))
    assert (rejected.promote, rejected.explanation) == (False, "it cannot serve: no such file")


def test_gate_says_how_good_a_first_version_is() -> None:
    measured = MetricEstimate(value=0.7, low=0.65, high=0.75)
    evaluation = Evaluation(rows=900, days=14, resampling_unit="days", metrics={"roc_auc": measured, "brier": measured})
    promoted = decide_first(SmokeTestResult(challenger=trial()), evaluation)
    assert promoted.challenger == {"roc_auc": 0.7, "brier": 0.7}
    assert "ROC AUC 0.700" in promoted.explanation


@pytest.mark.parametrize(
    "wrong", [{"test": "best"}, {"margin": -0.1}, {"holdout_fraction": 1}, {"min_holdout_days": 1}]
)
def test_gate_settings_reject_invalid_values(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        GateSettings(**wrong)
