"""One retrain, from its data to its decision: what the child process does. The steps stand in :func:`prove`, in order.

What it leaves in the registry tells its story; how it ended is returned, and stands on the version before that.
"""

import tempfile
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any, NamedTuple

import mlflow
import numpy as np
import pandas as pd
from mlflow.exceptions import MlflowException
from threadpoolctl import threadpool_limits

from driftloop.drift import calibration
from driftloop.evaluation.metrics import measure
from driftloop.events import ModelChange, Retrain
from driftloop.registry.model_registry import Registry, fetched, read
from driftloop.settings import TRUSTED_TYPES, load
from driftloop.storage import dvc, reference_store
from driftloop.storage.bucket import Away, Bucket
from driftloop.storage.dvc import pointed
from driftloop.storage.reference_store import write_measured
from driftloop.telemetry import tracing
from driftloop.telemetry.health import configure_logging
from trainer.gate import gate
from trainer.gate.gate import Answers, Decision, Tried
from trainer.gate.smoke_test import Fresh
from trainer.retrain import training, training_set
from trainer.retrain.subprocess_job import Again, Tell
from trainer.settings import TrainerSettings


class Rows(NamedTuple):
    """A dataset version, cut for the gate."""

    learn: pd.DataFrame
    held_out: pd.DataFrame
    """The latest labelled rows, which neither champion nor challenger has learned from; none for a first version."""
    everything: pd.DataFrame
    """Both, up to the last held-out row."""


def work(argument: str, tell: Tell) -> str:
    """Runs the retrain of an event (JSON); returns its final state (JSON).

    Raises :class:`Again` where registry or bucket are away: whatever failed may have failed for that.
    """
    settings = load(TrainerSettings)
    configure_logging("trainer", settings.log)
    retrain = Retrain.model_validate_json(argument)
    registry, bucket = Registry(settings.registry), Bucket(settings.storage)
    with (
        tracing.running("trainer", settings.tracing),
        tracing.span("retrain", "consumer", of=[retrain.traceparent], retrain=retrain.id),
        ExitStack() as phase,
    ):

        def enter(name: str, words: str) -> None:
            phase.close()
            phase.enter_context(tracing.span(name))
            tell(name, words)

        try:
            with threadpool_limits(settings.trainer.threads):
                return prove(settings, retrain, registry, bucket, enter).model_dump_json()
        except Exception as error:
            if (away := _away(registry, bucket)) is not None:
                raise Again(f"{away} ({type(error).__name__}: {error})") from error
            raise


