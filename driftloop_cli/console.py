"""Output of the command: messages on standard output, and exits with a message."""

from collections.abc import Iterator
from contextlib import contextmanager

import typer
from rich.console import Console
from rich.markup import escape

from driftloop.errors import DependencyUnavailable, StorageUnavailable
from driftloop.exit_codes import ExitCode

out = Console()


def print_message(message: str) -> None:
    """Print text as it is, without markup, and without line breaks in the middle."""
    out.print(escape(message), highlight=False, soft_wrap=True)


def exit_with(code: ExitCode, message: str) -> typer.Exit:
    """Print a message and return the exception that ends the command."""
    print_message(message)
    return typer.Exit(code)


@contextmanager
def exit_if_unavailable() -> Iterator[None]:
    """Turn a dependency that does not answer into a message and an exit code; the message names the setting."""
    try:
        yield
    except DependencyUnavailable as error:
        setting = " (DRIFTLOOP_STORAGE__BUCKET)" if isinstance(error, StorageUnavailable) else ""
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
