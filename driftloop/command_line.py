"""Command lines of services that are configured by environment variables alone."""

import getpass
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from textwrap import wrap

from driftloop.exit_codes import ExitCode
from driftloop.setting_values import require_url
from driftloop.settings import AnySettings, InvalidSettings, list_variables, load_settings


def parse_settings(settings: type[AnySettings], description: str, examples: str) -> AnySettings:
    """Read the settings of a command whose only option is ``--help``, which lists them all.

    Prints the help, or what is wrong with arguments or settings, and ends the process where there is no more to do.
    """
    if sys.argv[1:]:
        import typer  # noqa: PLC0415  # takes 0.1 s, which a service that starts need not wait for

        app = typer.Typer(add_completion=False, rich_markup_mode=None)
        app.command(help=description, epilog=help_epilog(settings, examples))(lambda: None)
        app()  # never returns
    return load_settings_or_exit(settings)


def load_settings_or_exit(settings: type[AnySettings]) -> AnySettings:
    """Read the settings; print what is wrong with them to standard error and exit with code 2 if they are invalid."""
    with exit_on_invalid_settings():
        return load_settings(settings)


@contextmanager
def exit_on_invalid_settings() -> Iterator[None]:
    """Turn :class:`InvalidSettings` into its message on standard error and exit code 2."""
    try:
        yield
    except InvalidSettings as error:
        print(error, file=sys.stderr)
        raise SystemExit(ExitCode.USAGE) from None


def user_name() -> str:
    """Return who runs the command; in a container that may be a user without a name."""
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return f"user {os.getuid()}"


def parse_url(value: str) -> str:
    """Return the value of an option that must be the URL of an HTTP server; for typer's ``parser``."""
    import typer  # noqa: PLC0415  # see parse_settings

    try:
        return require_url(value)
    except ValueError as error:
        raise typer.BadParameter(str(error)) from error


def help_epilog(settings: type[AnySettings], examples: str) -> str:
    """Return examples and a list of all settings with description and default, for the end of a help text.

    A line with a backspace keeps click from wrapping the paragraph that follows.
    """
    lines = ["\b", "Examples:", *(f"  {line.strip()}" for line in examples.splitlines())]
    lines += ["", "\b", "Settings, as environment variables:"]
    for variable in list_variables(settings):
        notes = [f"one of {', '.join(variable.choices)}"] if variable.choices else []
        notes.append("required" if variable.default is None else f"default: {variable.default}")
        lines.append(f"  {variable.name}")
        text = f"{variable.description} ({'; '.join(notes)})"
        lines += wrap(text, 100, initial_indent=" " * 6, subsequent_indent=" " * 6)
    return "\n".join(lines)
