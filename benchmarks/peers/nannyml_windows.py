"""NannyML's detectors on the windows of a folder; runs in NannyML's environment. See benchmarks.peers.detectors."""

import sys
import warnings
from pathlib import Path
from typing import Any

import nannyml  # type: ignore[import-not-found]  # not in driftloop's environment
import numpy as np
import pandas as pd

from benchmarks.peers.detectors import answer

UNIVARIATE = {"JS": ("jensen_shannon", "jensen_shannon"), "Wasserstein": ("wasserstein", "jensen_shannon")}

LEAST_SPREAD = 0.05  # of the mean: a column that never moved would have all of the largest scores


def judged(reference: pd.DataFrame, windows: pd.DataFrame, numbers: list[str], rows: int) -> dict[str, Any]:
    """Its defaults, in chunks of a window's length: thresholds are three standard deviations of the reference's chunks.

    There is no rate to set. A score is the number of these standard deviations, of the column that has most.
    """
    columns = list(reference.columns)
    categories = [column for column in columns if column not in numbers]
    found = {}
    for name, (of_numbers, of_categories) in UNIVARIATE.items():
        calculator = nannyml.UnivariateDriftCalculator(
            column_names=columns,
            treat_as_categorical=categories,
            continuous_methods=[of_numbers],
            categorical_methods=[of_categories],
            chunk_size=rows,
        )
        found[name] = _of(calculator, reference, windows)
    calculator = nannyml.DataReconstructionDriftCalculator(column_names=columns, chunk_size=rows)
    found["PCA"] = _of(calculator, reference, windows)
    return found


def _of(calculator: Any, reference: pd.DataFrame, windows: pd.DataFrame) -> dict[str, Any]:
    result = calculator.fit(reference).calculate(windows)
    before, after = (result.filter(period=period).to_df() for period in ("reference", "analysis"))

    def of(table: pd.DataFrame, name: str) -> Any:
        chosen = [column for column in table.columns if column[-1] == name]
        return table[chosen].to_numpy(dtype=float)

    usual = of(before, "value")
    middle, spread = np.nanmean(usual, axis=0), np.nanstd(usual, axis=0)
    scores = np.abs(of(after, "value") - middle) / np.maximum(spread, LEAST_SPREAD * middle)
    alarms = (of(after, "alert") > 0).any(axis=1).tolist()
    return {"score": np.nanmax(scores, axis=1).tolist(), "alarm": {"0.05": alarms, "0.01": alarms}}


if __name__ == "__main__":
    warnings.filterwarnings("ignore")
    answer(Path(sys.argv[1]), "nannyml", judged)
