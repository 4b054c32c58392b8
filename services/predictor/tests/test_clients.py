"""Clients of MLflow, Triton and KServe work unchanged."""

import json
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pandas as pd
import pytest
from mlflow.pyfunc.scoring_server.client import ScoringServerClient
from tritonclient.http import InferenceServerClient, InferInput, InferRequestedOutput
from tritonclient.utils import InferenceServerException

from driftloop.events import Prediction, frame_to_columns
from predictor.outbox.outbox import Outbox
from tests.support.predictor_app import StaticModelManager, load_through_manager, outbox_events, save_model, wine_model

pytestmark = pytest.mark.integration

ROWS = 7
DATATYPES = {"alcohol": "FP64", "malic_acid": "FP64", "proline": "INT64", "hue": "BYTES"}


class Served(NamedTuple):
    """A server's address, some rows, and the model's own probabilities for them."""

    address: str
    rows: pd.DataFrame
    probabilities: npt.NDArray[Any]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_model(tmp_path_factory.mktemp("saved") / "model", *wine_model(), method="predict_proba")


@pytest.fixture
def served(folder: Path, manager: StaticModelManager, server: str) -> Served:
    manager.serving = load_through_manager(folder, max_rows=100)
    estimator, frame = wine_model()
    rows = frame.head(ROWS)
    return Served(server.removeprefix("http://"), rows, estimator.predict_proba(rows))


@pytest.fixture
def triton(served: Served) -> Iterator[Any]:
    with InferenceServerClient(served.address) as client:
        yield client


def features(outbox: Outbox) -> list[dict[str, list[Any]]]:
    return [event.features for event in outbox_events(outbox) if isinstance(event, Prediction)]


def test_mlflow_client_gets_the_models_predictions(served: Served, outbox: Outbox) -> None:
    host, port = served.address.split(":")
    client = ScoringServerClient(host, int(port))
    client.wait_server_ready(timeout=5)
    assert client.get_version()
    answer = client.invoke(served.rows).get_predictions(predictions_format="ndarray")
    assert answer == pytest.approx(served.probabilities, abs=1e-12)
    assert features(outbox) == [frame_to_columns(served.rows)]
    with pytest.raises(Exception, match=r"error code 400.*required columns are missing: hue"):
        client.invoke(served.rows.drop(columns="hue"))


def test_triton_client_reads_health_and_metadata(triton: Any, manager: StaticModelManager) -> None:
    assert triton.is_server_live()
    assert triton.is_server_ready()
    assert triton.is_model_ready("m")
    assert triton.is_model_ready("m", "7")
    assert not triton.is_model_ready("another")
    assert not triton.is_model_ready("m", "8")
    assert "binary_tensor_data" in triton.get_server_metadata()["extensions"]
    described = triton.get_model_metadata("m")
    assert {tensor["name"]: tensor["datatype"] for tensor in described["inputs"]} == DATATYPES
    (output,) = described["outputs"]
    assert (output["name"], output["datatype"], output["shape"]) == ("output-1", "FP64", [-1, 3])
    assert output["parameters"] == {"kind": "probability", "classes": [0, 1, 2]}
    manager.serving = None
    assert not triton.is_server_ready()
    assert not triton.is_model_ready("m")


def tensors(rows: pd.DataFrame, *, binary: bool) -> list[Any]:
    inputs = []
    for name, datatype in DATATYPES.items():
        tensor = InferInput(name, [len(rows), 1], datatype)
        tensor.set_data_from_numpy(rows[[name]].to_numpy(), binary_data=binary)
        inputs.append(tensor)
    return inputs


