"""What is odd about a window's values, whatever is normal for them: shown beside the verdict, and never an alarm.

A change of units or a sensor that hangs shows here at once. It comes in runs, and is true in spring: so it is kept
outside of the rate of false alarms.
"""

from collections.abc import Collection

import numpy as np
import pandas as pd

from driftloop.drift.statistics import Categories, Numbers, Prepared, numbers
from driftloop.events import Fact

MANY_OUTSIDE = (
    1 / 3
)  # share of values outside of the reference's range; Celsius read as Fahrenheit has 45 % even on a warm day
MANY_UNSEEN = 0.02  # share of values of levels that the reference does not have


def facts(reference: Prepared, window: pd.DataFrame, usually_constant: Collection[str] = ()) -> list[Fact]:
    """What is odd, by column, with the share of the window's rows that it holds for.

    That a column is ``usually_constant`` is not.
    """
    found = [
        fact
        for column, known in reference.items()
        for fact in (
            _of_numbers(column, known, window[column])
            if isinstance(known, Numbers)
            else _of_categories(column, known, window[column])
        )
    ]
    return [fact for fact in found if fact.kind != "constant" or fact.column not in usually_constant]


def _of_numbers(column: str, known: Numbers, cells: pd.Series) -> list[Fact]:
    values = numbers(cells)
    values = values[~np.isnan(values)]
    found = _nothing(column, len(values), known.missing_share)
    if len(values) and not np.isnan(known.low):
        outside = float(((values < known.low) | (values > known.high)).mean())
        if outside >= MANY_OUTSIDE:
            found.append(Fact(column=column, kind="out_of_range", share=outside))
        if len(values) > 1 and values.min() == values.max() and known.low < known.high:
            found.append(Fact(column=column, kind="constant", share=1.0))
    return found


def _of_categories(column: str, known: Categories, cells: pd.Series) -> list[Fact]:
    present = cells.dropna()
    found = _nothing(column, len(present), known.missing_share)
    if len(present):
        unseen = float((~present.isin(known.levels)).mean())
        if unseen >= MANY_UNSEEN:
            found.append(Fact(column=column, kind="unseen_levels", share=unseen))
        if len(present) > 1 and present.nunique() == 1 and len(known.levels) > 1:
            found.append(Fact(column=column, kind="constant", share=1.0))
    return found


def _nothing(column: str, present: int, usually_missing: float) -> list[Fact]:
    if present or usually_missing == 1:
        return []
    return [Fact(column=column, kind="all_missing", share=1.0)]
