"""Who may serve."""

import numpy as np
import pytest

from trainer.gate import Floats, decide

RANDOM = np.random.default_rng(0)
DAYS = np.repeat(np.arange(14), 100)
OUTCOMES = (RANDOM.random(1400) < 0.3).astype(float)
GOOD = OUTCOMES + RANDOM.normal(size=1400)
POOR = OUTCOMES * 0.2 + RANDOM.normal(size=1400)


@pytest.mark.parametrize(
    ("champion", "challenger", "promoted"), [(POOR, GOOD, True), (GOOD, POOR, False), (GOOD, GOOD, False)]
)
def test_only_a_challenger_that_is_surely_better_is_promoted(
    champion: Floats, challenger: Floats, promoted: bool
) -> None:
    decision = decide(OUTCOMES, champion, challenger, DAYS, level=0.95, margin=0.0)
    assert decision.promote is promoted
    assert decision.champion["rows"] == decision.challenger["rows"] == 1400
    assert f"{decision.challenger['roc_auc']:.3f}" in decision.why
    assert ("not above" in decision.why) is not promoted


def test_the_margin_decides() -> None:
    assert decide(OUTCOMES, GOOD, GOOD, DAYS, level=0.95, margin=-0.01).promote
