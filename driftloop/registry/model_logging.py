"""Log a fitted estimator to MLflow in the form that is served: skops, with a signature and an example."""

from collections.abc import Collection
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema

EXAMPLE_ROWS = 5


def log_model(
    estimator: Any,
    features: pd.DataFrame,
    method: str,
    *,
    inputs: Schema | None = None,
    optional: Collection[str] | None = None,
    skops_file: Path | None = None,
) -> str:
    """Log an estimator to the active run; return MLflow's address of the logged model, which is no version yet.

    Args:
        estimator: The fitted estimator.
        features: Rows that it predicts; signature and example are made from them.
        method: Its method whose values are the predictions.
        inputs: The columns that it accepts; by default inferred from the rows.
        optional: The columns that may be missing; by default those with a missing value in the rows.
        skops_file: The same estimator as a file, if there is one: looking for its types there saves a dump.
    """
    import skops.io  # noqa: PLC0415  # takes seconds

    types = {"file": skops_file} if skops_file is not None else {"data": skops.io.dumps(estimator)}
    logged = mlflow.sklearn.log_model(
        estimator,
        name="model",
        signature=_signature(estimator, features, method, inputs, optional),
        input_example=features.head(EXAMPLE_ROWS),
        serialization_format="skops",  # loading it runs no code of the file
        # MLflow wants all types that the file has; what is trusted is decided where it is loaded
        skops_trusted_types=skops.io.get_untrusted_types(**types),
        pyfunc_predict_fn=method,
        pip_requirements=["scikit-learn", "skops", "pandas"],
    )
    return str(logged.model_uri)


def _signature(
    estimator: Any, features: pd.DataFrame, method: str, inputs: Schema | None, optional: Collection[str] | None
) -> ModelSignature:
    """Return columns and predictions."""
    sample = _signature_sample(features)
    returned = np.asarray(getattr(estimator, method)(sample))
    if method == "predict_proba" and returned.ndim == 2 and returned.shape[1] == 2:
        returned = returned[:, 1]  # the predictor answers with the second of two classes
    signature = infer_signature(sample, pd.Series(returned, name="prediction") if returned.ndim == 1 else returned)
    if inputs is None and optional is not None:
        inputs = Schema(
            [ColSpec(column.type, column.name, required=column.name not in optional) for column in signature.inputs]
        )
    return signature if inputs is None else ModelSignature(inputs=inputs, outputs=signature.outputs)


def _signature_sample(rows: pd.DataFrame) -> pd.DataFrame:
    """Return a few rows that contain, for each column, a value and a missing value if it has any.

    MLflow inspects every string of the rows that it infers a signature from.
    """
    missing = rows.isna()
    positions = {int(mask.argmax()) for column in missing for mask in (missing[column].array, ~missing[column].array)}
    return rows.iloc[sorted(positions)]
