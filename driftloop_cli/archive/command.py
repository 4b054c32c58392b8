"""The group of commands ``driftloop archive …``."""

import typer

from driftloop_cli.archive import erase_command
from driftloop_cli.archive.compact_command import compact
from driftloop_cli.archive.expire_command import expire
from driftloop_cli.archive.status_command import status

app = typer.Typer(no_args_is_help=True)
app.command()(status)
app.command()(compact)
app.command()(expire)
app.command("erase")(erase_command.erase)
app.command("erasures")(erase_command.list_erasures)


@app.callback()
def archive() -> None:
    """Show the archive of predictions and outcomes, merge its slices, delete old days, and erase rows."""
