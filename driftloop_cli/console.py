"""Output of the command: facts on standard output, errors and progress on standard error, exits with a message."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Any

import typer
from pydantic_core import to_jsonable_python
from rich.console import Console
from rich.markup import escape
from rich.table import Table
from typer.core import TyperGroup

from driftloop.errors import ArchiveUnreadable, DependencyUnavailable, InvalidInput, Rejected, StorageUnavailable
from driftloop.exit_codes import ExitCode

UNLIMITED = 100_000  # columns: wider than any cell, so that a pipe or a file gets each one on a line

out = Console()
err = Console(stderr=True)

AsJson = Annotated[bool, typer.Option("--json", help="print the facts as one JSON object")]


EXTRAS = {
    "httpx": "asking",
    **dict.fromkeys(("duckdb", "gcsfs", "mlflow", "numpy", "pandas", "pyarrow", "scipy", "skops", "sklearn"), "cli"),
    **dict.fromkeys(("dvc", "yaml"), "cli,datasets"),
}
"""What to install for commands that need a library; the smallest installation has none of them."""


class CommandGroup(TyperGroup):
    """The commands. An error that the project raises on purpose ends each one with a sentence and an exit code."""

    def invoke(self, ctx: Any) -> Any:
        """Run a command."""
        with exit_on_error():
            return super().invoke(ctx)


def print_message(message: str) -> None:
    """Print text as it is, without markup, and without line breaks in the middle."""
    out.print(escape(message), highlight=False, soft_wrap=True)


def print_notice(message: str) -> None:
    """Print a warning or progress to standard error, as it is."""
    err.print(escape(message), highlight=False, soft_wrap=True)


def print_table(table: Table) -> None:
    """Print a table. Nothing is cut: a terminal gets wrapped cells, a pipe or a file a table of any width."""
    for column in table.columns:
        column.overflow = "fold"
    if out.is_terminal:
        out.print(table)
        return
    wide = Console(width=UNLIMITED)
    with wide.capture() as capture:
        wide.print(table)
    print("\n".join(line.rstrip() for line in capture.get().splitlines()))  # without what pads the last column


def print_json(facts: Mapping[str, Any]) -> None:
    """Print one JSON object: times in ISO 8601, events with the fields of ``docs/events.md``, no number that is NaN."""
    out.print_json(data=to_jsonable_python(facts, inf_nan_mode="null"), highlight=out.is_terminal)


def exit_with(code: ExitCode, message: str) -> typer.Exit:
    """Print a message to standard error and return the exception that ends the command."""
    print_notice(message)
    return typer.Exit(code)


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Turn every error that the project raises on purpose into its message and an exit code."""
    with exit_if_unavailable():
        try:
            yield
        except InvalidInput as error:
            raise exit_with(ExitCode.USAGE, str(error)) from error
        except Rejected as error:
            raise exit_with(ExitCode.REFUSED, str(error)) from error
        except ArchiveUnreadable as error:
            raise exit_with(ExitCode.ERROR, str(error)) from error
        except ModuleNotFoundError as error:
            library = (error.name or "").partition(".")[0]
            if library not in EXTRAS:
                raise
            hint = f"pip install 'driftloop[{EXTRAS[library]}]'"
            raise exit_with(ExitCode.ERROR, f"this command needs {library}, which is not installed: {hint}") from error


@contextmanager
def exit_if_unavailable() -> Iterator[None]:
    """Turn a dependency that does not answer into a message and an exit code; the message names the setting."""
    try:
        yield
    except DependencyUnavailable as error:
        setting = " (DRIFTLOOP_STORAGE__URL)" if isinstance(error, StorageUnavailable) else ""
        raise exit_with(ExitCode.UNAVAILABLE, f"{error}{setting}") from error


@contextmanager
def exit_on_registry_error() -> Iterator[None]:
    """Turn an MLflow that does not answer, or that answers with an error, into a message and an exit code."""
    from mlflow.exceptions import MlflowException  # noqa: PLC0415  # takes seconds to import

    with exit_if_unavailable():
        try:
            yield
        except MlflowException as error:
            raise exit_with(ExitCode.UNAVAILABLE, f"MLflow (DRIFTLOOP_REGISTRY__URI) answers: {error}") from error
