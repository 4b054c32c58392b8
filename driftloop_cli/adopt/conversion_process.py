"""The process that loads a file which nobody has checked, and saves its estimator in skops' format.

    echo '{"file": …}' | python -m driftloop_cli.adopt.conversion_process

It reads a :class:`ConversionRequest` as JSON, and writes ``model.skops``, ``answers.npy`` and ``result.json`` into the
folder that the request names. The parent takes nothing that this process has written for harmless.
"""

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from driftloop.process import exit_with_parent
from driftloop_cli.adopt.isolation import NetworkNotCut, cut_network

MODEL_FILE, ANSWERS_FILE, RESULT_FILE = "model.skops", "answers.npy", "result.json"


@dataclass(frozen=True)
class ConversionRequest:
    """What to convert."""

    file: str
    format: str
    """One of :data:`driftloop_cli.adopt.source.ModelFormat`, but not skops."""
    estimator_class: str
    rows: str
    """A Parquet file with the rows to predict."""
    column_names: list[str] | None
    """The columns that the estimator takes; None if only the estimator knows them."""
    method: str | None
    """The method to predict with; None for probabilities if it has them."""
    into: str
    may_use_network: bool


def main() -> None:
    """Convert, and write the result or the problem."""
    request = ConversionRequest(**json.loads(sys.stdin.readline()))
    if not request.may_use_network:
        try:
            cut_network()  # before any thread is started
        except NetworkNotCut as error:
            _write_result(request, problem=str(error), step="network")
            return
    exit_with_parent()
    step = "load"
    try:
        estimator = _load(request)
        step = "predict"
        _predict(request, estimator)
        step = "save"
        _save(request, estimator)
    except Exception as error:  # noqa: BLE001  # somebody else's code may raise anything
        _write_result(request, problem=f"{type(error).__name__}: {error}", step=step)
    else:
        _write_result(request)


def _load(request: ConversionRequest) -> Any:
    file = Path(request.file)
    match request.format:
        case "pickle":
            import pickle  # noqa: PLC0415  # what this process is for

            with file.open("rb") as stream:
                return pickle.load(stream)  # noqa: S301
        case "cloudpickle":
            import cloudpickle  # noqa: PLC0415

            with file.open("rb") as stream:
                return cloudpickle.load(stream)
        case "xgboost" | "catboost" as library:
            from importlib import import_module  # noqa: PLC0415

            estimator = getattr(import_module(library), request.estimator_class)()
            estimator.load_model(str(file))
            return estimator
    raise ValueError(f"a file in the format {request.format} is not converted")


def _predict(request: ConversionRequest, estimator: Any) -> None:
    import numpy as np  # noqa: PLC0415  # after the network is cut: a library may start threads
    import pandas as pd  # noqa: PLC0415

    from driftloop_cli.adopt.estimator import answer  # noqa: PLC0415

    values = answer(estimator, request.column_names, pd.read_parquet(request.rows), request.method).values
    if values.dtype == object:  # numpy would pickle it
        values = values.astype(str)
    np.save(Path(request.into) / ANSWERS_FILE, values, allow_pickle=False)


def _save(request: ConversionRequest, estimator: Any) -> None:
    import skops.io  # noqa: PLC0415

    skops.io.dump(estimator, Path(request.into) / MODEL_FILE)


def _write_result(request: ConversionRequest, **result: str) -> None:
    (Path(request.into) / RESULT_FILE).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
