"""Differences in quality, and how sure they are."""

import math

import numpy as np
import pytest

from driftloop.quality import roc_auc, roc_auc_difference


def test_roc_auc_of_a_perfect_and_of_an_inverted_order() -> None:
    outcomes = np.array([0.0, 0.0, 1.0, 1.0])
    assert roc_auc(outcomes, np.array([0.1, 0.2, 0.8, 0.9])) == 1.0
    assert roc_auc(outcomes, np.array([0.9, 0.8, 0.2, 0.1])) == 0.0


def test_roc_auc_of_one_class_is_unknown() -> None:
    assert math.isnan(roc_auc(np.ones(3), np.array([0.1, 0.2, 0.3])))


def test_whole_blocks_give_a_wider_interval_than_rows_where_blocks_share_their_luck() -> None:
    random = np.random.default_rng(0)
    days = np.repeat(np.arange(20), 200)
    outcomes = (random.random(4000) < 0.3).astype(float)
    luck = random.normal(size=20)[days]
    champion = outcomes + random.normal(size=4000) * 2
    challenger = outcomes * (1 + luck) + random.normal(size=4000) * 2
    by_day = roc_auc_difference(outcomes, champion, challenger, days)
    by_row = roc_auc_difference(outcomes, champion, challenger, np.arange(4000), resamples=100)
    assert by_day.low < by_day.value < by_day.high
    assert by_day.high - by_day.low > 1.5 * (by_row.high - by_row.low)


def test_no_difference_between_a_model_and_itself() -> None:
    random = np.random.default_rng(0)
    outcomes, scores = (random.random(400) < 0.5).astype(float), random.random(400)
    assert roc_auc_difference(outcomes, scores, scores, np.repeat(np.arange(4), 100)) == pytest.approx((0, 0, 0))
