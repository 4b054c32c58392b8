"""The command ``driftloop score``."""

from pathlib import Path
from typing import Annotated

import typer

from driftloop.command_line import load_settings_or_exit
from driftloop_cli.console import AsJson, exit_on_registry_error
from driftloop_cli.files.options import print_counts, shown_progress
from driftloop_cli.files.settings import ScoreSettings


def score(
    input_file: Annotated[
        Path, typer.Argument(metavar="IN.parquet", exists=True, dir_okay=False, help="rows to score")
    ],
    output_file: Annotated[
        Path, typer.Argument(metavar="OUT.parquet", dir_okay=False, help="gets the rows with their predictions")
    ],
    version: Annotated[str | None, typer.Option(help="version to score with; by default the one in service")] = None,
    key: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="the rows' own keys, which outcomes may name")
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Score a Parquet file by the version in service, without the predictor.

    The output has the input's rows in their order, and the columns prediction, prediction_label for probabilities,
    prediction_id and prediction_row. The events are on the topic exactly once: interrupted, even killed, the same
    command goes on where it was, with the same version. Its state is in the folder OUT.parquet.scoring. The exit code
    is 7 if the output exists, if the input has changed, or if there is no version.

        driftloop score customers.parquet scored.parquet
    """
    from driftloop.registry.model_registry import ModelRegistry  # noqa: PLC0415  # MLflow takes seconds to import
    from driftloop_cli.files.score import score_file  # noqa: PLC0415

    settings = load_settings_or_exit(ScoreSettings)
    with exit_on_registry_error(), shown_progress("rows") as report:
        summary = score_file(
            input_file,
            output_file,
            ModelRegistry(settings.registry),
            settings.kafka,
            settings.topics,
            version,
            key,
            settings.predictor.missing_values,
            report,
            settings.privacy.privacy,
        )
    print_counts(summary._asdict(), as_json=as_json)
