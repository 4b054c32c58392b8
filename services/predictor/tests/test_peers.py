"""The same saved model behind MLflow's own server and MLServer: they and the predictor answer the same."""

import gzip
import json
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from mlflow.models import infer_signature

from driftloop.events import frame_to_columns
from predictor.outbox.outbox import Outbox
from predictor.settings import OutboxSettings
from tests.support.ports import reserve_ports
from tests.support.predictor_app import StaticModelManager, load_through_manager, save_model, wine_model
from tests.support.processes import Server

pytestmark = pytest.mark.integration

ROOT = Path(__file__).resolve().parents[3]
ESTIMATOR, FRAME = wine_model()
ROWS = FRAME.head(6)
COLUMNS = frame_to_columns(ROWS)
RECORDS = [dict(zip(COLUMNS, row, strict=True)) for row in zip(*COLUMNS.values(), strict=True)]
WHOLE = [record for record in RECORDS if None not in record.values()]
SPLIT: dict[str, Any] = {"columns": list(COLUMNS), "data": [list(record.values()) for record in RECORDS]}
DATATYPES = {"alcohol": "FP64", "malic_acid": "FP64", "proline": "INT64", "hue": "BYTES"}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    signature = infer_signature(FRAME, ESTIMATOR.predict_proba(FRAME))  # MLServer wants to know the outputs too
    folder = tmp_path_factory.mktemp("saved") / "model"
    return save_model(folder, ESTIMATOR, FRAME, "predict_proba", signature=signature)


