"""Roll back to a version that was in service before. The operator's command and the trainer share this."""

from collections.abc import Iterable

from driftloop.errors import Rejected
from driftloop.events import Event, ModelStateChanged, new_event_id
from driftloop.registry.model_registry import AliasChanging, ModelRegistry
from driftloop.telemetry import tracing


class RollbackNotPossible(Rejected):
    """There is no version to roll back to; nothing has changed. The message says why."""


def roll_back(registry: ModelRegistry, reason: str, to: str | None = None) -> ModelStateChanged:
    """Move the alias back to an earlier version and return the event that reports it.

    The caller has to publish the event. Predictors then swap at once; without it they see the alias at their next poll.

    Args:
        registry: The model and its alias.
        reason: Why, in words; it ends the event's explanation.
        to: The version to roll back to; by default the one that was in service before.

    Raises:
        RollbackNotPossible: There is no such version, or another change of the alias is under way.
        RegistryUnavailable: The registry does not answer. The alias may or may not have moved.
    """
    try:
        with registry.changing_alias(wait=False):
            return _roll_back(registry, reason, to)
    except AliasChanging as error:
        raise RollbackNotPossible(str(error)) from error


def _roll_back(registry: ModelRegistry, reason: str, to: str | None) -> ModelStateChanged:
    champion = registry.champion()
    if champion is None and to is None:
        last = registry.last_champion()
        raise RollbackNotPossible(
            f"no version of {registry.model} has the alias {registry.alias}: name the one to serve with --to"
            + (f"; version {last} had it last" if last else "")
        )
    target = registry.previous() if to is None else to
    if target is None:
        raise RollbackNotPossible(
            f"no version to roll back to: none was in service before version {champion}, or that one was rolled back "
            "itself; name a version with --to"
        )
    if target == champion:
        raise RollbackNotPossible(f"version {champion} is already in service")
    if target not in (versions := registry.versions()):
        raise RollbackNotPossible(f"{registry.model} has no version {target}; its versions are {', '.join(versions)}")
    trained_through = registry.trained_through(target)
    before = f"instead of version {champion}" if champion else f"after no version had the alias {registry.alias}"
    change = ModelStateChanged(
        traceparent=tracing.current_traceparent(),
        retrain_id=(registry.retrain_id_of(champion) if champion else "") or new_event_id(),
        model=registry.model,
        version=target,
        state="rolled_back",
        explanation=f"version {target} serves again {before}: {reason}",
        trained_through=trained_through.to_pydatetime() if trained_through.value else None,
    )
    registry.apply_rollback(champion, change)
    return change


def unpublished_rollbacks(registry: ModelRegistry, published: Iterable[Event]) -> list[ModelStateChanged]:
    """Return the event of the last rollback, if its process was killed before it could publish it.

    The list is empty if the event is among those published, or if the alias has moved since.
    """
    published_ids = {event.id for event in published}
    champion = registry.champion()
    last = max(registry.recorded_rollbacks(), key=lambda change: change.time, default=None)
    return [last] if last is not None and last.version == champion and last.id not in published_ids else []
