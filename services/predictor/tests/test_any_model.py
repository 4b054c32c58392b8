"""For any scikit-learn model, all protocols and events have the predictions of the estimator itself."""

import json
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
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
from threadpoolctl import threadpool_limits

from driftloop.events import Prediction, frame_to_columns
from driftloop.registry.loading import LoadedModel, load_model
from predictor.outbox.outbox import Outbox
from predictor.serving.schema import build_schema
from predictor.serving.serving_model import ServingModel
from predictor.settings import OutboxSettings
from tests.support import estimator_catalogue
from tests.support.predictor_app import StaticModelManager, load_through_manager, outbox_events, save_files, save_model

ROWS = 9
Rows = pd.DataFrame | npt.NDArray[Any]


class Case(NamedTuple):
    """A fitted estimator, rows for it, and its method for predictions."""

    estimator: Any
    rows: Rows
    method: str = "predict"


def wine() -> Case:
    data = load_wine(as_frame=True)
    return Case(
        make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target), data.data, "predict_proba"
    )


def diabetes_with_missing_values() -> Case:
    data = load_diabetes(as_frame=True)
    frame = data.data.mask(np.random.default_rng(0).random(data.data.shape) < 0.2)
    return Case(HistGradientBoostingRegressor(max_iter=10).fit(frame, data.target), frame)


def regression_with_two_outputs() -> Case:
    data = load_linnerud(as_frame=True)
    return Case(LinearRegression().fit(data.data, data.target), data.data)


def classification_with_several_outputs() -> Case:
    data = load_linnerud(as_frame=True)
    classes = (data.target > data.target.median()).astype(int).assign(third=[0, 1, 2, 0] * 5)
    return Case(RandomForestClassifier(5, random_state=0).fit(data.data, classes), data.data, "predict_proba")


def binary_probability() -> Case:
    data = load_breast_cancer(as_frame=True)
    model = make_pipeline(StandardScaler(), LogisticRegression()).fit(data.data, data.target)
    return Case(model, data.data, "predict_proba")


def string_labels() -> Case:
    data = load_breast_cancer(as_frame=True)
    names = data.target_names[data.target].astype(object)
    return Case(make_pipeline(StandardScaler(), SVC()).fit(data.data, names), data.data)


def binary_log_probability() -> Case:
    data = load_breast_cancer(as_frame=True)
    frame = data.data[["mean radius", "mean texture"]].astype("float32")
    return Case(LogisticRegression(max_iter=1_000).fit(frame, data.target), frame, "predict_log_proba")


def float_matrix() -> Case:
    data = load_digits()
    return Case(LogisticRegression(max_iter=50).fit(data.data, data.target), data.data)


def float32_matrix() -> Case:
    data = load_iris()
    matrix = data.data.astype("float32")
    return Case(LogisticRegression(max_iter=200).fit(matrix, data.target_names[data.target]), matrix, "predict_proba")


def integer_matrix() -> Case:
    data = load_iris()
    matrix = (data.data * 10).astype("int64")
    return Case(RandomForestClassifier(5, random_state=0).fit(matrix, data.target), matrix)


def all_column_types() -> Case:
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
    regression_with_two_outputs,
    classification_with_several_outputs,
    binary_probability,
    string_labels,
    binary_log_probability,
    float_matrix,
    float32_matrix,
    integer_matrix,
    all_column_types,
)


def json_columns(rows: Rows) -> dict[str, list[Any]]:
    """Return the columns with values as JSON represents them: datetimes are strings."""
    frame = (
        pd.DataFrame(rows, columns=[f"x{i}" for i in range(rows.shape[1])]) if isinstance(rows, np.ndarray) else rows
    )
    return {
        name: [cell.isoformat() if isinstance(cell, pd.Timestamp) else cell for cell in column]
        for name, column in frame_to_columns(frame).items()
    }


def request_bodies(serving: ServingModel, rows: Rows) -> dict[str, Any]:
    """Return the body of a request with the rows, by path."""
    columns = json_columns(rows)
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


def expected_predictions(raw: Any, method: str) -> dict[str, Any]:
    """Return the predictions that a response has by path, computed from what the estimator returned."""
    arrays = raw if isinstance(raw, list) else [raw]
    flat = np.hstack([array.reshape(len(array), -1) for array in arrays])
    positive = method == "predict_proba" and flat.shape[1] == 2
    scores = flat[:, 1] if positive else flat[:, 0] if flat.shape[1] == 1 else flat
    by_row = [list(row) for row in zip(*(array.tolist() for array in arrays), strict=True)]
    return {
        "/predict": scores.tolist(),
        "/v1/models/m:predict": by_row if isinstance(raw, list) else raw.tolist(),
        "/invocations": [array.tolist() for array in arrays] if isinstance(raw, list) else raw.tolist(),
        "/v2/models/m/infer": [array.ravel().tolist() for array in arrays],
    }


