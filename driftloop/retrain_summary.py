"""Retrains at a glance: what was requested, why and by whom, and what has come of it. Pure."""

from collections.abc import Iterable, Mapping
from typing import Literal

from driftloop.events import Event, ModelStateChanged, RetrainRequested
from driftloop.events.base import EventTime, FrozenModel


class RetrainSummary(FrozenModel):
    """A retrain with its latest state, or the rollback of the version that it promoted."""

    retrain_id: str
    """Id of the event that requested the retrain."""
    model: str
    """Name of the registered model."""
    time: EventTime
    """When the state was reached."""
    state: Literal["waiting", "training", "promoted", "rejected", "failed", "rolled_back"]
    """The latest state; ``waiting`` before the first one. A rollback is a summary of its own."""
    version: str | None = None
    """The challenger, once it is registered; of ``rolled_back`` the version that serves again."""
    explanation: str = ""
    """The state in words: the phase, the gate's decision, or the error."""
    trigger: Literal["manual", "drift", "schedule"] | None = None
    """What requested it; null, like the next two, if the request is not on the topic: it was run by a command."""
    requested_by: str | None = None
    """Person or program that requested it."""
    reason: str | None = None
    """Why a new version was requested, in words."""
    requested_at: EventTime | None = None
    """When it was requested."""
    waits_for: str | None = None
    """Of ``waiting``: id of the retrain that is trained before it; null if none is being trained."""


def summarize_retrains(events: Iterable[Event], model: str, count: int) -> list[RetrainSummary]:
    """Return the last ``count`` retrains and rollbacks of a model, the latest state last.

    Args:
        events: Events of the topics of retrains and of models, each topic in its order. Others are ignored.
        model: Name of the registered model.
        count: How many to return.
    """
    requests: dict[str, RetrainRequested] = {}
    states: dict[str, ModelStateChanged] = {}
    rollbacks: dict[str, ModelStateChanged] = {}
    for event in events:
        match event:
            case RetrainRequested(model=name) if name == model:
                requests.setdefault(event.id, event)
            case ModelStateChanged(model=name, state="rolled_back") if name == model:
                rollbacks[event.id] = event
            case ModelStateChanged(model=name) if name == model:
                states[event.retrain_id] = event
    changes = sorted([*states.values(), *rollbacks.values()], key=lambda change: change.time)
    summaries = [summarize_state(change, requests) for change in changes]
    return [*summaries, *_waiting(requests, states)][-count:]


def _waiting(requests: Mapping[str, RetrainRequested], states: Mapping[str, ModelStateChanged]) -> list[RetrainSummary]:
    """Return requests without a state. They run in order: those before one with a state only have older states."""
    waiting: list[RetrainSummary] = []
    latest = max(states.values(), key=lambda state: state.time, default=None)
    under_way = None if latest is None or latest.is_final else latest.retrain_id
    explanation = f"waits for retrain {under_way}" if under_way else "no trainer has begun with it yet"
    for request in requests.values():
        if request.id in states:
            waiting = []
        else:
            waiting.append(
                RetrainSummary(
                    retrain_id=request.id,
                    model=request.model,
                    time=request.time,
                    state="waiting",
                    explanation=explanation,
                    waits_for=under_way,
                    **_origin(request),
                )
            )
    return waiting


def summarize_state(change: ModelStateChanged, requests: Mapping[str, RetrainRequested]) -> RetrainSummary:
    """Return the summary of a retrain that has reached a state.

    Args:
        change: The state.
        requests: Requests by their ids; one that is missing is left out of the summary.
    """
    request = requests.get(change.retrain_id)
    return RetrainSummary(
        retrain_id=change.retrain_id,
        model=change.model,
        time=change.time,
        state=change.state,
        version=change.version,
        explanation=change.explanation,
        **({} if request is None else _origin(request)),
    )


def _origin(request: RetrainRequested) -> dict[str, object]:
    return {
        "trigger": request.trigger,
        "requested_by": request.requested_by,
        "reason": request.reason,
        "requested_at": request.time,
    }
