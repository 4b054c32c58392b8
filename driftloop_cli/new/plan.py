"""From a file to all choices about a use case: its columns, target, metric, times and first version."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import pandas as pd
import pyarrow as pa

from driftloop.drift.comparable_columns import FeatureKind
from driftloop.errors import InvalidInput
from driftloop.near_names import near_names
from driftloop_cli.new import leaks
from driftloop_cli.new.column_facts import ColumnFacts, column_facts
from driftloop_cli.new.column_kinds import ColumnChoice, choose_kind, require_feature_name
from driftloop_cli.new.first_version import FirstVersion, choose_first_version, require_enough_rows
from driftloop_cli.new.read_table import read_table
from driftloop_cli.new.targets import MetricChoice, TargetChoice, choose_metric, choose_target
from driftloop_cli.new.times import AmbiguousDates, parse_times, read_row_times
from driftloop_cli.time_zones import require_timezone


@dataclass(frozen=True)
class Options:
    """What the person has said about the table."""

    name: str
    """The name of the use case."""
    file: Path
    target: str
    time: str
    id: str | None = None
    timezone: str | None = None
    time_format: str | None = None
    metric: str | None = None


class ShownColumn(NamedTuple):
    """A row of the table that is printed: a column and what it was taken for."""

    name: str
    taken_as: str
    reason: str
    examples: tuple[str, ...]


@dataclass(frozen=True)
class UseCasePlan:
    """All that a use case's files are made from."""

    options: Options
    format: str
    """How the file is written, in words."""
    table: pa.Table
    """The rows in order of time, with times in UTC."""
    columns: tuple[ColumnChoice, ...]
    """All columns besides target and time, in the file's order."""
    facts: dict[str, ColumnFacts]
    target: TargetChoice
    metric: MetricChoice
    timezone: str
    time_note: str
    first_version: FirstVersion
    notes: tuple[str, ...]
    """What else there is to know, in words."""

    @property
    def features(self) -> dict[str, FeatureKind]:
        """The kind of each feature."""
        return {choice.name: choice.kind for choice in self.columns if choice.kind and not choice.left_out}

    def shown(self) -> list[ShownColumn]:
        """Return the target, the time and all columns as they are printed."""
        target, time = self.options.target, self.options.time
        kind = "number" if self.target.classes is None else "classes"
        return [
            ShownColumn(target, f"target ({kind})", self.target.reason, self.facts[target].examples),
            ShownColumn(time, "time", self.time_note, self.facts[time].examples),
            *(
                ShownColumn(
                    choice.name,
                    f"left out ({choice.left_out})" if choice.left_out else str(choice.kind),
                    choice.reason,
                    self.facts[choice.name].examples,
                )
                for choice in self.columns
            ),
        ]


def make_plan(options: Options) -> UseCasePlan:
    """Read the file and choose everything.

    Raises:
        InvalidInput: Something is odd; the message says what, where, and what to do.
    """
    if options.timezone is not None:
        require_timezone(options.timezone)
    file = read_table(options.file)
    table = file.table
    for option, name in (("--target", options.target), ("--time", options.time), ("--id", options.id)):
        if name is not None:
            _require_column(option, name, table.column_names)
    if options.time == options.target:
        raise InvalidInput(f"--time and --target are the same column, {options.time}")
    require_enough_rows(table.num_rows)

    facts = {name: column_facts(name, table[name]) for name in (options.target, options.time)}
    times = read_row_times(options.time, table[options.time], options.timezone, options.time_format)
    timezone = options.timezone or "UTC"
    table, notes = _in_order_of_time(table, options.time, times.times)
    table, dated = _with_datetimes(table, [options.target, options.time])
    for name in table.column_names:
        if name not in facts:
            facts[name] = column_facts(name, table[name])

    values = table[options.target].to_pandas()
    target = choose_target(facts[options.target], values)
    metric = choose_metric(options.metric, target, values)
    columns = tuple(
        _with_note(choose_kind(facts[name], is_identifier=name == options.id), dated.get(name) or file.notes.get(name))
        for name in table.column_names
        if name not in (options.target, options.time)
    )
    columns = _without_leaks(table, options.target, columns, target)
    for choice in columns:
        if choice.kind is not None:
            require_feature_name(choice.name)
    if all(choice.left_out for choice in columns):
        reasons = "; ".join(f"{choice.name}: {choice.reason}" for choice in columns)
        raise InvalidInput(f"no column is left to predict {options.target} from ({reasons or 'there are no others'})")
    local_times = table[options.time].to_pandas().dt.tz_convert(timezone).dt.tz_localize(None)
    first_version = choose_first_version(local_times.dt.normalize(), values)
    unusable = [choice.name for choice in columns if choice.kind is None]
    return UseCasePlan(
        options=options,
        format=file.format,
        table=_store_target(table.drop_columns(unusable), options.target, target),
        columns=columns,
        facts=facts,
        target=target,
        metric=metric,
        timezone=timezone,
        time_note=times.note,
        first_version=first_version,
        notes=(*notes, *first_version.notes),
    )


