"""Whatever scikit-learn model was saved, each protocol and its event say what the estimator says."""

import math
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from mlflow.models import Model, ModelSignature
from mlflow.types.schema import ColSpec, DataType
from mlflow.types.schema import Schema as Columns
from sklearn.compose import make_column_transformer
from sklearn.datasets import load_breast_cancer, load_diabetes, load_digits, load_iris, load_linnerud, load_wine
from sklearn.ensemble import HistGradientBoostingRegressor, RandomForestClassifier
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler
from sklearn.svm import SVC

from driftloop.events import Prediction, frame_to_columns
from driftloop.registry.loading import LoadedModel
from driftloop.registry.trusted_types import TRUSTED_TYPES
from predictor.outbox.outbox import Outbox
from predictor.serving.model_manager import ServingModel
from predictor.serving.schema import build_schema
from tests.support.predictor_app import StaticModelManager, load_through_manager, outbox_events, save_model

ROWS = 9
FOREST = (*TRUSTED_TYPES, "sklearn.tree._tree.Tree")
Rows = pd.DataFrame | npt.NDArray[Any]


class Case(NamedTuple):
    """A fitted estimator, rows for it, and the method that answers."""

    estimator: Any
    rows: Rows
    method: str = "predict"
    trusted: tuple[str, ...] = TRUSTED_TYPES


def wine() -> Case:
    data = load_wine(as_frame=True)
    return Case(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target), data.data, "predict_proba"
    )


def diabetes_with_missing_values() -> Case:
    data = load_diabetes(as_frame=True)
    frame = data.data.mask(np.random.default_rng(0).random(data.data.shape) < 0.2)
    return Case(HistGradientBoostingRegressor(max_iter=10).fit(frame, data.target), frame)


def two_numbers_at_once() -> Case:
    data = load_linnerud(as_frame=True)
    return Case(LinearRegression().fit(data.data, data.target), data.data)


def several_classifiers_in_one() -> Case:
    data = load_linnerud(as_frame=True)
    classes = (data.target > data.target.median()).astype(int).assign(third=[0, 1, 2, 0] * 5)
    return Case(RandomForestClassifier(5, random_state=0).fit(data.data, classes), data.data, "predict_proba", FOREST)


def probability_of_the_second_class() -> Case:
    data = load_breast_cancer(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    return Case(model, data.data, "predict_proba")


def labels() -> Case:
    data = load_breast_cancer(as_frame=True)
    names = data.target_names[data.target].astype(object)
    return Case(make_pipeline(StandardScaler(), SVC()).fit(data.data, names), data.data)


def integer_labels_by_log_probability() -> Case:
    data = load_breast_cancer(as_frame=True)
    frame = data.data[["mean radius", "mean texture"]].astype("float32")
    return Case(LogisticRegression(max_iter=1_000).fit(frame, data.target), frame, "predict_log_proba")


def a_matrix_of_numbers() -> Case:
    data = load_digits()
    return Case(LogisticRegression(max_iter=50).fit(data.data, data.target), data.data)


def a_matrix_of_small_floats() -> Case:
    data = load_iris()
    matrix = data.data.astype("float32")
    return Case(LogisticRegression(max_iter=200).fit(matrix, data.target_names[data.target]), matrix, "predict_proba")


def a_matrix_of_integers() -> Case:
    data = load_iris()
    matrix = (data.data * 10).astype("int64")
    return Case(RandomForestClassifier(5, random_state=0).fit(matrix, data.target), matrix, trusted=FOREST)


def of_all_types() -> Case:
    data = load_diabetes(as_frame=True)
    frame = pd.DataFrame(
        {
            "bmi": data.data["bmi"].where(data.data["bmi"] < 0.1),
            "age": (data.data["age"] * 1_000).astype("int64"),
            "small age": (data.data["age"] * 1_000).astype("int32"),
            "short bmi": data.data["bmi"].astype("float32"),
            "old": data.data["age"] > 0,
            "sex": np.where(data.data["sex"] > 0, "weiblich", "männlich"),
            "at": pd.Timestamp("2013-01-01 05:30") + pd.to_timedelta(np.arange(len(data.data)), unit="h"),
        }
    )  # fmt: skip
    prepared = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore", sparse_output=False), ["sex"]),
        (OrdinalEncoder(), ["old"]),
        ("drop", ["at"]),
        remainder="passthrough",
    )
    return Case(make_pipeline(prepared, HistGradientBoostingRegressor(max_iter=10)).fit(frame, data.target), frame)


CASES: Sequence[Callable[[], Case]] = (
    wine,
    diabetes_with_missing_values,
    two_numbers_at_once,
    several_classifiers_in_one,
    probability_of_the_second_class,
    labels,
    integer_labels_by_log_probability,
    a_matrix_of_numbers,
    a_matrix_of_small_floats,
    a_matrix_of_integers,
    of_all_types,
)