@pytest.mark.parametrize("binary_in", [False, True])
@pytest.mark.parametrize("binary_out", [False, True])
def test_triton_client_gets_the_models_predictions(
    served: Served, triton: Any, outbox: Outbox, binary_in: bool, binary_out: bool
) -> None:
    rows = served.rows if binary_in else served.rows.fillna(2.5)  # Triton's client writes no NaN into JSON
    requested = [InferRequestedOutput("output-1", binary_data=binary_out)]
    answer = triton.infer("m", tensors(rows, binary=binary_in), outputs=requested, request_id="mine")
    assert answer.get_response()["id"] == "mine"
    assert ("binary_data_size" in answer.get_output("output-1").get("parameters", {})) == binary_out
    expected = served.probabilities if binary_in else wine_model()[0].predict_proba(rows)
    assert answer.as_numpy("output-1") == pytest.approx(expected, abs=1e-12)
    assert features(outbox) == [frame_to_columns(rows)]


def test_triton_client_may_omit_outputs_and_name_the_version(served: Served, triton: Any) -> None:
    inputs = tensors(served.rows, binary=True)
    for version in ("", "7"):
        answer = triton.infer("m", inputs, model_version=version)
        assert answer.as_numpy("output-1") == pytest.approx(served.probabilities, abs=1e-12)


def test_triton_client_may_send_all_columns_as_one_matrix(
    server: str, manager: StaticModelManager, outbox: Outbox, tmp_path: Path
) -> None:
    estimator, frame = wine_model()
    numbers = frame[["alcohol", "malic_acid"]]
    only = estimator.named_steps["histgradientboostingclassifier"].fit(numbers, estimator.predict(frame))
    manager.serving = load_through_manager(save_model(tmp_path / "model", only, numbers), max_rows=100)
    matrix = numbers.head(ROWS).to_numpy()
    tensor = InferInput("matrix", list(matrix.shape), "FP64")
    tensor.set_data_from_numpy(matrix)
    with InferenceServerClient(server.removeprefix("http://")) as client:
        answer = client.infer("m", [tensor])
    assert answer.as_numpy("output-1").ravel().tolist() == only.predict(numbers.head(ROWS)).tolist()
    assert features(outbox) == [frame_to_columns(numbers.head(ROWS))]


def test_triton_client_gets_error_messages(served: Served, triton: Any, outbox: Outbox) -> None:
    inputs = tensors(served.rows, binary=True)
    for name, request, version, message in (
        ("m", inputs[:-1], "", r"\[400\].*hue"),
        ("m", [*inputs[:-1], tensors(served.rows.head(1), binary=True)[-1]], "", r"\[400\].*as many rows"),
        ("m", inputs, "8", r"\[404\].*version 7 is in service"),
        ("another", inputs, "", r"\[404\].*the model here is m"),
    ):
        with pytest.raises(InferenceServerException, match=message):
            triton.infer(name, request, version)
    assert not outbox_events(outbox)


def test_kserve_client_gets_the_models_predictions(
    served: Served, outbox: Outbox, tmp_path: Path, peer_executables: Callable[[str], Path]
) -> None:
    columns = frame_to_columns(served.rows.fillna(2.5))  # KServe's client reads no NaN in JSON
    request = {
        "v1": {"instances": [dict(zip(columns, row, strict=True)) for row in zip(*columns.values(), strict=True)]},
        "v2": {name: (datatype, columns[name]) for name, datatype in DATATYPES.items()},
    }
    (tmp_path / "request.json").write_text(json.dumps(request))
    script = Path(__file__).with_name("kserve_client.py")
    command = [
        str(peer_executables("kserve") / "python"),
        str(script),
        f"http://{served.address}",
        str(tmp_path / "request.json"),
    ]
    completed = subprocess.run(command, check=False, capture_output=True, text=True, timeout=120)
    assert completed.returncode == 0, completed.stderr
    answers = json.loads(completed.stdout)
    expected = wine_model()[0].predict_proba(served.rows.fillna(2.5))
    for protocol in ("v1", "v2", "v2 binary"):
        assert np.array(answers.pop(protocol)) == pytest.approx(expected, abs=1e-12), protocol
    assert "alcohol: Field required" in answers.pop("v1 refused")
    assert "hue" in answers.pop("v2 refused")
    assert set(answers.values()) == {True}, answers
    assert features(outbox) == [columns] * 3