@pytest.fixture(scope="module")
def mlflow(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    (port,) = reserve_ports(1)
    url = f"http://127.0.0.1:{port}"
    command = [str(ROOT / ".venv/bin/mlflow"), "models", "serve", "--model-uri", str(model), "--port", str(port)]
    environment = {"PATH": f"{ROOT / '.venv/bin'}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    log = tmp_path_factory.mktemp("mlflow") / "log"
    with Server("mlflow", [*command, "--env-manager", "local"], environment, f"{url}/ping", log, ROOT):
        yield url


@pytest.fixture(scope="module")
def mlserver(
    model: Path, tmp_path_factory: pytest.TempPathFactory, peer_executables: Callable[[str], Path]
) -> Iterator[str]:
    programs, ports, folder = peer_executables("mlserver"), reserve_ports(3), tmp_path_factory.mktemp("mlserver")
    where = dict(zip(("http_port", "grpc_port", "metrics_port"), ports, strict=True))
    model_settings = {"implementation": "mlserver_mlflow.MLflowRuntime", "parameters": {"uri": str(model)}}
    (folder / "settings.json").write_text(json.dumps({"host": "127.0.0.1", "parallel_workers": 0, **where}))
    (folder / "model-settings.json").write_text(json.dumps({"name": "m", **model_settings}))
    url = f"http://127.0.0.1:{ports[0]}/v2/models/m"
    environment = {"PATH": f"{programs}:{os.environ['PATH']}", "MLFLOW_DISABLE_TELEMETRY": "true"}
    command = [str(programs / "mlserver"), "start", "."]
    with Server("mlserver", command, environment, f"{url}/ready", folder / "log", folder):
        yield f"{url}/infer"


@pytest.fixture(scope="module")
def predictor(model: Path, serve: Callable[..., Any], tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    manager = StaticModelManager()
    manager.serving = load_through_manager(model, max_rows=100)
    with serve(manager, Outbox(tmp_path_factory.mktemp("predictor"), OutboxSettings())) as url:
        yield url


def split(**changed: Any) -> str:
    return json.dumps({"dataframe_split": SPLIT | changed})


def rows(**changed: Any) -> list[dict[str, Any]]:
    """Return the rows with some values of the first one changed."""
    return [WHOLE[0] | changed, *WHOLE[1:]]


def without(name: str) -> list[dict[str, Any]]:
    return [{other: value for other, value in record.items() if other != name} for record in WHOLE]


JSON, CSV = "application/json", "text/csv"
ACCEPTED: dict[str, tuple[str, str]] = {
    "dataframe_split": (split(), JSON),
    "dataframe_split with an index": (split(index=[5, 4, 3, 2, 1, 0]), JSON),
    "dataframe_split, columns in another order": (
        split(columns=SPLIT["columns"][::-1], data=[row[::-1] for row in SPLIT["data"]]),
        JSON,
    ),
    "dataframe_records": (json.dumps({"dataframe_records": RECORDS}), JSON),
    "one record": (json.dumps({"dataframe_records": RECORDS[:1]}), JSON),
    "instances": (json.dumps({"instances": WHOLE}), JSON),
    "inputs": (json.dumps({"inputs": COLUMNS}), JSON),
    "inputs, rows": (json.dumps({"inputs": WHOLE}), JSON),
    "csv": (ROWS.to_csv(index=False), CSV),
    "csv with an index": (ROWS.to_csv(), CSV),
    "charset": (split(), "application/json; charset=utf-8"),
    "params that are not in the signature": (json.dumps({"dataframe_split": SPLIT, "params": {"a": 1}}), JSON),
    "another key": (json.dumps({"dataframe_split": SPLIT, "other": 1}), JSON),
    "an extra column": (json.dumps({"dataframe_records": rows(more=1)}), JSON),
    "NaN": (json.dumps({"dataframe_records": rows(malic_acid=math.nan)}), JSON),
    "an integer for a double": (json.dumps({"dataframe_records": rows(alcohol=13)}), JSON),
    "a text for a double": (json.dumps({"dataframe_records": rows(alcohol="13.5")}), JSON),
    "a signature name": (json.dumps({"instances": WHOLE, "signature_name": "x"}), JSON),
    "params that are none": (json.dumps({"dataframe_split": SPLIT, "params": 5}), JSON),
    "an unknown word": (json.dumps({"dataframe_records": rows(hue="blau")}), JSON),
}
REJECTED: dict[str, tuple[str | bytes, str, int]] = {
    "no JSON": ("hello", JSON, 400),
    "nothing": ("", JSON, 400),
    "half of it": (split()[:-5], JSON, 400),
    "a list": ("[]", JSON, 400),
    "null": ("null", JSON, 400),
    "an empty object": ("{}", JSON, 400),
    "an unknown key": (json.dumps({"rows": RECORDS}), JSON, 400),
    "two formats": (json.dumps({"instances": WHOLE, "inputs": COLUMNS}), JSON, 400),
    "split without data": (json.dumps({"dataframe_split": {"columns": list(COLUMNS)}}), JSON, 400),
    "split with more keys": (split(more=1), JSON, 400),
    "split that is a list": (json.dumps({"dataframe_split": RECORDS}), JSON, 400),
    "records that are an object": (json.dumps({"dataframe_records": COLUMNS}), JSON, 400),
    "records that are a number": (json.dumps({"dataframe_records": 5}), JSON, 400),
    "a row too short": (split(data=[[1.0, 2.0, 3]]), JSON, 400),
    "a row too long": (split(data=[[1.0, 2.0, 3, "rot", 5]]), JSON, 400),
    "columns of several lengths": (json.dumps({"inputs": COLUMNS | {"hue": ["rot"]}}), JSON, 400),
    "a missing column": (json.dumps({"dataframe_records": without("hue")}), JSON, 400),
    "a missing column of instances": (json.dumps({"instances": without("hue")}), JSON, 400),
    "a missing column of inputs": (json.dumps({"inputs": {"alcohol": [1.0]}}), JSON, 400),
    "a missing column of csv": (ROWS.drop(columns="hue").to_csv(), CSV, 400),
    "a word for a double": (json.dumps({"dataframe_records": rows(alcohol="much")}), JSON, 400),
    "a word for a long": (json.dumps({"instances": rows(proline="much")}), JSON, 400),
    "a word for a double in csv": (ROWS.assign(alcohol="much").to_csv(), CSV, 400),
    "null for a long": (json.dumps({"dataframe_records": rows(proline=None)}), JSON, 400),
    "too large a long": (json.dumps({"dataframe_records": rows(proline=2**70)}), JSON, 400),
    "an object for a double": (json.dumps({"dataframe_records": rows(alcohol={"a": 1})}), JSON, 400),
    "no csv": ('"\n', CSV, 400),
    "empty csv": ("", CSV, 400),
    "a list for a word": (json.dumps({"instances": rows(hue=["rot"])}), JSON, 400),
    "no rows of records": ('{"dataframe_records": []}', JSON, 400),
    "no rows of split": (split(data=[]), JSON, 400),
    "no rows of csv": (",".join(COLUMNS), CSV, 400),
    "inputs null": ('{"inputs": null}', JSON, 400),
    "instances that are a number": ('{"instances": 5}', JSON, 400),
    "an index that is a number": (split(index=5), JSON, 400),
    "for a language model": ('{"messages": [{"role": "user", "content": "?"}]}', JSON, 400),
    "too large a long of instances": (json.dumps({"instances": rows(proline=2**63)}), JSON, 400),
    "bytes that are no text": (b'{"inputs": "\xff"}', JSON, 400),
    "bytes that are no text in csv": (b"alcohol\n\xff", CSV, 400),
    "another content type": (split(), "application/xml", 415),
    "another charset": (split(), "application/json; charset=latin-1", 415),
    "another parameter": (split(), "application/json; format=pandas-split", 415),
}


def record(**changed: Any) -> bytes:
    return json.dumps({"dataframe_records": rows(**changed)}).encode()


def instances(**changed: Any) -> bytes:
    return json.dumps({"instances": rows(**changed)}).encode()


def post(url: str, body: str | bytes, kind: str) -> httpx.Response:
    return httpx.post(f"{url}/invocations", content=body, headers={"Content-Type": kind}, timeout=60)


@pytest.mark.parametrize("name", ACCEPTED)
def test_invocations_response_equals_mlflows(predictor: str, mlflow: str, name: str) -> None:
    expected, actual = post(mlflow, *ACCEPTED[name]), post(predictor, *ACCEPTED[name])
    assert (actual.status_code, actual.text) == (expected.status_code, expected.text)


@pytest.mark.parametrize("name", REJECTED)
def test_invocations_error_has_mlflows_status_and_code(predictor: str, mlflow: str, name: str) -> None:
    body, kind, status = REJECTED[name]
    expected, actual = post(mlflow, body, kind), post(predictor, body, kind)
    assert (expected.status_code, actual.status_code) == (status, status), (expected.text, actual.text)
    if expected.headers["Content-Type"] == "application/json":
        assert actual.json()["error_code"] == expected.json()["error_code"], (expected.text, actual.text)


# Requests with different statuses: body, headers, MLflow's status, the predictor's status.
DIFFERENT: dict[str, tuple[bytes, dict[str, str], int, int]] = {
    # Errors of the client that MLflow's server reports as its own.
    "no content type": (split().encode(), {}, 500, 415),
    "nested too deeply": (b'{"inputs": ' + b"[" * 100_000 + b"]" * 100_000 + b"}", {"Content-Type": JSON}, 500, 400),
    # Values that an event cannot represent: its columns have types, and its text is UTF-8.
    "infinite": (record(alcohol=math.inf), {"Content-Type": JSON}, 200, 400),
    "half a surrogate pair": (record(hue="\ud800"), {"Content-Type": JSON}, 200, 400),
    "a number for a word": (record(hue=5), {"Content-Type": JSON}, 200, 400),
    "true for a word": (record(hue=True), {"Content-Type": JSON}, 200, 400),
    # Values that MLflow's casts change.
    "a double for a long": (record(proline=1000.5), {"Content-Type": JSON}, 200, 400),
    "true for a double": (record(alcohol=True), {"Content-Type": JSON}, 200, 400),
    "a long that the cast wraps around": (record(proline=2**63), {"Content-Type": JSON}, 200, 400),
    # Features that cost more than they are worth.
    "a text that is filled up": (instances(hue="a" * 3_000_000), {"Content-Type": JSON}, 200, 413),
    "UTF-16": (split().encode("utf-16"), {"Content-Type": JSON}, 200, 400),
    "parquet": (ROWS.to_parquet(), {"Content-Type": "application/vnd.apache.parquet"}, 200, 415),
    "compressed": (gzip.compress(split().encode()), {"Content-Type": JSON, "Content-Encoding": "gzip"}, 400, 415),
    # HTTP's rules for content types.
    "an upper case content type": (split().encode(), {"Content-Type": "Application/JSON"}, 415, 200),
}


@pytest.mark.parametrize("name", DIFFERENT)
def test_invocations_differs_from_mlflow_only_where_documented(predictor: str, mlflow: str, name: str) -> None:
    body, headers, mlflow_status, status = DIFFERENT[name]
    expected, actual = (
        httpx.post(f"{url}/invocations", content=body, headers=headers, timeout=60) for url in (mlflow, predictor)
    )
    assert (expected.status_code, actual.status_code) == (mlflow_status, status), (expected.text, actual.text)
    assert status == 200 or actual.json()["message"]


def tensors(parameters: dict[str, Any] | None = None, **changed: dict[str, Any]) -> dict[str, Any]:
    """The rows in the Open Inference Protocol, some inputs changed; one that is None is left out."""
    inputs = []
    for name, datatype in DATATYPES.items():
        data = [record[name] for record in WHOLE]
        kind = {"parameters": {"content_type": "str"}} if datatype == "BYTES" else {}
        tensor = {"name": name, "shape": [len(data), 1], "datatype": datatype, "data": data, **kind}
        inputs.append(tensor | changed.get(name, {}))
    return {"inputs": inputs, **({"parameters": parameters} if parameters else {})}


FRAMED = {"content_type": "pd"}
# Body, MLServer's status, the predictor's status.
V2: dict[str, tuple[Any, int, int]] = {
    "by column": (tensors(FRAMED), 200, 200),
    "with an id": (tensors(FRAMED) | {"id": "my-id"}, 200, 200),
    "flat shapes": (tensors(FRAMED, **{name: {"shape": [len(WHOLE)]} for name in DATATYPES}), 200, 200),
    "nested data": (tensors(FRAMED, alcohol={"data": [[r["alcohol"]] for r in WHOLE]}), 200, 200),
    "columns in another order": ({"inputs": tensors()["inputs"][::-1], "parameters": FRAMED}, 200, 200),
    "content types of each": (
        tensors(FRAMED, **{n: {"parameters": {"content_type": "np"}} for n in ("alcohol", "malic_acid", "proline")}),
        200,
        200,
    ),
    "an extra column": (
        {
            "parameters": FRAMED,
            "inputs": [
                *tensors()["inputs"],
                {"name": "more", "shape": [len(WHOLE), 1], "datatype": "FP64", "data": [1.0] * len(WHOLE)},
            ],
        },
        200,
        200,
    ),
    "null": (tensors(FRAMED, malic_acid={"data": [None] * len(WHOLE)}), 200, 200),
    "FP32 for a double": (tensors(FRAMED, alcohol={"datatype": "FP32", "data": [12.5] * len(WHOLE)}), 200, 200),
    "an unknown word": (tensors(FRAMED, hue={"data": ["blau"] * len(WHOLE)}), 200, 200),
    "an output that is named": (tensors(FRAMED) | {"outputs": [{"name": "output-1"}]}, 200, 200),
    "no JSON": ("hello", 422, 400),
    "no inputs": ({}, 422, 400),
    "empty inputs": ({"inputs": []}, 500, 400),
    "a missing column": ({"inputs": tensors()["inputs"][:-1], "parameters": FRAMED}, 500, 400),
    "an unknown datatype": (tensors(FRAMED, alcohol={"datatype": "FP8"}), 422, 400),
    "too few values": (tensors(FRAMED, alcohol={"data": [1.0]}), 500, 400),
    "rows of several lengths": (tensors(FRAMED, alcohol={"data": [1.0], "shape": [1, 1]}), 200, 400),
    "a negative shape": (tensors(FRAMED, alcohol={"shape": [-1, 1]}), 200, 400),
    "no data": (tensors(FRAMED, alcohol={"data": None}), 500, 400),
    "a word for a double": (tensors(FRAMED, alcohol={"data": ["much"] * len(WHOLE)}), 500, 400),
    "a double for a long": (tensors(FRAMED, proline={"datatype": "FP64", "data": [1.5] * len(WHOLE)}), 500, 400),
    "half an integer": (tensors(FRAMED, proline={"data": [1.5] * len(WHOLE)}), 200, 400),
    "an output that is unknown": (tensors(FRAMED) | {"outputs": [{"name": "nothing"}]}, 200, 400),
    "an input that is there twice": (
        {"inputs": [*tensors()["inputs"], tensors()["inputs"][0]], "parameters": FRAMED},
        200,
        400,
    ),
}


@pytest.mark.parametrize("name", V2)
def test_v2_response_equals_mlservers_except_where_documented(predictor: str, mlserver: str, name: str) -> None:
    body, mlserver_status, status = V2[name]
    expected = httpx.post(mlserver, json=body, timeout=60)
    actual = httpx.post(f"{predictor}/v2/models/m/infer", json=body)
    assert (expected.status_code, actual.status_code) == (mlserver_status, status), (expected.text, actual.text)
    if status == 200:
        (expected_output,), (output,) = expected.json()["outputs"], actual.json()["outputs"]
        for part in ("name", "shape", "datatype"):
            assert output[part] == expected_output[part]
        assert output["data"] == pytest.approx(expected_output["data"], abs=1e-12)
        assert actual.json()["id"] == body.get("id", actual.json()["id"])
    else:
        assert actual.json()["error"]
