"""Convert a file that is not skops: in a process of its own, whose results are trusted no more than the file."""

import json
import os
import subprocess
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd

from driftloop.process import ChildProcess, module_command
from driftloop.registry.library_versions import describe_versions, mismatches
from driftloop.registry.untrusted_types import install_hint
from driftloop_cli.adopt import conversion_process
from driftloop_cli.adopt.conversion_process import ANSWERS_FILE, MODEL_FILE, RESULT_FILE, ConversionRequest
from driftloop_cli.adopt.isolation import bare_environment
from driftloop_cli.adopt.source import NotAdoptable, SourceModel

PROBLEMS = {
    "load": "the file cannot be loaded",
    "predict": "the model cannot predict the rows",
    "save": "the estimator cannot be saved in skops' format",
}


class ConvertedModel(NamedTuple):
    """What the process has written."""

    file: Path
    """The estimator in skops' format, or what claims to be it."""
    answers: npt.NDArray[Any]
    """The original estimator's predictions of the rows."""


def convert(
    source: SourceModel, rows: pd.DataFrame, method: str | None, folder: Path, *, may_use_network: bool
) -> ConvertedModel:
    """Convert a version's file and predict rows with it, in a process without credentials and network.

    Args:
        source: The version; its file has been downloaded, because the process has no network.
        rows: The rows to predict.
        method: The method to predict with; by default probabilities if there are any.
        folder: An existing folder, for files of the process.
        may_use_network: Whether to go on where the process keeps its network.

    Raises:
        NotAdoptable: It cannot be converted; the message says which step failed and why.
    """
    rows_file, home = folder / "rows.parquet", folder / "home"
    rows.to_parquet(rows_file)
    home.mkdir()
    request = ConversionRequest(
        file=str(source.file),
        format=source.format,
        estimator_class=source.estimator_class,
        rows=str(rows_file),
        column_names=source.column_names,
        method=method,
        into=str(folder),
        may_use_network=may_use_network,
    )
    with ChildProcess(
        module_command(conversion_process.__name__),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        environment=bare_environment(home, os.environ),
    ) as process:
        _, errors = process.communicate(json.dumps(asdict(request)) + "\n")
        exit_code = process.exit_code
    try:
        result: dict[str, str] = json.loads((folder / RESULT_FILE).read_text())
    except (OSError, ValueError) as error:
        raise NotAdoptable(
            f"the process that loads the file ended with code {exit_code}: {_last_line(errors)}"
        ) from error
    if "problem" in result:
        raise NotAdoptable(_explain(source, str(result.get("step")), str(result["problem"])))
    try:
        answers = np.load(folder / ANSWERS_FILE, allow_pickle=False)
    except (OSError, ValueError) as error:
        raise NotAdoptable(f"the process that loads the file has written no answers: {error}") from error
    return ConvertedModel(folder / MODEL_FILE, answers)


def _explain(source: SourceModel, step: str, problem: str) -> str:
    if step == "network":
        return (
            f"the network cannot be taken from the process that loads the {source.format} file ({problem}), so that "
            "its code could send away what it finds: run the command as root or where users may have namespaces of "
            "their own, or add --allow-network if the file may use the network"
        )
    notes = [f"{PROBLEMS.get(step, step)}: {problem}"]
    if other := mismatches(source.library_versions):
        notes.append(describe_versions(other))
    if problem.startswith("ModuleNotFoundError: No module named "):
        notes.append(install_hint(problem.split("'")[1].partition(".")[0]))
    return "; ".join(notes)


def _last_line(text: str) -> str:
    lines: Sequence[str] = text.strip().splitlines()
    return lines[-1] if lines else "it wrote no error"