def cells(rows: Rows) -> dict[str, list[Any]]:
    """As JSON has them: times as texts."""
    frame = (
        pd.DataFrame(rows, columns=[f"x{i}" for i in range(rows.shape[1])]) if isinstance(rows, np.ndarray) else rows
    )
    return {
        name: [cell.isoformat() if isinstance(cell, pd.Timestamp) else cell for cell in column]
        for name, column in frame_to_columns(frame).items()
    }


def asked(serving: ServingModel, rows: Rows) -> dict[str, Any]:
    """The rows as each protocol says them."""
    columns = cells(rows)
    records = [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]
    split = {"columns": list(columns), "data": [list(record.values()) for record in records]}
    matrix = isinstance(rows, np.ndarray)
    return {
        "/predict": {"instances": records},
        "/v1/models/m:predict": {"instances": split["data"] if matrix else records},
        "/invocations": {"inputs": split["data"]} if matrix else {"dataframe_split": split},
        "/v2/models/m/infer": {
            "inputs": [
                {
                    "name": name,
                    "shape": [len(column)],
                    "datatype": serving.schema.columns[name].type.tensor_datatype,
                    "data": column,
                }
                for name, column in columns.items()
            ]
        },
    }


def expected(given: Any, method: str) -> dict[str, Any]:
    """What the estimator gave, as each protocol says it."""
    arrays = given if isinstance(given, list) else [given]
    flat = np.hstack([array.reshape(len(array), -1) for array in arrays])
    positive = method == "predict_proba" and flat.shape[1] == 2
    scores = flat[:, 1] if positive else flat[:, 0] if flat.shape[1] == 1 else flat
    by_row = [list(row) for row in zip(*(array.tolist() for array in arrays), strict=True)]
    return {
        "/predict": scores.tolist(),
        "/v1/models/m:predict": by_row if isinstance(given, list) else given.tolist(),
        "/invocations": [array.tolist() for array in arrays] if isinstance(given, list) else given.tolist(),
        "/v2/models/m/infer": [array.ravel().tolist() for array in arrays],
    }


