"""The rows to train on: a dataset under DVC, and archived predictions whose outcomes have become known."""

import logging
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pandas as pd
from dvc.repo import Repo

from driftloop.events import DataSelection
from driftloop.settings import Storage
from driftloop.storage import Bucket
from driftloop.usecase import UseCase

logging.getLogger("dvc").setLevel(logging.WARNING)  # it tells of each repository made, and ours live for seconds

DATASETS = "datasets"  # DVC's remote, in the bucket


class UnfitData(ValueError):
    """The rows cannot be trained on; says which check failed and by how much."""


@contextmanager
def _repository(storage: Storage) -> Iterator[tuple[Path, Any]]:
    """A DVC repository for once, whose remote is the bucket: a pointer is all that it takes to get the data back."""
    with tempfile.TemporaryDirectory(prefix="driftloop-dataset-") as folder:
        remote: dict[str, object] = {"url": f"gs://{storage.bucket}/{DATASETS}"}
        if storage.endpoint:
            remote |= {"endpointurl": storage.endpoint, "allow_anonymous_login": True}
        repo = Repo.init(folder, no_scm=True)
        with repo.config.edit() as config:
            config["core"]["remote"] = "bucket"
            config["remote"]["bucket"] = remote
        repo = Repo(folder)
        try:
            yield Path(folder), repo
        finally:
            repo.close()


def pull(storage: Storage, pointer: Path) -> pd.DataFrame:
    """The Parquet file that a ``.dvc`` file points to, fetched from the bucket."""
    with _repository(storage) as (folder, repo):
        here = folder / pointer.name
        here.write_bytes(pointer.read_bytes())
        repo.pull(targets=[str(here)])
        return pd.read_parquet(here.with_suffix(""))


def push(storage: Storage, file: Path) -> str:
    """Puts a file into the bucket; returns the content of its ``.dvc`` file."""
    with _repository(storage) as (folder, repo):
        here = folder / file.name
        here.write_bytes(file.read_bytes())
        repo.add(targets=[str(here)])
        repo.push(targets=[str(here)])
        return here.with_name(f"{here.name}.dvc").read_text()


def archived(bucket: Bucket, predictions: str, outcomes: str, use_case: UseCase) -> pd.DataFrame:
    """Archived predictions of the model beside their outcomes (missing where not known), as a dataset's rows.

    ``predictions`` and ``outcomes`` are the topics' names. Of several outcomes of a row the last known counts.
    """
    asked = [frame[frame["model"] == use_case.name] for frame in bucket.read_folder(f"events/{predictions}")]
    if not asked:
        return pd.DataFrame(columns=[*use_case.features, use_case.time, use_case.outcome])
    known = [*bucket.read_folder(f"events/{outcomes}")]
    rows = pd.concat(asked, ignore_index=True).drop_duplicates(["id", "row"])
    last = (
        pd.concat(known, ignore_index=True)
        .sort_values("time", kind="stable")
        .drop_duplicates(["id", "row"], keep="last")[["id", "row", "outcome"]]
        if known
        else pd.DataFrame({"id": [], "row": [], "outcome": []})
    )
    both = rows.merge(last, on=["id", "row"], how="left")
    return both.rename(columns={"time": use_case.time, "outcome": use_case.outcome})[
        [*use_case.features, use_case.time, use_case.outcome]
    ]


def select(use_case: UseCase, base: pd.DataFrame, archive: pd.DataFrame | None, data: DataSelection) -> pd.DataFrame:
    """What an event asks for, in order of time: the dataset's rows of its days, and the archive's, if it wants them."""
    columns = [use_case.time, *use_case.features, use_case.outcome]
    chosen = use_case.between(base, data.start, data.end, data.without_days)[columns]
    if archive is not None and len(archive):
        chosen = pd.concat([chosen, archive[columns]], ignore_index=True)
    chosen = chosen.astype({use_case.outcome: "float64"})
    return chosen.sort_values(use_case.time, kind="stable", ignore_index=True)


def split(use_case: UseCase, rows: pd.DataFrame, held_out_days: int) -> tuple[pd.DataFrame, pd.DataFrame]:
    """Rows to learn from, and the labelled rows of the latest ``held_out_days`` days to be judged on.

    Rows that came after the last outcome belong to neither. Raises :class:`UnfitData` where nothing would be left.
    """
    days = use_case.days(rows[use_case.time])
    labelled = rows[use_case.outcome].notna()
    with_outcomes = sorted(days[labelled].unique())
    if len(with_outcomes) <= held_out_days:
        raise UnfitData(
            f"{len(with_outcomes)} days have outcomes, and {held_out_days} of them are to be held out: at least "
            f"{held_out_days + 1 - len(with_outcomes)} more days are needed (DRIFTLOOP_GATE__HELD_OUT_DAYS)"
        )
    if held_out_days == 0:
        return rows[days <= with_outcomes[-1]], rows[:0]
    first = with_outcomes[-held_out_days]
    return rows[days < first], rows[(days >= first) & labelled]


def check(use_case: UseCase, rows: pd.DataFrame) -> None:
    """Raises :class:`UnfitData` where the rows have one outcome only: neither training nor a ROC AUC comes of them."""
    outcomes = rows[use_case.outcome].dropna()
    if outcomes.nunique() < 2:
        raise UnfitData(
            f"{use_case.outcome} has {outcomes.nunique()} different values in {len(outcomes)} labelled rows; "
            "two are needed"
        )


def check_unseen(use_case: UseCase, held_out: pd.DataFrame, learned_until: pd.Timestamp) -> None:
    """Raises :class:`UnfitData` where the champion has learned from rows of the time that both are to be judged on."""
    seen = int((held_out[use_case.time] <= learned_until).sum())
    if seen:
        raise UnfitData(
            f"the champion has learned from rows up to {learned_until:%Y-%m-%d %H:%M}, and {seen} of {len(held_out)} "
            "held-out rows are not later: outcomes of later days are needed, or fewer held-out days "
            "(DRIFTLOOP_GATE__HELD_OUT_DAYS)"
        )