def _require_column(option: str, name: str, names: Sequence[str]) -> None:
    if name in names:
        return
    near = near_names(name, names)
    hint = f"did you mean {', '.join(near)}?" if near else f"the columns are {', '.join(names)}"
    raise InvalidInput(f"there is no column {name!r} ({option}): {hint}")


def _in_order_of_time(table: pa.Table, name: str, times: pd.Series) -> tuple[pa.Table, list[str]]:
    """Return the rows that have a time, in order of time, with their times in UTC."""
    notes = []
    column = pa.chunked_array([pa.array(times, type=pa.timestamp("ns", "UTC"))])
    table = table.set_column(table.column_names.index(name), name, column)
    if missing := int(times.isna().sum()):
        notes.append(f"{missing:,} rows without a time are left out")
        table, times = table.filter(column.is_valid()), times.dropna()
    if not times.is_monotonic_increasing:
        table = table.take(np.argsort(times.dt.tz_localize(None).to_numpy(), kind="stable"))
    return table, notes


def _with_datetimes(table: pa.Table, without: Sequence[str]) -> tuple[pa.Table, dict[str, str]]:
    """Return a table whose columns of dates are datetimes in UTC without a zone, as they are served, and notes."""
    notes = {}
    for position, name in enumerate(table.column_names):
        column = table[name]
        if name in without or not (pa.types.is_string(column.type) or pa.types.is_timestamp(column.type)):
            continue
        try:
            parsed = parse_times(column)
        except AmbiguousDates as error:
            notes[name] = f"{error}: not taken as a date"
            continue
        if parsed is None:
            continue
        times = parsed.times if parsed.times.dt.tz is None else parsed.times.dt.tz_convert("UTC").dt.tz_localize(None)
        array = pa.chunked_array([pa.array(times, type=pa.timestamp("ns"))])
        if unread := array.null_count - column.null_count:
            notes[name] = f"{unread:,} values cannot be read as {parsed.format} and are taken as missing"
        table = table.set_column(position, name, array)
    return table, notes


def _with_note(choice: ColumnChoice, note: str | None) -> ColumnChoice:
    return choice._replace(reason=f"{choice.reason}; {note}") if note else choice


def _without_leaks(
    table: pa.Table, target_name: str, columns: Sequence[ColumnChoice], target: TargetChoice
) -> tuple[ColumnChoice, ...]:
    """Return the columns, of which those that give the target away are left out."""
    kinds = {choice.name: choice.kind for choice in columns if choice.kind and not choice.left_out}
    step = max(table.num_rows // leaks.SAMPLE_ROWS, 1)
    # A number of rows between that has no factor of 2, so that a pattern of pairs does not look like halves.
    sample = table.select([*kinds, target_name]).take(np.arange(0, table.num_rows, step)).to_pandas()
    found = leaks.find_leaks(sample[list(kinds)], sample[target_name], kinds, target.classes)
    return tuple(
        choice._replace(left_out="leak", reason=found[choice.name]) if choice.name in found else choice
        for choice in columns
    )


def _store_target(table: pa.Table, name: str, target: TargetChoice) -> pa.Table:
    """Return the table with a target of integers as such, also where values are missing; of numbers, as floats."""
    position = table.column_names.index(name)
    if target.classes is None:
        return table.set_column(position, name, table[name].cast(pa.float64()))
    if isinstance(target.classes[0], int) and not isinstance(target.classes[0], bool):
        return table.set_column(position, name, table[name].cast(pa.int64()))
    return table
