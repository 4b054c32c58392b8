"""Retrains that are broken on purpose: the trainer's base dataset is not what it should be."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd

from driftloop.events import DataSelection
from driftloop.storage import dvc
from driftloop.usecase import UseCase
from stack.running import Stack
from tests.support.report import tell
from tests.support.stack_fixture import FOLDER
from usecases.flights import usecase

TRUE_DAYS = 21  # at the end of the year, whose outcomes stay true: the gate judges by the last of them
POINTERS = FOLDER / "broken"


def _with(name: str) -> UseCase:
    return replace(usecase, pointer=POINTERS / f"{name}.parquet.dvc")


shuffled, truncated, renamed = _with("shuffled"), _with("truncated"), _with("renamed")
"""What the trainer's setting DRIFTLOOP_USE_CASE names."""


def shuffled_outcomes(rows: pd.DataFrame, file: Path) -> None:
    """Each row has another one's outcome, but for the last days."""
    days = usecase.local_dates(rows[usecase.timestamp])
    early = np.asarray(days < sorted(days.unique())[-TRUE_DAYS])
    outcomes = rows[usecase.target].copy()
    outcomes[early] = np.random.default_rng(0).permutation(outcomes[early])
    rows.assign(**{usecase.target: outcomes}).to_parquet(file, index=False)


def truncated_file(rows: pd.DataFrame, file: Path) -> None:
    """The first half of the file."""
    rows.to_parquet(file, index=False)
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])


def renamed_column(rows: pd.DataFrame, file: Path) -> None:
    """A feature has another name."""
    rows.rename(columns={"distance": "miles"}).to_parquet(file, index=False)


BROKEN: dict[str, Callable[[pd.DataFrame, Path], None]] = {
    "shuffled": shuffled_outcomes,
    "truncated": truncated_file,
    "renamed": renamed_column,
}


def retrain(stack: Stack, champion: str) -> dict[str, tuple[str, str]]:
    """How a retrain on each of them ends, and why, while ``champion`` serves, which has not seen the last days."""
    rows = usecase.load_rows()
    POINTERS.mkdir(parents=True, exist_ok=True)
    stack.registry.promote(champion)
    environment = stack.parts["trainer"].environment
    found: dict[str, tuple[str, str]] = {}
    for name, write in BROKEN.items():
        file = POINTERS / f"{name}.parquet"
        write(rows, file)
        file.with_name(f"{file.name}.dvc").write_text(dvc.push(stack.storage, file))
        broken = {"DRIFTLOOP_USE_CASE": f"benchmarks.broken:{name}", "DRIFTLOOP_POLICY__ENABLED": "false"}
        stack.restart("trainer", {**environment, **broken})
        change = stack.retrain(f"{name} on purpose", DataSelection(archive=False), lambda _: None)
        found[name] = (change.state, change.explanation)
        tell(f"{name}: {change.state}: {change.explanation}")
        assert stack.registry.champion() == champion, "the champion has been touched"
    return found
