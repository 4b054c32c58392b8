"""Whether a promoted version stays: the one before it is asked about the same rows, from the archive.

    python -m trainer.probation.probation

says what it finds now, and rolls back by itself if it has to. Nothing of it touches what serves.
"""

import sys
from typing import Literal

import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from pydantic import BaseModel

from driftloop.evaluation.metrics import Floats, figure_of, paired_difference
from driftloop.events import ModelChange
from driftloop.kafka.publisher import Publisher
from driftloop.registry.model_registry import Refused, Registry
from driftloop.registry.rollback import roll_back
from driftloop.settings import load
from driftloop.storage import labelled_archive
from driftloop.storage.bucket import Away, Bucket
from driftloop.telemetry.health import configure_logging
from driftloop.usecase import UseCase
from trainer.retrain import training
from trainer.retrain.subprocess_job import Again, Tell
from trainer.settings import Probation, TrainerSettings


class Verdict(BaseModel, frozen=True):
    """What is to become of the version in service, and why, in words."""

    what: Literal["waits", "stays", "goes"]
    """It waits for more outcomes, it stays whatever comes now, or it has to go."""
    why: str
    version: str | None = None
    previous: str | None = None


def decide(use_case: UseCase, served: pd.DataFrame, previous: Floats, probation: Probation) -> Verdict:
    """What the outcomes of a version's first days say, beside what the version before would have said of the rows.

    ``served`` has the rows that it answered and whose outcomes are known: time, outcome and prediction.
    """
    outcomes = served[use_case.outcome].to_numpy(np.float64)
    said = served["prediction"].to_numpy(np.float64)
    days = len(np.unique(use_case.day_numbers(served[use_case.time])))
    metric = use_case.metric
    by = paired_difference(
        metric, outcomes, said, previous, use_case.blocks(served[use_case.time]), level=probation.level
    )
    worse = by.low > 0 if metric == "roc_auc" else by.high < 0
    label = {"roc_auc": "ROC AUC", "rmse": "RMSE"}[metric]
    why = (
        f"{label} {figure_of(metric, outcomes, said):.3f} on {len(served):,} rows of {days} days since its promotion, "
        f"and the version before would have had {figure_of(metric, outcomes, previous):.3f}: a difference of "
        f"{by.value:+.3f} [{by.low:+.3f}, {by.high:+.3f}] at {probation.level:.0%}, days drawn whole"
    )
    if worse:
        return Verdict(what="goes", why=f"{why}, which is clearly better")
    if days < probation.days:
        return Verdict(what="waits", why=f"{why}; {probation.days - days} more days of outcomes count")
    return Verdict(what="stays", why=why)


def first_days(use_case: UseCase, served: pd.DataFrame, days: int) -> pd.DataFrame:
    """The rows of the first days that a version has outcomes of."""
    numbers = use_case.day_numbers(served[use_case.time])
    return served[numbers < numbers.min() + days] if len(served) else served


def judge_probation(settings: TrainerSettings, registry: Registry, bucket: Bucket) -> Verdict:
    """What is to become of the version in service.

    Cheap where nothing is to be decided: the archive is read only while there is a version to go back to, and that one
    is loaded only once there are days enough. Raises what registry and bucket raise where they are out of reach.
    """
    use_case, probation = settings.use_case, settings.probation
    version, previous = registry.champion(), registry.previous()
    between = {"version": version, "previous": previous}
    if probation.days == 0:
        return Verdict(what="stays", why="there is no probation (DRIFTLOOP_PROBATION__DAYS)", **between)
    if version is None or previous is None:
        return Verdict(what="stays", why="there is no version to go back to", **between)
    served = first_days(use_case, answered_by(settings, bucket, version), probation.days)
    days = len(np.unique(use_case.day_numbers(served[use_case.time])))
    if days < probation.fewest_days:
        why = f"{days} days of outcomes since its promotion, and {probation.fewest_days} are needed"
        return Verdict(what="waits", why=why, **between)
    try:
        before = registry.load(previous)
    except Refused as error:
        return Verdict(what="stays", why=f"version {previous} cannot be loaded: {error}", **between)
    said = training.answers(use_case, before.estimator, served)
    return decide(use_case, served, said, probation).model_copy(update=between)


def answered_by(settings: TrainerSettings, bucket: Bucket, version: str) -> pd.DataFrame:
    """The archived rows that a version has answered and whose outcomes are known, in order of time."""
    with labelled_archive.opened(bucket, settings.topics, settings.use_case) as archive:
        return archive.read(labelled_archive.Selection(versions=(version,))).dropna(subset=["prediction"])


def end(registry: Registry, verdict: Verdict) -> ModelChange | None:
    """Rolls back where the version has to go, and it is still the one in service; returns the event that says so."""
    if verdict.what != "goes" or registry.champion() != verdict.version:
        return None
    return roll_back(registry, f"probation: {verdict.why}", verdict.previous)


def work(_: str, tell: Tell) -> str:
    """Judges once, in a child process; returns the verdict (JSON).

    Raises :class:`~trainer.retrain.subprocess_job.Again` where registry or bucket are away.
    """
    settings = load(TrainerSettings)
    configure_logging("trainer", settings.log)
    tell("probation", "asks the version before about the same rows")
    try:
        return judge_probation(settings, Registry(settings.registry), Bucket(settings.storage)).model_dump_json()
    except (MlflowException, Away) as error:
        raise Again(str(error)) from error


def main() -> int:
    """Judges once; returns the exit code."""
    settings = load(TrainerSettings)
    registry = Registry(settings.registry)
    verdict = judge_probation(settings, registry, Bucket(settings.storage))
    print(f"version {verdict.version} {verdict.what}: {verdict.why}")
    change = end(registry, verdict)
    if change is not None:
        with Publisher(settings.kafka, settings.topics, "trainer") as publisher:
            publisher.publish(change)
        print(change.why)
    return 0


if __name__ == "__main__":
    sys.exit(main())
