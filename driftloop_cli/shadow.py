"""How any version would have done on archived requests that others have answered: nothing that serves is asked."""

from collections import Counter
from typing import NamedTuple, get_args

import numpy as np
import pandas as pd
from rich.console import Console
from rich.table import Table

from driftloop.evaluation.metrics import Floats, Interval, Name, measure, paired_difference
from driftloop.events import Measurement
from driftloop.registry.model_registry import Registry, StoredModel
from driftloop.settings import Registry as RegistrySettings
from driftloop.settings import Settings, Storage
from driftloop.storage import labelled_archive
from driftloop.storage.bucket import Bucket
from driftloop.usecase import UseCase, UseCaseSetting


class ShadowSettings(Settings):
    """What the command reads from the environment."""

    registry: RegistrySettings
    storage: Storage = Storage()
    use_case: UseCaseSetting


class Shadow(NamedTuple):
    """A version beside those that answered, on the same rows."""

    version: str
    answered: dict[str, int]
    """How many rows each version has answered."""
    known: int
    """Rows of a time that the version has learned from: what it says of them flatters it."""
    learned_until: pd.Timestamp
    theirs: Measurement
    its: Measurement
    differences: dict[str, Interval]
    """By how much its figures exceed theirs; drawn by whole blocks of days."""


def shadow(settings: ShadowSettings, version: str, last: int | None) -> Shadow | None:
    """How a version would have done on the last so many labelled rows; ``None`` where there is none.

    Raises :class:`~driftloop.registry.model_registry.Refused` for a version that cannot be loaded.
    """
    registry, use_case = Registry(settings.registry), settings.use_case
    model = registry.load(version)
    with labelled_archive.opened(Bucket(settings.storage), settings.topics, use_case) as archive:
        rows = archive.read(labelled_archive.Selection(last_rows=last)).dropna(subset=["prediction"])
    if rows.empty:
        return None
    learned_until = registry.learned_until(version)
    return compared(use_case, rows, version, answers(model, rows), learned_until)


def compared(use_case: UseCase, rows: pd.DataFrame, version: str, said: Floats, learned_until: pd.Timestamp) -> Shadow:
    """What a version ``said`` of labelled rows, beside what was answered."""
    outcomes = rows[use_case.outcome].to_numpy(np.float64)
    answered = rows["prediction"].to_numpy(np.float64)
    days, blocks = use_case.day_numbers(rows[use_case.time]), use_case.blocks(rows[use_case.time])
    theirs, its = measure(outcomes, answered, days), measure(outcomes, said, days)
    both = [name for name in get_args(Name) if name in theirs.figures and name in its.figures]
    return Shadow(
        version,
        dict(Counter(rows["version"].astype(str)).most_common()),
        int((rows[use_case.time] <= learned_until).sum()),
        learned_until,
        theirs,
        its,
        {name: paired_difference(name, outcomes, answered, said, blocks) for name in both},
    )


def show(found: Shadow, out: Console) -> None:
    """Prints it."""
    answered = ", ".join(f"version {version} ({rows:,})" for version, rows in found.answered.items())
    out.print(
        f"{found.its.rows:,} rows of {found.its.days} days, answered by {answered}; days are drawn whole (95 %)",
        highlight=False,
    )
    if found.known:
        out.print(
            f"[yellow]{found.known:,} of them are of a time that version {found.version} has learned from, up to "
            f"{found.learned_until:%Y-%m-%d}: what it says of these flatters it[/]",
            highlight=False,
        )
    table = Table("figure", "those that answered", f"version {found.version}", "difference")
    for name, by in found.differences.items():
        figures = [measured.figures[name] for measured in (found.theirs, found.its)]
        table.add_row(
            name.replace("_", " "),
            *(f"{figure.value:.3f} [{figure.low:.3f}, {figure.high:.3f}]" for figure in figures),
            f"{by.value:+.3f} [{by.low:+.3f}, {by.high:+.3f}]",
        )
    out.print(table)


def answers(model: StoredModel, rows: pd.DataFrame) -> Floats:
    """One number a row: of a classifier the probability of the second class."""
    features = rows[model.signature.inputs.input_names()]
    said = np.asarray(getattr(model.estimator, model.predict_fn)(features), dtype=np.float64)
    return said if said.ndim == 1 else said[:, 1]
