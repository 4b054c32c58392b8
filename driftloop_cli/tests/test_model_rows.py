"""Rows of a Parquet file reach the model as they do in requests to the predictor; odd values are named."""

from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from mlflow.models import ModelSignature
from mlflow.types.schema import ColSpec, DataType, Schema, TensorSpec
from pydantic_core import from_json, to_json
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LinearRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder

from driftloop.errors import InvalidInput
from driftloop_cli.files.model_rows import RowConverter
from driftloop_cli.files.score import Scorer
from tests.support.predictor_app import load_through_manager, save_model

TIME = datetime(2013, 7, 1, 5)
ALL_TYPES = {
    "double": DataType.double,
    "float": DataType.float,
    "long": DataType.long,
    "integer": DataType.integer,
    "boolean": DataType.boolean,
    "string": DataType.string,
    "datetime": DataType.datetime,
}


def signature(*, required: bool = False, **columns: DataType) -> ModelSignature:
    return ModelSignature(Schema([ColSpec(kind, name, required=required) for name, kind in columns.items()]))


def batch(**columns: Any) -> pa.RecordBatch:
    return pa.RecordBatch.from_pydict(columns)


@pytest.mark.parametrize("missing", [False, True], ids=["complete", "missing"])
def test_frame_and_event_are_those_of_a_request(missing: bool, tmp_path: Path) -> None:
    cells: dict[str, list[Any]] = {
        "double": [0.1, 2.0],
        "float": [0.1, 2.0],
        "long": [2**40, -3],
        "integer": [7, 8],
        "boolean": [True, False],
        "string": ["a", "ü"],
        "datetime": [TIME, TIME],
    }
    if missing:
        cells = {name: [values[0], None] for name, values in cells.items()}
    known = signature(**ALL_TYPES)
    frame = pd.DataFrame({name: [values[0]] for name, values in cells.items()})
    estimator = make_pipeline(
        make_column_transformer((OneHotEncoder(handle_unknown="ignore"), ["string"])), LinearRegression()
    ).fit(frame.assign(string=["a"]), [1.0])
    served = load_through_manager(save_model(tmp_path / "model", estimator, frame, signature=known))
    served.schema.missing_values = {}
    requested = served.schema.columns_to_frame(cells)
    rows = RowConverter(known).convert(batch(**cells), 0)
    frame_of_file = rows.to_frame()
    assert isinstance(requested, pd.DataFrame)
    assert isinstance(frame_of_file, pd.DataFrame)
    pd.testing.assert_frame_equal(frame_of_file, requested)
    assert from_json(to_json(rows.to_lists(0, 2), inf_nan_mode="null")) == from_json(to_json(cells))


@pytest.mark.parametrize(
    ("cells", "kind", "expected"),
    [
        (pa.array([1.0, None, np.nan]), "long", [1, None, None]),
        (pa.array([1, 0, None]), "boolean", [True, False, None]),
        (pa.array([1.0, 0.0, np.nan]), "boolean", [True, False, None]),
        (pa.array([1, 2], pa.int8()), "double", [1.0, 2.0]),
        (pa.array([Decimal("1.5")]), "double", [1.5]),
        (pa.array(["a", None]).dictionary_encode(), "string", ["a", None]),
        (pa.array(["a"], pa.large_string()), "string", ["a"]),
        (pa.array([TIME.date()]), "datetime", [datetime(2013, 7, 1)]),
        (
            pa.array([datetime(2013, 7, 1, 3, tzinfo=UTC)], pa.timestamp("ms", "Europe/Berlin")),
            "datetime",
            [datetime(2013, 7, 1, 3)],
        ),
        (pa.nulls(2), "string", [None, None]),
    ],
    ids=["floats", "0/1", "0.0/1.0", "int8", "decimal", "dictionary", "large", "date", "zone", "nothing"],
)
def test_values_that_say_the_same_are_converted(cells: pa.Array, kind: str, expected: list[Any]) -> None:
    converter = RowConverter(signature(x=ALL_TYPES[kind]))
    rows = pa.RecordBatch.from_arrays([cells], names=["x"])
    converter.require_columns(rows.schema)
    assert converter.convert(rows, 0).to_lists(0, len(cells))["x"] == expected


