"""Smoke test: load and time a model in a fresh process, as a predictor would.

    echo "CHAMPION_FOLDER
    MODEL_FOLDER
    ROWS_FILE" | python -m driftloop.registry.smoke_test [TRUSTED_TYPE…]

prints a :class:`driftloop.evaluation.gate.SmokeTestResult` as JSON; without a champion the first line is empty, and
without rows the last one. Modules and types that only the parent process has cannot help the model here.

It asks what a predictor asks before a version serves: columns of types that requests can have, predictions that can be
answered, for the input example in batches of several sizes and for rows, and of the same kind as the champion's.
"""

import subprocess
import sys
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from statistics import median
from time import perf_counter, process_time
from typing import Any, Self

import numpy as np
import pandas as pd
import skops.io  # noqa: F401  # slow to import, and the process starts before there is a model to load
import structlog
from mlflow.models import ModelSignature
from pydantic import ValidationError
from threadpoolctl import threadpool_limits

from driftloop.evaluation.gate import ServingTrial, SmokeTestResult
from driftloop.process import ChildProcess, exit_with_parent, module_command
from driftloop.registry.loading import LoadedModel, ModelRejected, load_model
from driftloop.registry.model_output import InvalidOutput, ModelOutput, OutputDescription, describe_output
from driftloop.registry.signature_columns import signature_columns

ROWS = (1, 128)  # a single row, and what is batched under load
BATCH_SIZES = (8, 64, 512)  # which are tried as well, as a predictor does
REPEATS = 11  # per number of rows: a model compared with itself measured 0.99 to 1.09 in 60 of 60 trials
MAX_SECONDS = 2.0  # per number of rows; a slower model is timed with fewer repeats


