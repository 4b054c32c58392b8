"""A reference and its profile, prepared for windows."""

from typing import NamedTuple, Self

import numpy as np
import pandas as pd

from driftloop.drift.profile import DriftProfile
from driftloop.drift.statistics import PreparedReference, StatisticKey, prepare_reference, window_statistics


class PreparedProfile(NamedTuple):
    """The rows of a reference, prepared for windows as its profile says."""

    whole: PreparedReference
    """All rows."""
    stretches: list[PreparedReference]
    """The rows of each stretch."""

    @classmethod
    def prepare(cls, profile: DriftProfile, rows: pd.DataFrame) -> Self:
        """Prepare the stored rows of a reference."""
        prepared = [
            prepare_reference(profile.column_types, stretch, profile.distances)
            for stretch in stretch_rows(profile, rows)
        ]
        if len(prepared) == 1:
            return cls(prepared[0], prepared)
        return cls(prepare_reference(profile.column_types, rows, profile.distances), prepared)

    @property
    def nbytes(self) -> int:
        """The memory of the prepared rows in bytes; more after the first statistics."""
        references = {id(each): each for each in (self.whole, *self.stretches)}
        return sum(column.nbytes for each in references.values() for column in each.values())

    def statistics(self, window: pd.DataFrame) -> list[dict[StatisticKey, float]]:
        """Return every statistic of a window against each stretch."""
        return [window_statistics(stretch, window) for stretch in self.stretches]


def stretch_rows(profile: DriftProfile, rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Return the rows of each stretch.

    Args:
        profile: The reference's profile.
        rows: The stored rows: all of the reference, or some, evenly spaced.
    """
    positions = np.linspace(0, profile.reference_rows - 1, len(rows)).astype(int)
    return [
        rows.iloc[slice(*np.searchsorted(positions, [stretch.first_row, stretch.end_row]).tolist())]
        for stretch in profile.stretches
    ]
