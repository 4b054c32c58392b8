"""What a use case has to say, so that no service needs to know a column of it."""

from collections.abc import Callable, Collection
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Annotated, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
from pydantic import Field, ImportString
from pydantic_settings import NoDecode


@dataclass(frozen=True)
class UseCase:
    """One model's schema, data and pipeline. A service gets it by a setting such as ``usecases.flights:usecase``.

    A dataset is a frame with one row an example, in order of time: the features, the outcome (missing where it is
    not known) and the time, in UTC.
    """

    name: str
    """The model's name in the registry, in events and in paths."""
    numbers: tuple[str, ...]
    """Features that are compared by distance."""
    categories: tuple[str, ...]
    """Features that are compared by level."""
    outcome: str
    """The column with what really happened: 0 or 1, or any number where the metric is ``rmse``."""
    time: str
    """The column with the time at which a prediction is asked for."""
    timezone: str
    """Where a day begins: rows of a day are judged together, since they share what the features do not say."""
    pipeline: Callable[[], Any]
    """A new, unfitted scikit-learn classifier, regressor or pipeline, made of built-in parts."""
    pointer: Path
    """The dataset's ``.dvc`` file: the data itself lies in the bucket."""
    rows: Callable[[], pd.DataFrame]
    """The dataset from its source: what is put into the bucket, and what the producer streams."""
    metric: Literal["roc_auc", "rmse"] = "roc_auc"
    """What a challenger is judged by: ``rmse``, which is better the smaller it is, for outcomes that are numbers."""
    groups: tuple[str, ...] = ()
    """Features whose large groups, the rows of one value, must not fare clearly worse with a challenger."""
    block_days: int = 1
    """So many days together are what is judged as a whole: more where their luck lasts longer than a day."""

    @cached_property
    def features(self) -> list[str]:
        """All features, in the order of the model's signature."""
        return [*self.numbers, *self.categories]

    @property
    def kinds(self) -> dict[str, Literal["number", "category"]]:
        """How each feature is compared."""
        return {**dict.fromkeys(self.numbers, "number"), **dict.fromkeys(self.categories, "category")}

    def days(self, times: pd.Series) -> pd.Series:
        """The day, as the use case counts days, of each time."""
        local: pd.Series = times.dt.tz_convert(self.timezone).dt.date
        return local

    def day_numbers(self, times: pd.Series) -> npt.NDArray[np.int64]:
        """The same as consecutive numbers."""
        return np.array([day.toordinal() for day in self.days(times)], dtype=np.int64)

    def blocks(self, times: pd.Series) -> npt.NDArray[np.int64]:
        """The block of days of each time, counted back from the latest day, so that the latest block is a whole one."""
        days = self.day_numbers(times)
        back: npt.NDArray[np.int64] = (days.max(initial=0) - days) // self.block_days
        return back

    def between(
        self,
        frame: pd.DataFrame,
        start: date | None = None,
        end: date | None = None,
        without: Collection[date] = (),
    ) -> pd.DataFrame:
        """The rows from the day ``start`` up to, not including, the day ``end``, less the days ``without``."""
        days = self.days(frame[self.time])
        keep = ~days.isin(without)
        if start is not None:
            keep &= days >= start
        if end is not None:
            keep &= days < end
        return frame[keep]


UseCaseSetting = Annotated[
    ImportString[UseCase],
    NoDecode,  # the variable holds a name, not JSON
    Field(description="module:name of the use case, such as usecases.flights:usecase"),
]
