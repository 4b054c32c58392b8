"""Missing values of a training set: their rates by feature, what is wrong with them, and what may be missing."""

# ruff: noqa: S608  # quoted as described in driftloop.storage.duckdb_sql

from collections.abc import Mapping, Sequence
from typing import NamedTuple, Self

from driftloop.storage.duckdb_sql import Connection, fetch_row, quote_literal
from driftloop.usecase import UseCase
from trainer.settings import TrainingDataSettings


class MissingRates(NamedTuple):
    """Rates of missing values by feature."""

    base: Mapping[str, float]
    """Of all rows of the base dataset."""
    chosen: Mapping[str, float]
    """Of the rows that the event selects."""
    archived: Mapping[str, float]
    """Of the selected rows of the archive."""

    @classmethod
    def read(cls, connection: Connection, features: Sequence[str], *views: str) -> Self:
        """Count the missing values of features in three views, in the order of the fields."""
        value_counts = ", ".join(f"count(features[{quote_literal(name)}])" for name in features)

        def rates(view: str) -> dict[str, float]:
            rows, *values = fetch_row(connection, f"SELECT count(*), {value_counts} FROM {view}")
            return {name: 1 - count / rows if rows else 0.0 for name, count in zip(features, values, strict=True)}

        return cls(*map(rates, views))

    def optional_features(self, use_case: UseCase) -> frozenset[str]:
        """Return the features that may be missing: by the use case's word or, without it, by its data.

        The whole base dataset counts: a selection in which no value happens to be missing does not make a column
        required.
        """
        if use_case.optional_features is not None:
            return frozenset(use_case.optional_features)
        return frozenset(name for name in self.base if self.base[name] or self.chosen[name])

    def required_feature_problems(self, use_case: UseCase, rows: int) -> list[str]:
        """Return features that are missing in some of the chosen rows and may be in none, by the use case's word."""
        optional = self.optional_features(use_case)
        return [
            f"missing values: {name} is missing in {rate * rows:,.0f} of {rows:,} rows, and the use case's "
            "optional_features do not name it"
            for name, rate in self.chosen.items()
            if rate and name not in optional
        ]

    def problems(self, rows: int, archived_rows: int, settings: TrainingDataSettings) -> list[str]:
        """Return features without any value, and those that are missing more often in the archive than in the base."""
        problems = [
            f"missing values: {name} has no value in any of {rows:,} rows"
            for name, rate in self.chosen.items()
            if rate == 1
        ]
        if archived_rows >= settings.min_labelled_rows:
            problems += [
                f"missing values: {name} is missing in {self.archived[name]:.0%} of the archive's {archived_rows:,} "
                f"rows and in {rate:.0%} of the base dataset's, and at most {settings.max_missing_rate_increase:.0%} "
                "more is allowed (DRIFTLOOP_DATA__MAX_MISSING_RATE_INCREASE)"
                for name, rate in self.base.items()
                if self.archived[name] - rate > settings.max_missing_rate_increase
            ]
        return problems
