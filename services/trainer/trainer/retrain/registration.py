"""The end of a retrain: its version with metrics, reference and gate evaluation, and the recorded result."""

import mlflow
import pandas as pd

from driftloop.drift.profile_summary import profile_tags
from driftloop.evaluation.gate import Decision
from driftloop.events import Evaluation, ModelStateChanged, RetrainRequested
from driftloop.registry.model_registry import TAG_COMPARED_WITH, ModelRegistry
from driftloop.registry.recorded_privacy import privacy_tags
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference, save_gate_evaluation, save_reference
from driftloop.telemetry import tracing
from trainer.retrain.training import LoggedModel


def register(
    retrain: RetrainRequested,
    registry: ModelRegistry,
    store: ObjectStore,
    logged: LoggedModel,
    champion: str | None,
    decision: Decision,
    reference: Reference,
    evaluation: Evaluation | None,
) -> str:
    """Create the version with its metrics, reference and gate evaluation; return the version.

    The version names the champion that the decision compared it with: it may not replace another one.
    """
    model = registry.model
    metrics = {
        f"{role}_{metric}": value
        for role, values in (("champion", decision.champion), ("challenger", decision.challenger))
        for metric, value in values.items()
    }
    mlflow.log_metrics(metrics, run_id=logged.run_id)
    profile = reference.profile
    tags = {**profile_tags(profile), **privacy_tags(profile.privacy)}
    about = {"reason": retrain.reason, "requested_by": retrain.requested_by, **tags}
    if champion is not None:
        about[TAG_COMPARED_WITH] = champion
    version = registry.create_version(logged.uri, retrain.id, about)
    # Before the alias moves, so before any event names the version.
    save_reference(store, model, version, reference, logged.run_id)
    if evaluation is not None:  # its quality in service is compared with this
        save_gate_evaluation(store, model, version, evaluation, logged.run_id)
    return version


def record_result(
    registry: ModelRegistry,
    retrain: RetrainRequested,
    version: str,
    decision: Decision,
    trained_through: pd.Timestamp,
    dataset_md5: str,
) -> ModelStateChanged:
    """Record the final state on the version before the alias moves: an event that is delivered again finds it there."""
    state = ModelStateChanged(
        traceparent=tracing.current_traceparent(),
        retrain_id=retrain.id,
        model=retrain.model,
        version=version,
        state="promoted" if decision.promote else "rejected",
        explanation=decision.explanation,
        champion=decision.champion,
        challenger=decision.challenger,
        trained_through=trained_through.to_pydatetime(),
        dataset_md5=dataset_md5,
    )
    registry.record_result(version, state)
    return state