def prove(settings: TrainerSettings, retrain: Retrain, registry: Registry, bucket: Bucket, tell: Tell) -> ModelChange:
    """Data, training, gate, trial, registration. Raises whatever a dataset or a pipeline raises."""
    use_case = settings.use_case
    champion = registry.champion()
    with (
        tempfile.TemporaryDirectory(prefix="driftloop-retrain-") as name,
        Fresh() as fresh,
        ThreadPoolExecutor(initializer=threadpool_limits, initargs=(settings.trainer.threads,)) as beside,
    ):
        folder = Path(name)
        begun_anew = beside.submit(registry.abandon, retrain.id)
        serving = beside.submit(registry.fetch, champion, folder / "champion") if champion else None

        tell("data", "fetches the base dataset and what the archive has")
        made = training_set.build(
            settings.storage, bucket, settings.topics, use_case, retrain.data, settings.data, folder
        )
        pushed = beside.submit(dvc.push, settings.storage, made.path)
        rows = _cut(settings, training_set.read(made.path), registry.learned_until(champion) if champion else None)
        calibration.check(len(rows.everything), settings.window.rows)  # now, and not after the training
        if serving is not None:
            fresh.hold_against(serving.result())
        tell("training", f"{made.counts}: trains on those up to {rows.learn[use_case.time].max():%Y-%m-%d}")
        estimator, count = training.train(use_case, rows.learn)
        given = None
        if serving is not None:
            tell("gate", f"holds it against version {champion} on {len(rows.held_out):,} rows that neither has seen")
            given = _answers(settings, estimator, read(serving.result(), TRUSTED_TYPES).estimator, rows.held_out)
        refit = settings.gate.refit and given is not None and _decision(settings, given, Tried()).promote
        learn = rows.everything if refit else rows.learn
        # Better told on rows that it has not learned from; and a second training would lean on the same.
        leans = beside.submit(training.importance, use_case, estimator, rows.held_out if serving else rows.learn)
        if refit:
            tell("refit", f"trains it once more, with the {len(rows.held_out):,} held-out rows")
            estimator, count = training.train(use_case, learn)

        tell("trial", "logs it, tries it out in a fresh process, and learns what its windows look like")
        begun_anew.result()
        pointer = pushed.result()
        logging = beside.submit(
            training.log,
            use_case,
            retrain,
            settings.trainer.revision or training.git_revision(),
            estimator,
            learn,
            params={
                **made.counts._asdict(),
                "learned_rows": count,
                "held_out_rows": len(rows.held_out),
                "refit": refit,
            },
            files={made.artifact: pointer},
        )
        trial = beside.submit(lambda: fresh.tried(fetched(logging.result().uri, folder), settings.gate.try_seconds))
        learned = training.learn_reference(
            use_case, estimator, learn, settings.window, settings.calibration.methods, leans.result()
        )
        decision = _decision(settings, given, trial.result())
        logged = logging.result()

    tell("registration", "registers it with its reference")
    decision.challenger.update(learned_rows=float(count), dataset_rows=float(made.counts.labelled))
    figures = {
        f"{role}_{figure}": value
        for role, found in (("champion", decision.champion), ("challenger", decision.challenger))
        for figure, value in found.items()
    }
    mlflow.log_metrics(figures, run_id=logged.run_id)
    version = registry.create_version(logged.uri, retrain.id, figures)
    reference_store.write(bucket, use_case.name, version, learned)  # no event names the version before the alias does
    if given is not None:  # its quality in service is compared with what was measured
        write_measured(bucket, use_case.name, version, measure(given.outcomes, given.challenger, given.blocks))
    return _recorded(registry, retrain, version, decision, learn[use_case.time].max(), pointed(pointer).md5)


def _cut(settings: TrainerSettings, rows: pd.DataFrame, learned_until: pd.Timestamp | None) -> Rows:
    """Learned and held-out rows. The first version has nobody to be compared with, so it may learn from everything."""
    use_case = settings.use_case
    days = use_case.day_numbers(rows.loc[rows[use_case.outcome].notna(), use_case.time])
    if learned_until is None:
        learn, held_out = training_set.split(use_case, rows, 0)
        return Rows(learn, held_out, learn)
    learn, held_out = training_set.split(use_case, rows, gate.days_held_out(days, settings.gate))
    training_set.check(use_case, learn)
    training_set.check(use_case, held_out)
    training_set.check_unseen(use_case, held_out, learned_until)
    return Rows(learn, held_out, rows[rows[use_case.time] <= held_out[use_case.time].max()])


def _answers(settings: TrainerSettings, challenger: Any, champion: Any, held_out: pd.DataFrame) -> Answers:
    use_case = settings.use_case
    return Answers(
        outcomes=held_out[use_case.outcome].to_numpy(dtype=np.float64),
        champion=training.answers(use_case, champion, held_out),
        challenger=training.answers(use_case, challenger, held_out),
        blocks=use_case.blocks(held_out[use_case.time]),
        block_days=use_case.block_days,
        groups={column: held_out[column].to_numpy(dtype=object) for column in use_case.groups},
    )


def _decision(settings: TrainerSettings, given: Answers | None, trial: Tried) -> Decision:
    if given is None:
        return gate.first(trial)
    return gate.decide(settings.use_case.metric, given, trial, settings.gate)


def _recorded(
    registry: Registry, retrain: Retrain, version: str, decision: Decision, learned_until: pd.Timestamp, dataset: str
) -> ModelChange:
    """The final state, which stands on the version before the alias moves: a repeated event finds it there."""
    change = ModelChange(
        retrain_id=retrain.id,
        model=retrain.model,
        version=version,
        state="promoted" if decision.promote else "rejected",
        why=decision.why,
        champion=decision.champion,
        challenger=decision.challenger,
        learned_until=learned_until.to_pydatetime(),
        dataset=dataset,
    )
    registry.record(version, change)
    return change


def _away(registry: Registry, bucket: Bucket) -> str | None:
    """Which of them does not answer now."""
    try:
        registry.champion()
        bucket.exists("references")
    except (MlflowException, Away, OSError) as error:
        return f"{type(error).__name__}: {error}"
    return None