def predictions_of(answer: httpx.Response) -> Any:
    response = answer.json()
    return [output["data"] for output in response["outputs"]] if "outputs" in response else response["predictions"]


def is_equal(actual: Any, expected: Any) -> bool:
    if isinstance(expected, list):
        return len(actual) == len(expected) and all(map(is_equal, actual, expected))
    if isinstance(expected, float):
        return math.isclose(actual, expected, rel_tol=1e-12, abs_tol=1e-12)
    return bool(actual == expected)


@pytest.mark.parametrize("make", CASES, ids=lambda make: make.__name__)
def test_protocols_and_events_have_the_estimators_predictions(
    make: Callable[[], Case], server: str, manager: StaticModelManager, outbox: Outbox, tmp_path: Path
) -> None:
    case = make()
    folder = save_model(tmp_path / "model", case.estimator, case.rows, case.method)
    serving = manager.serving = load_through_manager(folder, max_rows=100)
    rows = case.rows[:ROWS]
    expected = expected_predictions(getattr(case.estimator, case.method)(rows), case.method)
    for path, body in request_bodies(serving, rows).items():
        answer = httpx.post(server + path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        assert is_equal(predictions_of(answer), expected[path]), (path, answer.text, expected[path])
    stored = [event for event in outbox_events(outbox) if isinstance(event, Prediction)]
    assert len(stored) == 4
    for event in stored:
        assert event.features == json_columns(rows)
        assert is_equal(event.predictions, expected["/predict"])
    outputs = httpx.get(f"{server}/v2/models/m").json()["outputs"]
    assert [output["shape"][1] for output in outputs] == [len(data) // ROWS for data in expected["/v2/models/m/infer"]]


@pytest.fixture(scope="module")
def catalogue(
    serve: Callable[..., AbstractContextManager[str]], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[StaticModelManager, httpx.Client]]:
    """One server for all estimators of the catalogue, and what sets the version in service."""
    manager, outbox = StaticModelManager(), Outbox(tmp_path_factory.mktemp("outbox"), OutboxSettings())
    with serve(manager, outbox, max_rows=100) as url, httpx.Client(base_url=url) as client, threadpool_limits(1):
        yield manager, client
    outbox.close()


@pytest.mark.parametrize("name", estimator_catalogue.NAMES)
def test_default_settings_serve_each_estimator_of_the_catalogue(
    catalogue: tuple[StaticModelManager, httpx.Client], name: str, tmp_path: Path
) -> None:
    manager, client = catalogue
    estimator, frame, method = estimator_catalogue.fit(name)
    loaded = load_model(save_files(tmp_path, estimator, frame, method))
    serving = manager.serving = ServingModel("7", build_schema(loaded.signature, 100), loaded)
    rows = frame[:ROWS]
    expected = expected_predictions(getattr(estimator, method)(rows), method)
    for path, body in request_bodies(serving, rows).items():
        answer = client.post(path, json=body)
        assert answer.status_code == 200, (path, answer.text)
        assert is_equal(predictions_of(answer), expected[path]), (path, answer.text, expected[path])


class ConstantEstimator:
    """An estimator that predicts 0 for every row."""

    def predict(self, frame: pd.DataFrame) -> npt.NDArray[Any]:
        return np.zeros(len(frame))


JSON = "application/json"
REJECTED = "rejected"
# Type of the column, value, and what the event has for it: in the native protocol and V1, whose rows are typed by the
# signature, and in MLflow's JSON, where a value that MLflow's cast would change is rejected.
VALUES: list[tuple[str, Any, Any, Any]] = [
    ("double", 2, 2.0, 2.0),
    ("double", 0.1, 0.1, 0.1),
    ("double", None, None, None),
    ("double", "2.5", REJECTED, 2.5),
    ("double", "1_0", REJECTED, REJECTED),
    ("double", True, REJECTED, REJECTED),
    ("double", 2**53, float(2**53), float(2**53)),
    ("float", 0.5, 0.5, 0.5),
    ("float", 1e39, REJECTED, REJECTED),
    ("float", None, None, None),
    ("long", 2, 2, 2),
    ("long", 2.0, REJECTED, 2),
    ("long", 2.5, REJECTED, REJECTED),
    ("long", "2", REJECTED, 2),
    ("long", 2**63 - 1, 2**63 - 1, 2**63 - 1),
    ("long", -(2**63), -(2**63), -(2**63)),
    ("long", 2**64, REJECTED, REJECTED),
    ("long", None, None, REJECTED),
    ("integer", 2**31 - 1, 2**31 - 1, 2**31 - 1),
    ("integer", 2**31, REJECTED, REJECTED),
    ("integer", None, None, REJECTED),
    ("boolean", True, True, True),
    ("boolean", None, None, None),
    ("boolean", 1, REJECTED, True),
    ("boolean", 2, REJECTED, REJECTED),
    ("boolean", "False", REJECTED, REJECTED),
    ("boolean", "true", REJECTED, REJECTED),
    ("string", "é", "é", "é"),
    ("string", "", "", ""),
    ("string", None, None, None),
    ("string", 5, REJECTED, REJECTED),
    ("datetime", "2013-07-01T05:00:00", "2013-07-01T05:00:00", "2013-07-01T05:00:00"),
    ("datetime", "2013-07-01T05:00:00-04:00", "2013-07-01T09:00:00", "2013-07-01T09:00:00"),
    ("datetime", None, None, None),
    ("datetime", "1066-10-14T09:00:00", REJECTED, REJECTED),
    ("datetime", "2013-07-01", "2013-07-01T00:00:00", "2013-07-01T00:00:00"),
    ("datetime", "20130701", "2013-07-01T00:00:00", "2013-07-01T00:00:00"),
    ("datetime", "2013", REJECTED, REJECTED),
    ("datetime", "1", REJECTED, REJECTED),
    ("datetime", 1, REJECTED, REJECTED),
    ("datetime", "now", REJECTED, REJECTED),
    ("datetime", "yesterday", REJECTED, REJECTED),
]
# Type of the column, text in CSV, and what the event has for it.
CSV_CELLS: list[tuple[str, str, Any]] = [
    ("double", "2.5", 2.5),
    ("double", "2", 2.0),
    ("double", "1e3", 1000.0),
    ("double", "", None),
    ("double", "NA", REJECTED),
    ("double", "much", REJECTED),
    ("double", "inf", REJECTED),
    ("long", "9007199254740993", 2**53 + 1),
    ("long", "2.5", REJECTED),
    ("integer", str(2**31), REJECTED),
    ("boolean", "True", True),
    ("boolean", "False", False),
    ("boolean", "maybe", REJECTED),
    ("string", "é", "é"),
    ("string", "5", "5"),
    ("string", "", None),
    ("string", "NA", REJECTED),
    ("string", "null", REJECTED),
    ("datetime", "2013-07-01", "2013-07-01T00:00:00"),
    ("datetime", "now", REJECTED),
]
# Type of the column, datatype of the tensor, value, and what the event has for it.
TENSORS: list[tuple[str, str, Any, Any]] = [
    ("double", "FP64", 0.1, 0.1),
    ("double", "FP64", None, None),
    ("double", "FP32", 0.5, 0.5),
    ("double", "FP16", 0.5, 0.5),
    ("double", "INT32", 2, 2.0),
    ("double", "INT64", 2, 2.0),
    ("double", "INT64", None, None),
    ("double", "BYTES", "2", 2.0),
    ("double", "BYTES", "two", REJECTED),
    ("double", "BOOL", True, REJECTED),
    ("float", "FP32", 0.5, 0.5),
    ("float", "FP64", 0.5, 0.5),
    ("float", "FP64", 1e39, REJECTED),
    ("long", "INT64", 2**63 - 1, 2**63 - 1),
    ("long", "INT64", 2**63, REJECTED),
    ("long", "INT64", None, None),
    ("long", "INT8", -128, -128),
    ("long", "INT8", 128, REJECTED),
    ("long", "UINT32", 2**32 - 1, 2**32 - 1),
    ("long", "UINT64", 2, 2),
    ("long", "UINT64", 2**63, REJECTED),
    ("long", "FP64", 2.0, 2),
    ("long", "FP64", 2.5, REJECTED),
    ("integer", "INT32", 2**31 - 1, 2**31 - 1),
    ("integer", "INT64", 2, 2),
    ("integer", "INT64", 2**31, REJECTED),
    ("boolean", "BOOL", True, True),
    ("boolean", "BOOL", None, None),
    ("boolean", "UINT8", 1, True),
    ("boolean", "UINT8", 2, REJECTED),
    ("boolean", "BYTES", "False", REJECTED),
    ("string", "BYTES", "é", "é"),
    ("string", "BYTES", None, None),
    ("string", "INT64", 5, REJECTED),
    ("datetime", "BYTES", "2013-07-01T05:00:00", "2013-07-01T05:00:00"),
    ("datetime", "BYTES", None, None),
    ("datetime", "BYTES", "2013-07-01", "2013-07-01T00:00:00"),
    ("datetime", "BYTES", "now", REJECTED),
    ("datetime", "INT64", 5, REJECTED),
]


@pytest.fixture
def client(server: str) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=server) as client:
        yield client


def serve_one_column(manager: StaticModelManager, kind: str, *, required: bool = False) -> None:
    signature = ModelSignature(Columns([ColSpec(DataType[kind], "c", required=required)]))
    stored = LoadedModel(ConstantEstimator(), Model(signature=signature), None)
    manager.serving = ServingModel("7", build_schema(signature, 100), stored)


def converted(client: httpx.Client, outbox: Outbox, path: str, body: Any) -> Any:
    """The value in the event, or :data:`REJECTED`; a body that is a text is CSV."""
    outbox.delete_through(2**62)
    is_csv = isinstance(body, str)
    answer = client.post(
        path, content=body if is_csv else json.dumps(body), headers={"Content-Type": "text/csv" if is_csv else JSON}
    )
    if answer.status_code != 200:
        assert 400 <= answer.status_code < 500, answer.text
        assert not outbox_events(outbox)
        return REJECTED
    event: Any
    (event,) = outbox_events(outbox)
    (value,) = event.features["c"]
    return value


def test_protocols_convert_values_as_the_signature_permits(
    client: httpx.Client, manager: StaticModelManager, outbox: Outbox
) -> None:
    for kind, value, native_value, mlflow_value in VALUES:
        serve_one_column(manager, kind)
        for path, body, expected in (
            ("/predict", {"instances": [{"c": value}]}, native_value),
            ("/v1/models/m:predict", {"instances": [[value]]}, native_value),
            ("/invocations", {"dataframe_split": {"columns": ["c"], "data": [[value]]}}, mlflow_value),
            ("/invocations", {"dataframe_records": [{"c": value}]}, mlflow_value),
        ):
            became = converted(client, outbox, path, body)
            assert (became, type(became)) == (expected, type(expected)), (kind, value, path)


def test_invocations_reads_csv_by_the_signature_or_rejects_what_mlflow_would_change(
    client: httpx.Client, manager: StaticModelManager, outbox: Outbox
) -> None:
    for kind, text, expected in CSV_CELLS:
        serve_one_column(manager, kind)
        became = converted(client, outbox, "/invocations", f"c,more\n{text},0\n")
        assert (became, type(became)) == (expected, type(expected)), (kind, text)


def test_invocations_rejects_blank_row_that_pandas_drops(client: httpx.Client, manager: StaticModelManager) -> None:
    serve_one_column(manager, "double")
    answer = client.post("/invocations", content="c\n1\n\n3\n", headers={"Content-Type": "text/csv"})
    assert (answer.status_code, "row 1 is blank" in answer.json()["message"]) == (400, True)
    answer = client.post("/invocations", content="c\n1\n3\n\n", headers={"Content-Type": "text/csv"})
    assert answer.json()["predictions"] == [0, 0]


def test_protocols_require_values_of_required_columns(client: httpx.Client, manager: StaticModelManager) -> None:
    for kind in (DataType.double, DataType.long, DataType.string, DataType.boolean, DataType.datetime):
        serve_one_column(manager, kind.name, required=True)
        assert manager.serving is not None
        tensor = {"name": "c", "shape": [1], "datatype": manager.serving.schema.columns["c"].type.tensor_datatype}
        for path, body in (
            ("/predict", {"instances": [{"c": None}]}),
            ("/v1/models/m:predict", {"instances": [[None]]}),
            ("/invocations", {"dataframe_records": [{"c": None}]}),
            ("/v2/models/m/infer", {"inputs": [{**tensor, "data": [None]}]}),
        ):
            answer = client.post(path, json=body)
            assert answer.status_code in (400, 422), (path, kind, answer.text)
            assert "c" in answer.text


def test_v2_rejects_output_that_does_not_exist(client: httpx.Client) -> None:
    inputs = [{"name": "x", "shape": [1], "datatype": "FP64", "data": [1]}]
    inputs.append({"name": "n", "shape": [1], "datatype": "INT64", "data": [1]})
    body = {"inputs": inputs, "outputs": [{"name": "predict_proba"}]}
    answer = client.post("/v2/models/m/infer", json=body)
    assert answer.status_code == 400
    assert answer.json()["error"] == "the model has no output predict_proba; its outputs are output-1"
    assert client.post("/v2/models/m/infer", json={**body, "outputs": [{"name": "output-1"}]}).status_code == 200


def test_v2_converts_tensors_whose_values_stay_the_same(
    client: httpx.Client, manager: StaticModelManager, outbox: Outbox
) -> None:
    for kind, datatype, value, expected in TENSORS:
        serve_one_column(manager, kind)
        body = {"inputs": [{"name": "c", "shape": [1], "datatype": datatype, "data": [value]}]}
        became = converted(client, outbox, "/v2/models/m/infer", body)
        assert (became, type(became)) == (expected, type(expected)), (kind, datatype, value)
