"""``driftloop challenge``: its options, and what it prints."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftloop.command_line import load_settings_or_exit, user_name
from driftloop.errors import ArchiveUnreadable
from driftloop.exit_codes import ExitCode
from driftloop.kafka.publisher import Publisher
from driftloop_cli.console import (
    AsJson,
    exit_if_unavailable,
    exit_on_registry_error,
    exit_with,
    print_json,
    print_message,
    print_notice,
)

if TYPE_CHECKING:
    from driftloop_cli.challenge import Challenge


def challenge(
    version: Annotated[str, typer.Argument(help="version to hold against the champion")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only say how it would end")] = False,
    as_json: AsJson = False,
) -> None:
    """Hold a registered version against the champion, and promote it if it passes the gate.

    Both score the archive's labelled rows that neither has learned from, in this command; the predictor is not
    involved. The gate is that of a retrain, with its settings (DRIFTLOOP_GATE__…). Also reads DRIFTLOOP_STORAGE__URL
    and DRIFTLOOP_USE_CASE. The exit code is 3 if the gate rejects the version, and 7 if it cannot be compared.

        driftloop challenge 5 --dry-run
    """
    # MLflow, scikit-learn and pandas take seconds to import
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415
    from driftloop_cli import challenge as steps  # noqa: PLC0415

    settings = load_settings_or_exit(steps.ChallengeSettings)
    change = None
    with exit_on_registry_error():
        registry = ModelRegistry(settings.registry)
        try:
            result = steps.challenge(settings, registry, version, print_notice)
            if result.decision.promote and not dry_run:
                change = steps.promote(settings, registry, result, user_name())
        except ArchiveUnreadable as error:
            raise exit_with(ExitCode.REFUSED, str(error)) from error
    if as_json:
        print_json(as_dict(result, promoted=change is not None))
    else:
        print_message(describe(result, dry_run=dry_run))
    if change is not None:
        with exit_if_unavailable(), Publisher(settings.kafka, settings.topics, "cli") as publisher:
            publisher.publish(change)
    if not result.decision.promote:
        raise typer.Exit(ExitCode.RETRAIN_REJECTED)


def as_dict(result: "Challenge", *, promoted: bool) -> dict[str, Any]:
    """Return a comparison, for programs."""
    return {
        "version": result.version,
        "champion": result.champion,
        "passed": result.decision.promote,
        "promoted": promoted,
        "since": None if result.since is None else result.since.isoformat(),
        "rows": result.rows,
        "explanation": result.decision.explanation,
        "reasons": list(result.decision.reasons),
        "metrics": {"champion": result.decision.champion, "challenger": result.decision.challenger},
    }


def describe(result: "Challenge", *, dry_run: bool) -> str:
    """Return a comparison, in words."""
    if not result.decision.promote:
        return f"version {result.version} is rejected, version {result.champion} stays: {result.decision.explanation}"
    outcome = "would be promoted" if dry_run else "is promoted"
    return f"version {result.version} {outcome}: {result.decision.explanation}"
