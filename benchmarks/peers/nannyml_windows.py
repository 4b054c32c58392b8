"""Run NannyML on the cases of benchmarks.peers.detectors, in NannyML's environment."""

import sys
import warnings
from pathlib import Path
from typing import Any

import nannyml  # type: ignore[import-not-found]  # not in driftloop's environment
import numpy as np
import pandas as pd

from benchmarks.peers.detectors import run_detectors

UNIVARIATE = {"JS": ("jensen_shannon", "jensen_shannon"), "Wasserstein": ("wasserstein", "jensen_shannon")}

MIN_RELATIVE_STD = 0.05  # a column that never varied would always have the largest score


def detect(reference: pd.DataFrame, windows: pd.DataFrame, numbers: list[str], rows: int) -> dict[str, Any]:
    """Run NannyML with defaults, in chunks of a window's length.

    Its thresholds are three standard deviations of the reference's chunks; a rate of false alarms cannot be set. The
    score is the deviation in these standard deviations, of the column with the largest one.
    """
    columns = list(reference.columns)
    categories = [column for column in columns if column not in numbers]
    results = {}
    for name, (numeric_method, categorical_method) in UNIVARIATE.items():
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=columns,
            treat_as_categorical=categories,
            continuous_methods=[numeric_method],
            categorical_methods=[categorical_method],
            chunk_size=rows,
        )
        results[name] = _run_calculator(calculator, reference, windows)
    calculator = nannyml.DataReconstructionDriftCalculator(column_names=columns, chunk_size=rows)
    results["PCA"] = _run_calculator(calculator, reference, windows)
    return results


def _run_calculator(calculator: Any, reference: pd.DataFrame, windows: pd.DataFrame) -> dict[str, Any]:
    result = calculator.fit(reference).calculate(windows)
    before, after = (result.filter(period=period).to_df() for period in ("reference", "analysis"))

    def columns_named(table: pd.DataFrame, name: str) -> Any:
        columns = [column for column in table.columns if column[-1] == name]
        return table[columns].to_numpy(dtype=float)

    values = columns_named(before, "value")
    mean, std = np.nanmean(values, axis=0), np.nanstd(values, axis=0)
    scores = np.abs(columns_named(after, "value") - mean) / np.maximum(std, MIN_RELATIVE_STD * mean)
    alarms = (columns_named(after, "alert") > 0).any(axis=1).tolist()
    return {"score": np.nanmax(scores, axis=1).tolist(), "alarm": {"0.05": alarms, "0.01": alarms}}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    run_detectors(Path(sys.argv[1]), "nannyml", detect)
