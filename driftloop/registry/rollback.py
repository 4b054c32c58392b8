"""Going back to a version that was in service before: one function, for people and for the trainer."""

from collections.abc import Iterable

from driftloop.events import Event, ModelChange, new_id
from driftloop.registry.model_registry import Registry


class CannotRollBack(Exception):
    """Nothing has changed; says why not."""


def roll_back(registry: Registry, reason: str, to: str | None = None) -> ModelChange:
    """Moves the alias back to the version that was in service before, or to ``to``; returns the event that says so.

    The caller has to publish it: predictors hear of it at once, and without it see the alias at their next look. Raises
    :class:`CannotRollBack`, and what MLflow raises where the registry is out of reach.
    """
    champion = registry.champion()
    if champion is None:
        raise CannotRollBack(f"no version of {registry.model} is in service")
    instead = registry.previous() if to is None else to
    if instead is None:
        raise CannotRollBack(
            f"there is nothing to go back to: no version was in service before version {champion}, or it was rolled "
            "back to; a version can be named with --to"
        )
    if instead == champion:
        raise CannotRollBack(f"version {champion} is in service already")
    if instead not in (versions := registry.versions()):
        raise CannotRollBack(f"there is no version {instead} of {registry.model}; there are {', '.join(versions)}")
    learned_until = registry.learned_until(instead)
    change = ModelChange(
        retrain_id=registry.retrain_of(champion) or new_id(),
        model=registry.model,
        version=instead,
        state="rolled_back",
        why=f"version {instead} serves again instead of version {champion}: {reason}",
        learned_until=learned_until.to_pydatetime() if learned_until.value else None,
    )
    registry.withdraw(champion, change)
    return change


def untold(registry: Registry, told: Iterable[Event]) -> list[ModelChange]:
    """The last change of the version in service, if it was a way back that was killed before it could be told."""
    ids = {event.id for event in told}
    champion = registry.champion()
    last = max(registry.withdrawn(), key=lambda change: change.time, default=None)
    return [last] if last is not None and last.version == champion and last.id not in ids else []
