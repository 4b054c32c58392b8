"""The command ``driftloop data publish``; ``python -m driftloop_cli.publish_command`` is the same.

The module imports little, so that it also runs where the other commands' packages are missing, as in the trainer's
image.
"""

from typing import Annotated

import typer

from driftloop.command_line import load_settings_or_exit
from driftloop.errors import InvalidInput
from driftloop.exit_codes import ExitCode
from driftloop_cli.console import exit_if_unavailable, exit_with, print_message


def publish(
    replace: Annotated[
        bool,
        typer.Option("--replace", help="publish the present rows as a new version, and have the .dvc file point to it"),
    ] = False,
) -> None:
    """Upload the base dataset of a use case to the object store, unless it is there, and write a missing .dvc file.

    The dataset is the Parquet file beside the .dvc file; if there is none, it is made of the rows that the use case
    loads. Safe to run again. Reads DRIFTLOOP_USE_CASE, DRIFTLOOP_STORAGE__URL and DRIFTLOOP_STORAGE__ENDPOINT. The
    exit code is 7 if the .dvc file points to a version that neither the store has nor the use case's rows are.

        DRIFTLOOP_USE_CASE=usecases.loans:usecase driftloop data publish

    The rows have changed, and the next retrain is to start from them:

        driftloop data publish --replace
    """
    from driftloop.storage import base_dataset, dvc  # noqa: PLC0415  # pandas takes a second to import

    settings = load_settings_or_exit(base_dataset.PublishSettings)
    use_case = settings.use_case
    with exit_if_unavailable():
        try:
            dataset = base_dataset.publish(settings.storage, use_case, replace=replace)
        except (base_dataset.BaseDatasetDiffers, dvc.DatasetVersionNotFound) as error:
            raise exit_with(ExitCode.REFUSED, str(error)) from error
        except InvalidInput as error:
            raise exit_with(ExitCode.USAGE, str(error)) from error
        except ImportError as error:
            raise exit_with(ExitCode.ERROR, str(error)) from error
    done = {
        "kept": "the object store has it already",
        "uploaded": "uploaded",
        "pointed": f"uploaded; {use_case.dvc_file} points to it: keep that file in git, and not the data",
    }
    print_message(f"{dataset.name}, md5 {dataset.md5}: {done[dataset.action]}")
    if dataset.local_differs:
        print_message(
            f"the file beside {use_case.dvc_file} is another version, which is not used: driftloop data publish "
            "--replace would publish it"
        )


if __name__ == "__main__":
    typer.run(publish)
