"""The model that everything serves: the flights' pipeline, saved once, and the rows that it is asked about."""

import json
import logging
import shutil
import statistics
import time
import warnings
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any, NamedTuple

import mlflow.sklearn
import numpy as np
import numpy.typing as npt
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from threadpoolctl import threadpool_limits

from driftloop.events import FeatureValue, frame_to_columns
from driftloop.registry.trusted_types import TRUSTED_TYPES
from trainer.retrain.training import EXAMPLE_ROWS, train
from usecases.flights import usecase

Row = dict[str, FeatureValue]
Floats = npt.NDArray[np.float64]

MODEL = usecase.name
WINTER = (date(2013, 1, 1), date(2013, 4, 1))  # what the demo's first version learns from
SUMMER = (date(2013, 6, 1), date(2013, 9, 1))
ROWS = 512  # enough that hardly a batch holds a row twice
SINGLE_ROWS = 200


class Saved(NamedTuple):
    """A fitted pipeline and the MLflow folder that it was saved to."""

    folder: Path
    estimator: Any
    signature: ModelSignature

    def probabilities(self, rows: Sequence[Row]) -> Floats:
        """What the pipeline itself says of the rows."""
        return self.of(frame({name: [row[name] for row in rows] for name in usecase.features}, self.signature))

    def of(self, rows: pd.DataFrame) -> Floats:
        """What the pipeline itself says of a frame."""
        return np.asarray(self.estimator.predict_proba(rows), dtype=np.float64)[:, 1]


def save(folder: Path, days: tuple[date, date]) -> Saved:
    """Trains on the flights of some days, the end not included, and saves the pipeline as the trainer does.

    The signature is that of the whole year, so that two versions of different months take the same requests.
    """
    year = usecase.load_rows()
    learn = usecase.rows_between(year, *days, [])
    estimator, _ = train(usecase, learn)
    logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)  # it misses pip, which nobody needs here
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer")
        signature = infer_signature(year[usecase.features], pd.Series([0.5], name="prediction"))
    shutil.rmtree(folder, ignore_errors=True)
    mlflow.sklearn.save_model(
        estimator,
        folder,
        signature=signature,
        input_example=learn[usecase.features].head(EXAMPLE_ROWS),
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn", "skops", "pandas"],
    )
    # For the peers whose environment has no MLflow, and would not need one.
    columns = {column.name: [column.type.name, column.required] for column in signature.inputs}
    file = mlflow.models.Model.load(str(folder)).flavors["sklearn"]["pickled_model"]
    (folder / "benchmark.json").write_text(
        json.dumps({"columns": columns, "file": file, "trusted_types": TRUSTED_TYPES}, indent=2)
    )
    return Saved(folder, estimator, signature)


def rows(days: tuple[date, date], count: int = ROWS) -> list[Row]:
    """Real rows, evenly spaced over some days; what is missing in them is null."""
    chosen = usecase.rows_between(usecase.load_rows(), *days, [])[usecase.features]
    columns = frame_to_columns(chosen.iloc[np.linspace(0, len(chosen) - 1, count).astype(int)])
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def frame(columns: Mapping[str, Sequence[FeatureValue]], signature: ModelSignature) -> pd.DataFrame:
    """Columns of an event or a request as the pipeline takes them."""
    return pd.DataFrame(
        {c.name: np.array(columns[c.name], dtype=c.type.to_pandas()) for c in signature.inputs}, copy=False
    )


def single_row_seconds(saved: Saved, asked: Sequence[Row]) -> float:
    """The pipeline's own time for one row, in this process and with one thread: the median of some rows."""
    frames = [frame({name: [row[name]] for name in usecase.features}, saved.signature) for row in asked[:SINGLE_ROWS]]
    taken = []
    with threadpool_limits(1):
        for one in [frames[0], *frames]:
            began = time.perf_counter()
            saved.estimator.predict_proba(one)
            taken.append(time.perf_counter() - began)
    return statistics.median(taken[1:])
