"""The command ``driftloop new``."""

from collections.abc import Sequence
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from driftloop.errors import InvalidInput
from driftloop.exit_codes import ExitCode
from driftloop_cli.console import AsJson, err, exit_with, print_json, print_message, print_table
from driftloop_cli.new.place import place_use_case

if TYPE_CHECKING:
    from driftloop_cli.new.plan import UseCasePlan

MAX_EXAMPLES_LENGTH = 40  # of a cell of the printed table
ELLIPSIS = " …"

Name = Annotated[str, typer.Argument(help="name of the use case and its model: letters, digits and _")]
FromFile = Annotated[
    Path, typer.Option("--from", metavar="FILE", exists=True, dir_okay=False, help="CSV or Parquet file with the rows")
]
TargetColumn = Annotated[str, typer.Option("--target", metavar="COLUMN", help="column to predict")]
TimeColumn = Annotated[
    str, typer.Option("--time", metavar="COLUMN", help="column with the time at which a prediction would be requested")
]
IdColumn = Annotated[
    str | None, typer.Option("--id", metavar="COLUMN", help="column with the rows' own id, which is no feature")
]
Timezone = Annotated[
    str | None,
    typer.Option(help="time zone, such as Europe/Berlin, in which days are counted, and of times that name none: UTC"),
]
TimeFormat = Annotated[
    str | None, typer.Option(metavar="FORMAT", help="how times are written, such as '%d.%m.%Y %H:%M'; by default found")
]
MetricName = Annotated[
    str | None,
    typer.Option(help="scikit-learn scorer by which versions are compared; by default the usual one for the target"),
]
Into = Annotated[
    Path, typer.Option(metavar="FOLDER", file_okay=False, help="folder of use cases, from which Python can import")
]
Force = Annotated[bool, typer.Option("--force", help="overwrite the files of a use case of this name")]


def new(
    name: Name,
    file: FromFile,
    target: TargetColumn,
    time: TimeColumn,
    id_: IdColumn = None,
    timezone: Timezone = None,
    time_format: TimeFormat = None,
    metric: MetricName = None,
    into: Into = Path("usecases"),
    force: Force = False,
    as_json: AsJson = False,
) -> None:
    """Write a use case for a table: its columns, a pipeline, its rows, a test, and a README with the next commands.

    Prints what each column is taken for and why; each of these choices is a line in usecase.py. Reads no settings and
    needs no running service. The exit code is 7 if the table cannot be used as it is, or the use case exists already.

        driftloop new loans --from loans.csv --target repaid --time applied_at --id loan_id --timezone Europe/Berlin
    """
    try:
        folder, module = place_use_case(into, name, overwrite=force)  # before what takes seconds to import

        from driftloop_cli.new.plan import Options, make_plan  # noqa: PLC0415
        from driftloop_cli.new.render import write_use_case  # noqa: PLC0415

        options = Options(name, file, target, time, id_, timezone, time_format, metric)
        with err.status(f"reading {file} ({file.stat().st_size / 1e6:,.0f} MB)"):
            plan = make_plan(options)
            write_use_case(plan, folder, module)
    except InvalidInput as error:
        raise exit_with(ExitCode.REFUSED, str(error)) from error
    if as_json:
        print_json(_as_json(plan, folder, module))
    else:
        _print_plan(plan, folder, module)


def _as_json(plan: "UseCasePlan", folder: Path, module: str) -> dict[str, object]:
    first = plan.first_version
    return {
        "folder": folder.as_posix(),
        "use_case": f"{module}:usecase",
        "rows": plan.table.num_rows,
        "format": plan.format,
        "target": {
            "column": plan.options.target,
            "classes": plan.target.classes,
            "reason": plan.target.reason,
        },
        "metric": {"name": plan.metric.name, "reason": plan.metric.reason},
        "time": {"column": plan.options.time, "timezone": plan.timezone, "reason": plan.time_note},
        "columns": [
            {"column": choice.name, "kind": choice.kind, "left_out": choice.left_out, "reason": choice.reason}
            for choice in plan.columns
        ],
        "first_version": {"rows": first.rows, "base_end": first.base_end and first.base_end.isoformat()},
        "settings": first.settings,
        "notes": list(plan.notes),
    }


def _print_plan(plan: "UseCasePlan", folder: Path, module: str) -> None:
    print_message(f"{plan.options.file}: {plan.table.num_rows:,} rows, {plan.format}")
    table = Table("column", "taken as", "why", "such as")
    for column in plan.shown():
        left_out = column.taken_as.startswith("left out")
        table.add_row(
            escape(column.name),
            f"[yellow]{column.taken_as}[/]" if left_out else column.taken_as,
            escape(column.reason),
            escape(_such_as(column.examples)),
        )
    print_table(table)
    print_message(f"versions are compared by {plan.metric.name}: {plan.metric.reason}")
    first = plan.first_version
    if first.base_end is not None:
        print_message(
            f"the first version is trained on {first.rows:,} rows before {first.base_end}; later ones can be streamed"
        )
    for note in plan.notes:
        print_message(f"note: {note}")
    print_message(f"wrote {folder}: each choice above is a line in {folder}/usecase.py")
    settings = "".join(f"{variable}={value} " for variable, value in plan.first_version.settings.items())
    print_message(f"next: {settings}make up USE_CASE={module}:usecase; more in {folder}/README.md")


def _such_as(examples: Sequence[str]) -> str:
    """Return examples as one short text; what is left out, in words as a whole if possible, is an ellipsis."""
    text = " ".join(", ".join(examples).split())
    if len(text) <= MAX_EXAMPLES_LENGTH:
        return text
    words = shorten(text, MAX_EXAMPLES_LENGTH, placeholder=ELLIPSIS)
    return words if words != ELLIPSIS.strip() else f"{text[: MAX_EXAMPLES_LENGTH - 1]}…"
