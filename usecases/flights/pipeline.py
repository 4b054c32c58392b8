"""The pipeline for flights: built-in transformers and a gradient boosting classifier."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sklearn.pipeline import Pipeline


def make_pipeline(numbers: tuple[str, ...], categories: tuple[str, ...]) -> Pipeline:
    """Return gradient boosted trees. Levels that were not in the training rows count as missing values."""
    # scikit-learn takes seconds to import, and callers that only load the rows do not train.
    from sklearn.compose import ColumnTransformer  # noqa: PLC0415
    from sklearn.ensemble import HistGradientBoostingClassifier  # noqa: PLC0415
    from sklearn.pipeline import Pipeline  # noqa: PLC0415
    from sklearn.preprocessing import OrdinalEncoder  # noqa: PLC0415

    encoder = OrdinalEncoder(
        handle_unknown="use_encoded_value", unknown_value=float("nan"), encoded_missing_value=float("nan")
    )
    columns = ColumnTransformer([("categories", encoder, list(categories)), ("numbers", "passthrough", list(numbers))])
    trees = HistGradientBoostingClassifier(
        categorical_features=list(range(len(categories))), learning_rate=0.05, max_iter=150, random_state=0
    )
    return Pipeline([("columns", columns), ("trees", trees)])
