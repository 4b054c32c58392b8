"""The life of a retrain event: dataset, training, gate, promotion."""

import time
from collections.abc import Collection, Iterable
from typing import Any

import numpy as np
import pandas as pd
import structlog

from driftloop.consuming import Final, Received
from driftloop.events import ModelChange, Retrain
from driftloop.producing import Publisher
from driftloop.quality import measure
from driftloop.reference import write_measured
from driftloop.registry import Registry
from driftloop.storage import Bucket
from trainer import dataset, gate, metrics, training
from trainer.settings import TrainerSettings

log = structlog.get_logger(__name__)


class Retrains:
    """Handles the retrain events of one model, one at a time; each ends in one final state on ``models``.

    An event's last state is published together with its offset. Delivered again, one that brought a version is told
    again and not repeated; one that failed is tried again.
    """

    def __init__(self, settings: TrainerSettings, registry: Registry, bucket: Bucket, publisher: Publisher) -> None:
        """Nothing is read before the first event."""
        self._settings = settings
        self._use_case = settings.use_case
        self._registry = registry
        self._bucket = bucket
        self._publisher = publisher

    def handle(self, received: Received) -> Iterable[Final]:
        """Runs one retrain to its end, which may take minutes."""
        retrain = received.event
        states = []
        if isinstance(retrain, Retrain) and retrain.model == self._use_case.name:
            states.append(self._run(retrain))
        return [Final(received.topic, received.partition, received.offset + 1, states)]

    def idle(self) -> Iterable[Final]:
        """Nothing is held between events."""
        return []

    def revoked(self, partitions: Collection[tuple[str, int]]) -> None:
        """Nothing is held between events."""

    def _run(self, retrain: Retrain) -> ModelChange:
        """The retrain's final state, to be published with its offset."""
        began = time.monotonic()
        done = self._registry.outcome_of(retrain.id)
        if done is not None:
            change = ModelChange.model_validate_json(done)
        else:
            why = f"asked for by {retrain.asked_by}: {retrain.reason}"
            self._publisher.publish(self._change(retrain, "training", None, why))
            change = self._train(retrain)
        # Outside of what may fail: where the alias cannot be moved, the event is delivered again and finds its outcome.
        if change.state == "promoted" and change.version is not None:
            self._registry.promote(change.version)
        metrics.RETRAINS.labels(retrain.trigger, change.state).inc()
        metrics.SECONDS.observe(time.monotonic() - began)
        log.info("retrain over", retrain=retrain.id, state=change.state, version=change.version, why=change.why)
        return change

    def _train(self, retrain: Retrain) -> ModelChange:
        try:
            return self._prove(retrain)
        except Exception as error:  # whatever a dataset or a pipeline raises: the asker is told, and serving goes on
            log.exception("retrain failed", retrain=retrain.id)
            return self._change(retrain, "failed", None, f"{type(error).__name__}: {error}")

    def _prove(self, retrain: Retrain) -> ModelChange:
        settings, use_case = self._settings, self._use_case
        champion = self._registry.champion()

        base = dataset.pull(settings.storage, use_case.pointer)
        names = settings.topics
        archive = (
            dataset.archived(self._bucket, names.predictions, names.outcomes, use_case)
            if retrain.data.archive
            else None
        )
        rows = dataset.select(use_case, base, archive, retrain.data)
        # The first version has nobody to be compared with, so it may learn from everything.
        learn, held_out = dataset.split(use_case, rows, settings.gate.held_out_days if champion else 0)
        dataset.check(use_case, learn)
        if champion is not None:
            dataset.check(use_case, held_out)
            dataset.check_unseen(use_case, held_out, self._registry.learned_until(champion))

        challenger = training.register(
            use_case, self._registry, self._bucket, retrain, learn, settings.window, settings.calibration.methods
        )
        metrics.ROWS.labels(use_case.name).set(challenger.rows)

        decision = gate.FIRST
        if champion is not None:
            decision = self._compare(champion, challenger, held_out)
            metrics.HELD_OUT.labels(use_case.name, "champion").set(decision.champion["roc_auc"])
            metrics.HELD_OUT.labels(use_case.name, "challenger").set(decision.challenger["roc_auc"])
            self._registry.log_figures(challenger.run_id, "champion", decision.champion)
            self._registry.log_figures(challenger.run_id, "challenger", decision.challenger)
        change = self._change(
            retrain, "promoted" if decision.promote else "rejected", challenger.version, decision.why, decision
        )
        # The outcome stands on the version before the alias moves, so that a repeated event finds it.
        self._registry.record(challenger.version, change.model_dump_json(), change.why)
        return change

    def _compare(self, champion: str, challenger: training.Challenger, held_out: pd.DataFrame) -> gate.Decision:
        """The decision. What was measured of the challenger is kept: its quality in service is compared with it."""
        use_case = self._use_case
        features = held_out[use_case.features]
        outcomes = held_out[use_case.outcome].to_numpy(dtype=float)
        days = use_case.day_numbers(held_out[use_case.time])
        predictions = _probabilities(challenger.estimator, features)
        write_measured(self._bucket, use_case.name, challenger.version, measure(outcomes, predictions, days))
        return gate.decide(
            outcomes,
            _probabilities(self._registry.load(champion).estimator, features),
            predictions,
            days,
            level=self._settings.gate.level,
            margin=self._settings.gate.margin,
        )

    def _change(
        self, retrain: Retrain, state: str, version: str | None, why: str, decision: gate.Decision = gate.FIRST
    ) -> ModelChange:
        return ModelChange.model_validate(
            {
                "retrain_id": retrain.id,
                "model": retrain.model,
                "state": state,
                "version": version,
                "why": why,
                "champion": decision.champion,
                "challenger": decision.challenger,
            }
        )


def _probabilities(estimator: Any, features: pd.DataFrame) -> gate.Floats:
    return np.asarray(estimator.predict_proba(features), dtype=np.float64)[:, 1]