@pytest.mark.parametrize(
    ("cells", "kind"),
    [
        (pa.array([1.0, 1.5]), "long"),
        (pa.array([1, 2**31]), "integer"),
        (pa.array([1, 2]), "boolean"),
        (pa.array([1.0, np.inf]), "double"),
        (pa.array([1.0, 1e39]), "float"),
        (pa.array([TIME, datetime(3000, 1, 1)], pa.timestamp("us")), "datetime"),
    ],
    ids=["fraction", "large", "boolean", "infinite", "float32", "year"],
)
def test_value_that_does_not_fit_is_named_with_row_and_column(cells: pa.Array, kind: str) -> None:
    converter = RowConverter(signature(x=ALL_TYPES[kind]))
    with pytest.raises(InvalidInput, match=r"row 102, column x: "):
        converter.convert(pa.RecordBatch.from_arrays([cells], names=["x"]), 100)


def test_integer_that_a_missing_value_rounds_is_named() -> None:
    rows = RowConverter(signature(x=DataType.long)).convert(batch(x=[1, 2**53 + 1, None]), 0)
    with pytest.raises(InvalidInput, match=r"row 2, column x: 9007199254740993"):
        rows.to_frame()


def test_missing_value_in_required_column_is_named() -> None:
    with pytest.raises(InvalidInput, match="row 2, column x"):
        RowConverter(signature(required=True, x=DataType.double)).convert(batch(x=[1.0, None]), 0)


def test_missing_columns_and_wrong_types_are_named_before_scoring() -> None:
    converter = RowConverter(signature(required=True, a=DataType.double, b=DataType.string, c=DataType.datetime))
    with pytest.raises(InvalidInput, match=r"no column a.*column b has the type int64.*column c has the type string"):
        converter.require_columns(pa.schema({"b": pa.int64(), "c": pa.string()}))


def test_optional_column_may_be_absent() -> None:
    rows = RowConverter(signature(x=DataType.double, y=DataType.string)).convert(batch(x=[1.0]), 0)
    assert rows.to_lists(0, 1) == {"x": [1.0], "y": [None]}


def test_matrix_has_its_columns_by_position() -> None:
    known = ModelSignature(Schema([TensorSpec(np.dtype("float64"), (-1, 2))]))
    matrix = RowConverter(known).convert(batch(x1=[2.0, 4.0], x0=[1.0, None]), 0).to_frame()
    np.testing.assert_array_equal(matrix, [[1.0, 2.0], [np.nan, 4.0]])


@pytest.mark.parametrize("missing_value", [np.nan, None], ids=["nan", "none"])
@pytest.mark.parametrize("kind", ["string", "boolean"])
def test_null_scores_as_in_a_request(missing_value: Any, kind: str, tmp_path: Path) -> None:
    values = ["a", "b", "c"] if kind == "string" else [True, False, True]
    frame = pd.DataFrame({"c": pd.Series([*values, missing_value] * 15, dtype=object)})
    encoder = OneHotEncoder(handle_unknown="ignore")
    estimator = make_pipeline(make_column_transformer((encoder, ["c"])), LinearRegression())
    estimator.fit(frame, [0.0, 5.0, 9.0, 2.0] * 15)
    folder = save_model(tmp_path / "model", estimator, frame, signature=signature(c=ALL_TYPES[kind]))
    served = load_through_manager(folder)
    cells: list[Any] = [values[0], None]
    scorer = Scorer(served.loaded, "7")
    scored = scorer.predict(scorer.converter.convert(batch(c=cells), 0)).scores()
    assert scored == served.predict({"c": cells}).scores()
    assert scored == pytest.approx(estimator.predict(frame.iloc[[0, 3]]).tolist())
