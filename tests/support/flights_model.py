"""The model that all servers serve: the flights pipeline, saved once, and rows to predict."""

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
from driftloop.registry.model_logging import EXAMPLE_ROWS
from driftloop.registry.trusted_types import TRUSTED_TYPES
from trainer.retrain.training import train
from usecases.flights import usecase

Row = dict[str, FeatureValue]
FloatArray = npt.NDArray[np.float64]

MODEL = usecase.name
WINTER = (date(2013, 1, 1), date(2013, 4, 1))  # the training data of the demo's first version
SUMMER = (date(2013, 6, 1), date(2013, 9, 1))
SAMPLE_ROWS = 512  # enough that a batch rarely contains a row twice
TIMED_ROWS = 200


class SavedModel(NamedTuple):
    """A fitted pipeline and the MLflow folder that it was saved to."""

    folder: Path
    estimator: Any
    signature: ModelSignature

    def predict_rows(self, rows: Sequence[Row]) -> FloatArray:
        """Return the pipeline's own predictions of rows."""
        return self.predict_frame(
            to_frame({name: [row[name] for row in rows] for name in usecase.features}, self.signature)
        )

    def predict_frame(self, rows: pd.DataFrame) -> FloatArray:
        """Return the pipeline's own predictions of a frame."""
        return np.asarray(self.estimator.predict_proba(rows), dtype=np.float64)[:, 1]


def train_and_save(folder: Path, days: tuple[date, date]) -> SavedModel:
    """Train on the flights of some days, the end not included, and save the pipeline as the trainer does.

    The signature is inferred from the whole year, so that versions of different months accept the same requests.
    """
    year = usecase.load_rows()
    training_rows = usecase.rows_between(year, *days, [])
    estimator, _ = train(usecase, training_rows)
    logging.getLogger("mlflow.utils.environment").setLevel(
        logging.ERROR
    )  # it warns that pip is missing, which is not needed here
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Hint: Inferred schema contains integer")
        signature = infer_signature(year[usecase.features], pd.Series([0.5], name="prediction"))
    shutil.rmtree(folder, ignore_errors=True)
    mlflow.sklearn.save_model(
        estimator,
        folder,
        signature=signature,
        input_example=training_rows[usecase.features].head(EXAMPLE_ROWS),
        serialization_format="skops",
        skops_trusted_types=list(TRUSTED_TYPES),
        pyfunc_predict_fn="predict_proba",
        pip_requirements=["scikit-learn", "skops", "pandas"],
    )
    # For peers without MLflow in their environment.
    columns = {column.name: [column.type.name, column.required] for column in signature.inputs}
    file = mlflow.models.Model.load(str(folder)).flavors["sklearn"]["pickled_model"]
    (folder / "benchmark.json").write_text(
        json.dumps({"columns": columns, "file": file, "trusted_types": TRUSTED_TYPES}, indent=2)
    )
    return SavedModel(folder, estimator, signature)


def sample_rows(days: tuple[date, date], count: int = SAMPLE_ROWS) -> list[Row]:
    """Return real rows, evenly spaced over some days, with None for missing values."""
    chosen = usecase.rows_between(usecase.load_rows(), *days, [])[usecase.features]
    columns = frame_to_columns(chosen.iloc[np.linspace(0, len(chosen) - 1, count).astype(int)])
    return [dict(zip(columns, cells, strict=True)) for cells in zip(*columns.values(), strict=True)]


def to_frame(columns: Mapping[str, Sequence[FeatureValue]], signature: ModelSignature) -> pd.DataFrame:
    """Return the columns of an event or a request as the frame that the pipeline expects."""
    return pd.DataFrame(
        {c.name: np.array(columns[c.name], dtype=c.type.to_pandas()) for c in signature.inputs}, copy=False
    )


def single_row_seconds(saved: SavedModel, rows: Sequence[Row]) -> float:
    """Return the median seconds that the pipeline takes for one row, in this process and with one thread."""
    frames = [to_frame({name: [row[name]] for name in usecase.features}, saved.signature) for row in rows[:TIMED_ROWS]]
    seconds = []
    with threadpool_limits(1):
        for frame in [frames[0], *frames]:
            started = time.perf_counter()
            saved.estimator.predict_proba(frame)
            seconds.append(time.perf_counter() - started)
    return statistics.median(seconds[1:])