def same(said: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return len(said) == len(expected) and all(map(same, said, expected))
    if isinstance(expected, float):
        return math.isclose(said, expected, rel_tol=1e-12, abs_tol=1e-12)
    return bool(said == expected)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_each_protocol_and_its_event_say_what_the_estimator_itself_says(
    make: Callable[[], Case], server: str, manager: StaticModelManager, outbox: Outbox, tmp_path: Path
) -> None:
    case = make()
    folder = save_model(
        tmp_path / "model", case.estimator, case.rows, case.method, skops_trusted_types=list(case.trusted)
    )
    serving = manager.serving = load_through_manager(folder, max_rows=100, trusted_types=case.trusted)
    rows = case.rows[:ROWS]
    says = expected(getattr(case.estimator, case.method)(rows), case.method)
    for path, body in asked(serving, rows).items():
        answer = httpx.post(server + path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        said = answer.json()
        said = [output["data"] for output in said["outputs"]] if "outputs" in said else said["predictions"]
        assert same(said, says[path]), (path, said, says[path])
    kept = [event for event in outbox_events(outbox) if isinstance(event, Prediction)]
    assert len(kept) == 4
    for event in kept:
        assert event.features == cells(rows)
        assert same(event.predictions, says["/predict"])
    outputs = httpx.get(f"{server}/v2/models/m").json()["outputs"]
    assert [output["shape"][1] for output in outputs] == [len(data) // ROWS for data in says["/v2/models/m/infer"]]


class Nothing:
    """An estimator that answers whatever it is given."""

    def predict(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        return np.zeros(len(frame))


REFUSED = "refused"
# What a column of a type becomes of a value: in driftloop's own and V1, whose rows are typed by the signature; in
# MLflow's JSON, which MLflow first casts to the signature; and in V2, whose tensors have types of their own.
VALUES: list[tuple[str, Any, Any, Any]] = [
    ("double", 2, 2.0, 2.0),
    ("double", 0.1, 0.1, 0.1),
    ("double", None, None, None),
    ("double", "2.5", REFUSED, 2.5),
    ("double", True, REFUSED, 1.0),
    ("double", 2**53, float(2**53), float(2**53)),
    ("float", 0.5, 0.5, 0.5),
    ("float", 1e39, REFUSED, REFUSED),
    ("float", None, None, None),
    ("long", 2, 2, 2),
    ("long", 2.5, REFUSED, 2),
    ("long", 2**63 - 1, 2**63 - 1, 2**63 - 1),
    ("long", -(2**63), -(2**63), -(2**63)),
    ("long", 2**64, REFUSED, REFUSED),
    ("long", None, None, REFUSED),
    ("integer", 2**31 - 1, 2**31 - 1, 2**31 - 1),
    ("integer", 2**31, REFUSED, -(2**31)),
    ("integer", None, None, REFUSED),
    ("boolean", True, True, True),
    ("boolean", None, None, False),  # numpy's bool, in MLflow's cast
    ("boolean", 1, REFUSED, True),
    ("string", "é", "é", "é"),
    ("string", "", "", ""),
    ("string", None, None, None),
    ("string", 5, REFUSED, REFUSED),
    ("datetime", "2013-07-01T05:00:00", "2013-07-01T05:00:00", "2013-07-01T05:00:00"),
    ("datetime", "2013-07-01T05:00:00-04:00", "2013-07-01T09:00:00", REFUSED),
    ("datetime", None, None, None),
    ("datetime", "1066-10-14T09:00:00", REFUSED, REFUSED),
    ("datetime", "yesterday", REFUSED, REFUSED),
]
TENSORS: list[tuple[str, str, Any, Any]] = [
    ("double", "FP64", 0.1, 0.1),
    ("double", "FP64", None, None),
    ("double", "FP32", 0.5, 0.5),
    ("double", "FP16", 0.5, 0.5),
    ("double", "INT32", 2, 2.0),
    ("double", "INT64", 1, 1.0),
    ("double", "INT64", 2, REFUSED),
    ("double", "BYTES", "2", 2),  # MLflow takes texts for decimals
    ("double", "BYTES", "two", REFUSED),
    ("double", "BOOL", True, REFUSED),
    ("float", "FP32", 0.5, 0.5),
    ("float", "FP64", 0.5, REFUSED),
    ("long", "INT64", 2**63 - 1, 2**63 - 1),
    ("long", "INT64", 2**63, REFUSED),
    ("long", "INT64", None, REFUSED),
    ("long", "INT8", -128, -128),
    ("long", "INT8", 128, REFUSED),
    ("long", "UINT32", 2**32 - 1, 2**32 - 1),
    ("long", "UINT64", 2, REFUSED),
    ("long", "FP64", 2.0, REFUSED),
    ("integer", "INT32", 2**31 - 1, 2**31 - 1),
    ("integer", "INT64", 2, REFUSED),
    ("boolean", "BOOL", True, True),
    ("boolean", "UINT8", 1, REFUSED),
    ("string", "BYTES", "é", "é"),
    ("string", "BYTES", None, None),
    ("string", "INT64", 5, REFUSED),
    ("datetime", "BYTES", "2013-07-01T05:00:00", "2013-07-01T05:00:00"),
    ("datetime", "BYTES", "yesterday", REFUSED),
    ("datetime", "INT64", 5, REFUSED),
]


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server) as client:
        yield client


def one_column(manager: StaticModelManager, kind: str) -> None:
    signature = ModelSignature(Columns([ColSpec(DataType[kind], "c", required=False)]))
    stored = LoadedModel(Nothing(), Model(signature=signature), None)
    manager.serving = ServingModel("7", build_schema(signature, None, 100), stored)


def becomes(client: httpx.Client, outbox: Outbox, path: str, body: Any) -> Any:
    """The value in the event, or :data:`REFUSED`."""
    outbox.delete_through(2**62)
    answer = client.post(path, json=body)
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, answer.text
        assert not outbox_events(outbox)
        return REFUSED
    event: Any
    (event,) = outbox_events(outbox)
    (value,) = event.features["c"]
    return value


def test_a_value_becomes_what_the_signature_permits(
    client: httpx.Client, manager: StaticModelManager, outbox: Outbox
) -> None:
    for kind, value, own, mlflows in VALUES:
        one_column(manager, kind)
        for path, body, wanted in (
            ("/predict", {"instances": [{"c": value}]}, own),
            ("/v1/models/m:predict", {"instances": [[value]]}, own),
            ("/invocations", {"dataframe_split": {"columns": ["c"], "data": [[value]]}}, mlflows),
            ("/invocations", {"dataframe_records": [{"c": value}]}, mlflows),
        ):
            became = becomes(client, outbox, path, body)
            assert (became, type(became)) == (wanted, type(wanted)), (kind, value, path)


def test_a_tensor_becomes_what_mlflow_permits(
    client: httpx.Client, manager: StaticModelManager, outbox: Outbox
) -> None:
    for kind, datatype, value, wanted in TENSORS:
        one_column(manager, kind)
        body = {"inputs": [{"name": "c", "shape": [1], "datatype": datatype, "data": [value]}]}
        became = becomes(client, outbox, "/v2/models/m/infer", body)
        assert (became, type(became)) == (wanted, type(wanted)), (kind, datatype, value)