class SmokeTestProcess:
    """A fresh process for one smoke test.

    Imports and the champion take seconds to load: a process that is started early is ready for the challenger.
    """

    def __init__(self, trusted_types: Sequence[str] = ()) -> None:
        """Start the process; it trusts some types besides those that are trusted by default."""
        command = module_command("driftloop.registry.smoke_test", *trusted_types)
        self._process = ChildProcess(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self._has_champion = False

    def __enter__(self) -> Self:
        """Return the process itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Kill the process, whether or not a test was run."""
        self._process.close()

    def set_champion(self, champion: Path) -> None:
        """Let the process load the champion from its folder while the challenger is still being trained."""
        with suppress(BrokenPipeError):  # the process has ended, and run() will report it
            self._process.write_line(str(champion))
        self._has_champion = True

    def run(self, challenger: Path, timeout_seconds: float, rows: Path | None = None) -> SmokeTestResult:
        """Load and time the challenger in a folder, and the champion if it was set.

        Args:
            challenger: The folder.
            timeout_seconds: How long all of it may take.
            rows: A Parquet file with rows that it must be able to predict, such as the latest that were answered.
        """
        lines = [*([] if self._has_champion else [""]), f"{challenger}", str(rows or ""), ""]
        try:
            stdout, stderr = self._process.communicate("\n".join(lines), timeout_seconds)
        except subprocess.TimeoutExpired:
            return SmokeTestResult(exceeded_seconds=timeout_seconds)
        try:
            return SmokeTestResult.model_validate_json(stdout.strip().rpartition("\n")[2])
        except ValidationError:
            last_line = stderr.strip().rpartition("\n")[2]
            return SmokeTestResult(
                error=f"the smoke test's process ended with code {self._process.exit_code}: {last_line}"
            )


def run_in_process(
    challenger_folder: Path,
    champion_folder: Path | None,
    trusted_types: Sequence[str] = (),
    rows: Path | None = None,
) -> SmokeTestResult:
    """Load and time the challenger and the champion in this process; see :meth:`SmokeTestProcess.run` for ``rows``."""
    try:
        challenger = _load_checked(challenger_folder, trusted_types)
        if rows is not None:
            _predict_rows(challenger, pd.read_parquet(rows))
        champion = (
            _load_checked(champion_folder, trusted_types, "the champion: ") if champion_folder is not None else None
        )
        # Only after loading: a limit does not apply to libraries that are loaded later. Several threads wait for one
        # another, and longest on a busy machine.
        with threadpool_limits(1):
            challenger_seconds, champion_seconds = _median_latencies(challenger, champion)
    except ModelRejected as error:
        return SmokeTestResult(error=str(error))
    return SmokeTestResult(
        challenger=_trial(challenger, challenger_seconds),
        champion=_trial(champion, champion_seconds) if champion is not None else None,
        output_changes=tuple(_describe(champion).incompatibilities_with(_describe(challenger))) if champion else (),
    )


def column_types(signature: ModelSignature) -> dict[str, str]:
    """Return the type of each input of a signature as text, by column; a matrix counts as one column."""
    types = {}
    for position, column in enumerate(signature.inputs.to_dict()):
        column_type = str(column.get("tensor-spec", column["type"]))
        name = column.get("name", f"input {position}")
        types[name] = column_type if column.get("required", True) else f"{column_type} or missing"
    return types


def _load_checked(folder: Path, trusted_types: Sequence[str], prefix: str = "") -> LoadedModel:
    """Load a model and let it predict its input example.

    Raises:
        ModelRejected: The model cannot be loaded or cannot predict; the message begins with ``prefix``.
    """
    try:
        model = load_model(folder, trusted_types)
        if model.example is None:
            raise ModelRejected("it has no input example to predict")
        signature_columns(model.signature)
        for rows in (*ROWS, *BATCH_SIZES):
            _time_prediction(model, rows)
    except ModelRejected as error:
        raise ModelRejected(f"{prefix}{error}") from error
    return model


def _time_prediction(model: LoadedModel, rows: int) -> float:
    """Return the processor seconds of a prediction of ``rows`` rows.

    By the wall clock, other processes would count as well: on a busy machine a model then seems six times as slow as
    itself.

    Raises:
        ModelRejected: The prediction fails, or cannot be answered.
    """
    example = _repeated(model.example, rows)
    started = process_time()
    _predict(model, example, "its own input example")
    return process_time() - started


def _predict(model: LoadedModel, frame: Any, origin: str) -> ModelOutput:
    """Predict as a predictor does.

    Raises:
        ModelRejected: The prediction fails, or is not one finite number, label or list for each row.
    """
    try:
        returned = getattr(model.estimator, model.predict_fn)(frame)
        return ModelOutput.from_model(returned, model.predict_fn, len(frame))
    except InvalidOutput as error:
        raise ModelRejected(f"its prediction for {origin} cannot be answered: {error}") from error
    except Exception as error:  # an estimator is somebody else's code and may raise anything
        raise ModelRejected(
            f"it cannot predict {origin}: {type(error).__name__}: {error}{model.version_note}"
        ) from error


def _predict_rows(model: LoadedModel, rows: pd.DataFrame) -> None:
    """Predict rows, in the types of the signature.

    Raises:
        ModelRejected: A request with one of these rows would be refused, or the prediction fails.
    """
    if rows.empty or model.signature.inputs.is_tensor_spec():
        return
    columns = {}
    for column in signature_columns(model.signature):
        if column.label not in rows:
            raise ModelRejected(f"it requires the column {column.name}, which rows that were answered do not have")
        cells = rows[column.label]
        is_missing = bool(cells.isna().any())
        if is_missing and not column.nullable:
            raise ModelRejected(
                f"the column {column.name} may not be missing, and is missing in rows that were answered"
            )
        columns[column.label] = cells.astype(np.dtype(column.type.nullable_dtype if is_missing else column.type.dtype))
    _predict(model, pd.DataFrame(columns), "the latest rows")


def _describe(model: LoadedModel) -> OutputDescription:
    output = _predict(model, _repeated(model.example, 1), "its own input example")
    return describe_output(model.estimator, model.predict_fn, output)


def _median_latencies(
    challenger: LoadedModel, champion: LoadedModel | None
) -> tuple[dict[int, float], dict[int, float]]:
    """Return the median processor seconds of both models' predictions, by the number of rows.

    The models take turns, so that other load on the machine slows both alike.
    """
    challenger_medians, champion_medians = {}, {}
    for rows in ROWS:
        challenger_times: list[float] = []
        champion_times: list[float] = []
        started = perf_counter()
        while not challenger_times or (len(challenger_times) < REPEATS and perf_counter() - started < MAX_SECONDS):
            challenger_times.append(_time_prediction(challenger, rows))
            if champion is not None:
                champion_times.append(_time_prediction(champion, rows))
        challenger_medians[rows] = median(challenger_times)
        if champion_times:
            champion_medians[rows] = median(champion_times)
    return challenger_medians, champion_medians


def _repeated(example: Any, rows: int) -> Any:
    """Repeat an example until it has ``rows`` rows."""
    positions = np.arange(rows) % len(example)
    return example[positions] if isinstance(example, np.ndarray) else example.iloc[positions]


def _trial(model: LoadedModel, latency_seconds: dict[int, float]) -> ServingTrial:
    return ServingTrial(columns=column_types(model.signature), latency_seconds=latency_seconds)


def main() -> None:
    """Print the result of a smoke test; print nothing if the parent ended before it named a challenger."""
    exit_with_parent()
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))  # standard output is for the result
    trusted_types = sys.argv[1:]
    if champion := sys.stdin.readline().rstrip("\n"):
        with suppress(ModelRejected):  # the error is reported together with the challenger
            _load_checked(Path(champion), trusted_types)  # which also imports what both models need
    challenger = sys.stdin.readline().rstrip("\n")
    if not challenger:
        return
    rows = sys.stdin.readline().rstrip("\n")
    result = run_in_process(
        Path(challenger), Path(champion) if champion else None, trusted_types, Path(rows) if rows else None
    )
    print(result.model_dump_json())


if __name__ == "__main__":
    main()
