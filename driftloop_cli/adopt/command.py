"""``driftloop adopt``: its options, and what it prints."""

import warnings
from collections.abc import Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from driftloop.command_line import load_settings_or_exit
from driftloop.errors import InvalidInput
from driftloop.kafka.publisher import Publisher
from driftloop.setting_values import require_model_name
from driftloop_cli.console import (
    AsJson,
    exit_if_unavailable,
    exit_on_registry_error,
    print_json,
    print_message,
    print_notice,
)
from driftloop_cli.time_zones import require_timezone

if TYPE_CHECKING:
    from driftloop_cli.adopt.adoption import Adoption


class Method(StrEnum):
    """Methods that a version's predictions can come from."""

    PROBABILITIES = "predict_proba"
    LABELS_OR_NUMBERS = "predict"


def _parse_model(name: str) -> str:
    try:
        return require_model_name(name)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def _parse_timezone(name: str) -> str:
    try:
        return require_timezone(name)
    except InvalidInput as error:
        raise typer.BadParameter(str(error)) from error


def adopt(
    model: Annotated[str, typer.Argument(parser=_parse_model, metavar="MODEL", help="registered model in MLflow")],
    data: Annotated[
        Path,
        typer.Option(
            metavar="FILE",
            dir_okay=False,
            exists=True,
            help="rows as the model was trained on: .parquet or .csv; its windows will be compared with them",
        ),
    ],
    version: Annotated[str | None, typer.Argument(help="its version; by default the latest")] = None,
    target: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="column with what really happened: shows which features count")
    ] = None,
    time: Annotated[
        str | None,
        typer.Option(metavar="COLUMN", help="column with the time of a row; without it, rows are independent"),
    ] = None,
    timezone: Annotated[
        str, typer.Option(parser=_parse_timezone, metavar="ZONE", help="time zone of days, and of times without one")
    ] = "UTC",
    category: Annotated[
        list[str] | None, typer.Option(metavar="COLUMN", help="column of numbers that are codes; repeatable")
    ] = None,
    method: Annotated[
        Method | None, typer.Option(help="method that predicts; by default predict_proba if the model has it")
    ] = None,
    name: Annotated[
        str | None,
        typer.Option(
            "--as", parser=_parse_model, metavar="MODEL", help="model of the new version; by default the same"
        ),
    ] = None,
    trust_pickle: Annotated[
        bool, typer.Option("--trust-pickle", help="load a pickle, in a process without credentials and network")
    ] = False,
    allow_network: Annotated[
        bool, typer.Option("--allow-network", help="load it also where that process would keep its network")
    ] = False,
    yes: Annotated[
        bool, typer.Option("--yes", help="trust the types that the model needs, without a question")
    ] = False,
    promote: Annotated[bool, typer.Option("--promote", help="let the alias name the new version")] = False,
    as_json: AsJson = False,
) -> None:
    """Make a version that is served and watched of any scikit-learn model in MLflow, however it was logged.

    The version becomes a new one in skops' format, with signature, example and reference. Reads
    DRIFTLOOP_REGISTRY__URI, DRIFTLOOP_REGISTRY__TRUSTED_TYPES, DRIFTLOOP_STORAGE__URL and DRIFTLOOP_WINDOW__ROWS.
    The exit code is 7 if the version cannot be adopted, 2 if the rows do not fit, and 6 if MLflow or the store does
    not answer.

        driftloop adopt churn --data rows.parquet --target left --time day --promote

        driftloop adopt churn 3 --data rows.csv --trust-pickle
    """
    from driftloop_cli.adopt import adoption  # noqa: PLC0415  # MLflow, scikit-learn and pandas take seconds to import
    from driftloop_cli.adopt.adoption import AdoptSettings  # noqa: PLC0415

    settings = load_settings_or_exit(AdoptSettings)

    def report(message: str) -> None:
        print_notice(message)

    def confirm_types(names: Sequence[str]) -> bool:
        report("the file contains types that are not trusted by default:")
        for type_name in names:
            report(f"  {type_name}")
        report("trust them only if creating one runs no code that the file chooses")
        try:
            return yes or typer.confirm("trust them?", err=True)
        except typer.Abort:  # nobody is there to answer
            return False

    options = adoption.AdoptionOptions(
        model=model,
        version=version,
        data=data,
        target=target,
        time=time,
        timezone=timezone,
        categories=category or (),
        method=None if method is None else method.value,
        name=name,
        trust_pickle=trust_pickle,
        allow_network=allow_network,
        promote=promote,
    )
    with exit_on_registry_error(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # MLflow's and the estimator's, of which a user can change nothing here
        adopted = adoption.adopt(settings, options, adoption.Conversation(report, confirm_types))
    if as_json:
        print_json(as_dict(adopted))
    else:
        for line in describe(adopted):
            print_message(line)
    if adopted.change is not None:
        with exit_if_unavailable(), Publisher(settings.kafka, settings.topics, "cli") as publisher:
            publisher.publish(adopted.change)


def as_dict(adopted: "Adoption") -> dict[str, Any]:
    """Return what was done, for programs."""
    comparison, profile = adopted.comparison, adopted.profile
    return {
        "model": adopted.model,
        "version": adopted.version,
        "promoted": adopted.change is not None,
        "adopted_from": {
            "model": adopted.source.model,
            "version": adopted.source.version,
            "run_id": adopted.source.run_id,
            "format": adopted.source.format,
        },
        "method": adopted.method,
        "kinds": adopted.kinds,
        "inferred": adopted.inferred,
        "added_types": adopted.added_types,
        "compared_rows": comparison.rows if comparison else None,
        "max_difference": comparison.max_difference if comparison else None,
        "reference": {
            "url": adopted.reference_url,
            "rows": adopted.rows,
            "order": "time" if adopted.ordered else "independent",
            "stretches": [stretch.model_dump() for stretch in profile.stretches],
            "standard_deviations": profile.standard_deviations,
            "smallest_shifts": {str(span.windows): span.smallest_shifts for span in profile.spans},
        },
        "trained_through": adopted.trained_through.isoformat(),
    }


def describe(adopted: "Adoption") -> list[str]:
    """Return what was done, in words."""
    from driftloop.drift.profile_summary import (  # noqa: PLC0415  # pandas takes a second to import
        describe_smallest_shifts,
        describe_stretches,
    )

    source, comparison = adopted.source, adopted.comparison
    kinds: dict[str, list[str]] = {}
    for column, kind in adopted.kinds.items():
        kinds.setdefault(kind, []).append(column)
    lines = [
        f"version {adopted.version} of {adopted.model} is version {source.version} of {source.model}, as skops",
        f"predictions: {adopted.method}",
        *(f"{kind}: {', '.join(columns)}" for kind, columns in kinds.items()),
    ]
    if adopted.inferred:
        lines.append(f"inferred from the rows, since the version had none: {', '.join(adopted.inferred)}")
    if comparison is not None:
        lines.append(
            f"the {source.format} file and the new one give the same answers for {comparison.rows:,} rows (largest "
            f"difference {comparison.max_difference:.3g})"
        )
    if adopted.ordered:
        order = "in order of time"
    else:
        order = (
            "as independent rows: without --time nobody knows how rows of one day resemble each other, and there may "
            "be more false alarms than DRIFTLOOP_WINDOW__FALSE_ALARM_RATE says"
        )
    lines += [
        f"reference: {adopted.rows:,} rows, {order} ({adopted.reference_url})",
        f"stretches of the reference: {describe_stretches(adopted.profile)}",
        f"smallest shifts that are found: {describe_smallest_shifts(adopted.profile)}",
        f"taken as trained through {adopted.trained_through:%Y-%m-%d %H:%M} UTC"
        + ("" if adopted.ordered else ", when the version was registered"),
    ]
    if adopted.change is None:
        lines.append(f"not served yet: driftloop challenge {adopted.version}, or the same command with --promote")
    else:
        lines.append("the alias names it: predictors swap now")
    return lines
