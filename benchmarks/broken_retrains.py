"""Deliberately broken retrains: the trainer's base dataset has shuffled labels, is truncated, or misses a column."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from driftloop.events import DataSelection
from driftloop.storage import dvc
from driftloop.usecase import UseCase
from stack.running import Stack
from tests.support.report import log
from tests.support.stack_fixture import STACK_DIR
from usecases.flights import usecase

INTACT_DAYS = 21  # at the end of the year, with correct labels: they contain the gate's holdout
POINTER_DIR = STACK_DIR / "broken"


def _with_dataset(name: str) -> UseCase:
    return replace(usecase, dvc_file=POINTER_DIR / f"{name}.parquet.dvc")


shuffled, truncated, renamed = _with_dataset("shuffled"), _with_dataset("truncated"), _with_dataset("renamed")
"""Use cases for the trainer's setting DRIFTLOOP_USE_CASE."""


def write_shuffled_outcomes(rows: pd.DataFrame, file: Path) -> None:
    """Write rows whose outcomes are permuted, except in the last days."""
    days = usecase.local_dates(rows[usecase.timestamp])
    early = np.asarray(days < sorted(days.unique())[-INTACT_DAYS])
    outcomes = rows[usecase.target].copy()
    outcomes[early] = np.random.default_rng(0).permutation(outcomes[early])
    rows.assign(**{usecase.target: outcomes}).to_parquet(file, index=False)


def write_truncated(rows: pd.DataFrame, file: Path) -> None:
    """Write the first half of the file's bytes."""
    rows.to_parquet(file, index=False)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def write_renamed_column(rows: pd.DataFrame, file: Path) -> None:
    """Write rows in which a feature has another name."""
    rows.rename(columns={"distance": "miles"}).to_parquet(file, index=False)


WRITERS: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "shuffled": write_shuffled_outcomes,
    "truncated": write_truncated,
    "renamed": write_renamed_column,
}


def run_broken_retrains(stack: Stack, champion: str) -> dict[str, tuple[str, str]]:
    """Retrain on each broken dataset; return state and explanation of the results by name of the dataset.

    ``champion`` serves meanwhile. It was not trained on the last days, so that the gate can compare on them.
    """
    rows = usecase.load_rows()
    POINTER_DIR.mkdir(parents=True, exist_ok=True)
    stack.registry.promote(champion)
    environment = stack.components["trainer"].environment
    results: dict[str, tuple[str, str]] = {}
    for name, write in WRITERS.items():
        file = POINTER_DIR / f"{name}.parquet"
        write(rows, file)
        file.with_name(f"{file.name}.dvc").write_text(dvc.push(stack.storage, file))
        overrides = {"DRIFTLOOP_USE_CASE": f"benchmarks.broken_retrains:{name}", "DRIFTLOOP_POLICY__ENABLED": "false"}
        stack.restart("trainer", {**environment, **overrides})
        change = stack.retrain(f"{name} on purpose", DataSelection(archive=False), lambda _: None)
        results[name] = (change.state, change.explanation)
        log(f"{name}: {change.state}: {change.explanation}")
        assert stack.registry.champion() == champion, "the champion has changed"
    return results
