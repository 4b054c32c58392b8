"""The group of commands ``driftloop archive …``."""

import typer

app = typer.Typer(no_args_is_help=True)


@app.callback()
def archive() -> None:
    """Look at the archive of predictions and outcomes, merge its slices, and delete what is older than is wanted."""
