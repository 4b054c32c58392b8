"""Who may serve."""

from typing import Any

import numpy as np
import pytest
from pydantic import ValidationError

from driftloop.evaluation.metrics import Floats, Ints
from trainer.gate.gate import FIRST, Answers, Decision, Metric, Trial, Tried, days_held_out, decide, first
from trainer.settings import Gate

RANDOM = np.random.default_rng(0)
DAYS, ROWS = 14, 200
BLOCKS = np.repeat(np.arange(DAYS), ROWS)
ORIGINS = np.tile(np.array(["EWR", "JFK", "LGA", "LGA"], dtype=object), DAYS * ROWS // 4)
TRUTH = RANDOM.normal(-1, 1, DAYS * ROWS) + RANDOM.normal(0, 0.3, DAYS)[BLOCKS]
OUTCOMES = (RANDOM.random(DAYS * ROWS) < 1 / (1 + np.exp(-TRUTH))).astype(float)


def probabilities(noise: float) -> Floats:
    """Calibrated ones of a model that sees the truth through noise."""
    seen = TRUTH + RANDOM.normal(0, noise, len(TRUTH))
    found: Floats = 1 / (1 + np.exp(-(seen - noise**2) / (1 + noise**2)))
    return found


CHAMPION, GOOD, POOR = probabilities(0.7), probabilities(0.5), probabilities(1)
TOO_HIGH = GOOD**0.5
"""In the same order as the good ones."""
POOR_AT_EWR = np.where(ORIGINS == "EWR", RANDOM.permutation(GOOD), GOOD)


def answers(
    challenger: Floats, champion: Floats = CHAMPION, outcomes: Floats = OUTCOMES, blocks: Ints = BLOCKS, **more: Any
) -> Answers:
    return Answers(outcomes, champion, challenger, blocks, **more)


def ranked(challenger: Floats, champion: Floats = CHAMPION, **more: Any) -> Answers:
    """By scores that are no probabilities, so that nothing but their order can be judged."""
    return answers(challenger * 10, champion * 10, **more)


def trial(seconds: float = 0.002, **columns: str) -> Trial:
    return Trial(columns=columns or {"x": "double", "y": "string or missing"}, seconds={1: seconds, 128: seconds * 2})


def both(challenger: Trial) -> Tried:
    return Tried(challenger=challenger, champion=trial())


SAME = both(trial())


def decided(held_out: Answers, tried: Tried = SAME, *, metric: Metric = "roc_auc", **rules: Any) -> Decision:
    return decide(metric, held_out, tried, Gate(**rules))


def test_a_challenger_that_nothing_speaks_against_is_promoted() -> None:
    decision = decided(answers(GOOD, groups={"origin": ORIGINS}), rule="better")
    assert decision.promote, decision.why
    assert decision.reasons == ()
    assert f"ROC AUC {decision.challenger['roc_auc']:.3f} against the champion's" in decision.why
    assert "2,800 rows of 14 held-out days" in decision.why
    assert "whose lower end is above 0 (rule better)" in decision.why


@pytest.mark.parametrize(
    ("held_out", "tried", "rules", "reason"),
    [
        pytest.param(ranked(POOR), SAME, {}, "is not above -0.02 (rule not_worse)", id="worse"),
        pytest.param(
            answers(GOOD, blocks=BLOCKS // 2),
            SAME,
            {},
            "7 days are held out, and 10 are needed: 3 more (DRIFTLOOP_GATE__FEWEST_DAYS)",
            id="few days",
        ),
        pytest.param(
            answers(GOOD, blocks=BLOCKS // 7, block_days=7),
            SAME,
            {"margin": 1},
            "2 blocks of 7 days are held out, and 10 are needed: 8 more",
            id="few blocks",
        ),
        pytest.param(
            ranked(POOR_AT_EWR, groups={"origin": ORIGINS}),
            SAME,
            {"margin": 1},
            "origin EWR fares clearly worse: ROC AUC 0.",
            id="a group",
        ),
        pytest.param(answers(TOO_HIGH), SAME, {}, "its probabilities are clearly further off: Brier", id="calibration"),
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
        pytest.param(answers(GOOD), Tried(broken="no such file"), {}, "it cannot serve: no such file", id="broken"),
        pytest.param(
            answers(GOOD),
            Tried(
                challenger=Trial(columns={}, seconds={1: 0.002, 128: 0.0121}),
                champion=Trial(columns={}, seconds={1: 0.002, 128: 0.004}),
            ),
            {},
            "an answer of 128 rows takes 12.1 ms, 3.0 times the champion's 4 ms, and 3 times is the most",
            id="slow",
        ),
        pytest.param(
            answers(np.where(np.arange(len(GOOD)) < 3, np.nan, GOOD)), SAME, {}, "for 3 of 2,800 rows", id="no numbers"
        ),
        pytest.param(
            answers(GOOD, GOOD, outcomes=np.zeros(len(GOOD))), SAME, {}, "tell no ROC AUC", id="one outcome only"
        ),
    ],
)
def test_each_reason_alone_rejects(held_out: Answers, tried: Tried, rules: dict[str, Any], reason: str) -> None:
    decision = decided(held_out, tried, **rules)
    assert not decision.promote
    (said,) = decision.reasons
    assert reason in said
    assert decision.why.startswith(said)


def test_all_reasons_are_said() -> None:
    guesses = RANDOM.permutation(TOO_HIGH)
    held_out = answers(guesses, blocks=BLOCKS // 2, groups={"origin": ORIGINS})
    decision = decided(held_out, both(trial(seconds=0.02, x="long")))
    assert len(decision.reasons) == 9, decision.reasons  # days, worse, 3 origins, calibration, columns, slow twice
    assert all(reason in decision.why for reason in decision.reasons)


@pytest.mark.parametrize(
    ("challenger", "rules", "promoted"),
    [
        (GOOD, {"rule": "better"}, True),
        (GOOD, {"rule": "better", "margin": 1}, True),
        (CHAMPION, {"rule": "better", "margin": 1}, False),
        (CHAMPION, {}, True),
        (CHAMPION, {"margin": 0}, False),
        (POOR, {"margin": 0.2}, True),
        (POOR, {"margin": 0.02}, False),
    ],
)
def test_rule_and_margin_decide(challenger: Floats, rules: dict[str, Any], promoted: bool) -> None:
    decision = decided(ranked(challenger), **rules)
    assert decision.promote is promoted, decision.why
    assert decision.challenger["gain_low"] <= decision.challenger["gain"] <= decision.challenger["gain_high"]


@pytest.mark.parametrize("beyond", [-1e-6, 1e-6])
def test_the_lower_end_is_held_against_the_margin(beyond: float) -> None:
    low = decided(ranked(POOR)).challenger["gain_low"]
    assert decided(ranked(POOR), margin=-low + beyond).promote is (beyond > 0)


NUMBERS = TRUTH * 100


@pytest.mark.parametrize(
    ("error", "rules", "promoted"),
    [
        (8, {"rule": "better"}, True),
        (10, {"rule": "better"}, False),
        (10, {"margin": 0.08}, True),
        (12, {"margin": 0.08}, False),
        (12, {"margin": 0.3}, True),
    ],
)
def test_of_an_rmse_less_is_better_and_the_margin_is_a_share(
    error: float, rules: dict[str, Any], promoted: bool
) -> None:
    """The champion's error is 10: a margin of 0.08 is 0.8."""
    random = np.random.default_rng(1)
    old, new = (NUMBERS + random.normal(0, size, len(NUMBERS)) for size in (10, error))
    decision = decided(answers(new, old, NUMBERS), metric="rmse", **rules)
    assert decision.promote is promoted, decision.why
    assert decision.challenger["gain"] == pytest.approx(decision.champion["rmse"] - decision.challenger["rmse"])
    assert "brier" not in decision.challenger
    assert "RMSE" in decision.why


def test_of_an_rmse_a_group_that_errs_more_is_named() -> None:
    random = np.random.default_rng(1)
    old, new = (NUMBERS + random.normal(0, 10, len(NUMBERS)) for _ in range(2))
    new = np.where(ORIGINS == "JFK", NUMBERS + random.normal(0, 14, len(NUMBERS)), new)
    decision = decided(answers(new, old, NUMBERS, groups={"origin": ORIGINS}), metric="rmse", margin=1)
    (reason,) = decision.reasons
    assert reason.startswith("origin JFK fares clearly worse: RMSE 1")


@pytest.mark.parametrize(("share", "promoted"), [(0.25, False), (0.26, True)])
def test_only_large_groups_are_looked_at(share: float, promoted: bool) -> None:
    held_out = ranked(POOR_AT_EWR, groups={"origin": ORIGINS})
    assert decided(held_out, margin=1, group_share=share).promote is promoted


def test_of_many_groups_chance_seldom_makes_one_look_worse() -> None:
    """20 groups of equally good models, 40 times: with 95 % for each group, every second gate would reject."""
    random = np.random.default_rng(2)
    groups = {"letter": np.tile(np.arange(20).astype(object), DAYS * ROWS // 20)}
    rejected = 0
    for _ in range(40):
        old, new = (TRUTH + random.normal(0, 0.7, len(TRUTH)) for _ in range(2))
        outcomes = (random.random(len(TRUTH)) < 1 / (1 + np.exp(-TRUTH))).astype(float)
        rejected += not decided(answers(new, old, outcomes, groups=groups), margin=1, group_margin=0).promote
    assert rejected <= 3


def test_a_column_that_may_be_missing_now_is_no_other_column() -> None:
    assert decided(answers(GOOD), both(trial(x="double or missing", y="string or missing"))).promote


def test_scores_that_are_no_probabilities_have_no_calibration() -> None:
    decision = decided(ranked(TOO_HIGH))
    assert decision.promote
    assert "brier" not in decision.challenger


def test_figures_are_numbers_that_json_has() -> None:
    one_block = decided(answers(GOOD, blocks=np.zeros_like(BLOCKS)))
    assert {"gain_low", "gain_high"}.isdisjoint(one_block.challenger)
    for decision in (one_block, decided(answers(GOOD, outcomes=np.zeros(len(GOOD))))):
        assert np.isfinite([*decision.champion.values(), *decision.challenger.values()]).all()
    assert decided(answers(GOOD)).challenger["milliseconds_128_rows"] == 4


@pytest.mark.parametrize(
    ("rules", "held_out"),
    [
        ({}, 14),
        ({"held_out_days": 20}, 20),
        ({"held_out_share": 0.10}, 1),
        ({"held_out_share": 0.30}, 2),
        ({"held_out_share": 0.6}, 3),
        ({"held_out_share": 0.001}, 1),
    ],
)
def test_days_are_held_out_by_number_or_by_share(rules: dict[str, Any], held_out: int) -> None:
    days = np.repeat([3, 5, 6, 9], [40, 30, 20, 10])  # of the latest day 0.1 of the rows, of the latest two 0.3
    assert days_held_out(days, Gate(**rules)) == held_out


def test_a_first_version_only_has_to_work() -> None:
    assert first(Tried(challenger=trial())) is FIRST
    refused = first(Tried(broken="no such file"))
    assert (refused.promote, refused.why) == (False, "it cannot serve: no such file")


@pytest.mark.parametrize("wrong", [{"rule": "best"}, {"margin": -0.1}, {"held_out_share": 1}, {"fewest_days": 1}])
def test_rules_that_make_no_sense_are_no_settings(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        Gate(**wrong)
