"""Whether the challenger may serve. Pure."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from driftloop.quality import Interval, roc_auc, roc_auc_difference

Floats = npt.NDArray[np.float64]


class Decision(NamedTuple):
    """What the gate found, and why, in words."""

    promote: bool
    why: str
    champion: dict[str, float]
    challenger: dict[str, float]


FIRST = Decision(True, "the first version: there is no champion to compare it with", {}, {})


def decide(
    outcomes: Floats, champion: Floats, challenger: Floats, days: npt.NDArray[np.int64], *, level: float, margin: float
) -> Decision:
    """Compares both on the same rows, which neither was trained on; ``days`` are the blocks that rows belong to."""
    difference: Interval = roc_auc_difference(outcomes, champion, challenger, days, level=level)
    promote = difference.low > margin
    rows, blocks = len(outcomes), len(np.unique(days))
    old, new = roc_auc(outcomes, champion), roc_auc(outcomes, challenger)
    why = (
        f"ROC AUC {new:.3f} against the champion's {old:.3f} on {rows:,} rows of {blocks} held-out days: a difference "
        f"of {difference.value:+.3f} [{difference.low:+.3f}, {difference.high:+.3f}] ({level:.0%}, days drawn whole), "
        f"whose lower end is {'above' if promote else 'not above'} {margin:g}"
    )
    figures = {"rows": float(rows), "days": float(blocks)}
    return Decision(
        promote,
        why,
        {"roc_auc": old, **figures},
        {"roc_auc": new, "difference": difference.value, "low": difference.low, "high": difference.high, **figures},
    )
