"""Private values are in no event, file, log or page of the predictor; predictions are those of the true values."""

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
from fastapi.testclient import TestClient
from sklearn.compose import make_column_transformer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder
from structlog.testing import capture_logs

from driftloop.errors import RegistryUnavailable
from driftloop.events import Outcome, Prediction, new_event_id
from driftloop.privacy import NO_PRIVACY, Privacy, hash_value
from driftloop.registry.loading import ModelRejected
from driftloop.registry.model_registry import RegisteredVersion
from driftloop.registry.recorded_privacy import privacy_tags
from driftloop.telemetry.health import Health
from predictor.outbox.outbox import Outbox
from predictor.serving.model_cache import ModelCache
from predictor.serving.model_manager import ModelManager
from predictor.serving.privacy_record import PrivacyRecordCheck
from predictor.serving.serving_model import ServingModel
from predictor.serving.trial import try_model
from predictor.settings import ServingSettings
from tests.support.predictor_app import FakeRegistry, StaticModelManager, outbox_events, save_model, serving_model

KEY = b"k" * 32
SECRET = "marker-7f3a"
FRAME = pd.DataFrame(
    {"email": [SECRET, "b@x", SECRET, "b@x"], "phone": ["1", "2", "3", "4"], "x": [0.0, 1.0, 2.0, 3.0]}
)
PRIVACY = Privacy({"email": "hash", "phone": "drop"}, {"agent": "hash", "note": "drop"}, hashes_keys=True, hash_key=KEY)
ROW = {"email": SECRET, "phone": SECRET, "x": 1.5}
V2: dict[str, Any] = {
    "inputs": [
        {"name": "email", "datatype": "BYTES", "shape": [1], "data": [SECRET]},
        {"name": "phone", "datatype": "BYTES", "shape": [1], "data": [SECRET]},
        {"name": "x", "datatype": "FP64", "shape": [1], "data": [1.5]},
        {"name": "agent", "datatype": "BYTES", "shape": [1], "data": [SECRET], "parameters": {"context": True}},
        {"name": "note", "datatype": "BYTES", "shape": [1], "data": [SECRET], "parameters": {"context": True}},
    ]
}
BESIDE: dict[str, Any] = {"keys": [SECRET], "context": [{"agent": SECRET, "note": SECRET}]}
REQUESTS: dict[str, tuple[str, dict[str, Any]]] = {
    "native": ("/predict", {"instances": [ROW], **BESIDE}),
    "v1": ("/v1/models/m:predict", {"instances": [list(ROW.values())], **BESIDE}),
    "v2 with an id": ("/v2/models/m/infer", {**V2, "id": SECRET}),
    "v2 with keys": ("/v2/models/m/infer", {**V2, "parameters": {"keys": [SECRET]}}),
    "mlflow": ("/invocations", {"dataframe_records": [ROW], **BESIDE}),
}


def estimator() -> Any:
    """A model whose predictions depend on the private features."""
    encoded = make_column_transformer(
        (OneHotEncoder(handle_unknown="ignore"), ["email", "phone"]), remainder="passthrough"
    )
    return make_pipeline(encoded, LogisticRegression()).fit(FRAME, [0, 0, 1, 1])


@pytest.fixture
def manager() -> StaticModelManager:
    manager = StaticModelManager()
    manager.serving = serving_model(estimator(), FRAME)
    return manager


@pytest.fixture
def client(make_client: Callable[..., Any]) -> Iterator[TestClient]:
    with make_client(privacy=PRIVACY, repeat_window_seconds=60) as client:
        yield client


def require_no_secret(folder: Path, *texts: str) -> None:
    """Check that neither a file below a folder nor a text has the secret."""
    for file in folder.rglob("*"):
        assert not (file.is_file() and SECRET.encode() in file.read_bytes()), file
    assert not [text for text in texts if SECRET in text]


@pytest.mark.parametrize("name", REQUESTS)
def test_event_of_every_protocol_has_hashes_and_no_dropped_column(
    client: TestClient, outbox: Outbox, tmp_path: Path, name: str
) -> None:
    path, body = REQUESTS[name]
    response = client.post(path, json=body)
    assert response.status_code == 200, response.text
    (event,) = outbox_events(outbox)
    assert isinstance(event, Prediction)
    hashed = hash_value(KEY, SECRET)
    assert event.features == {"email": [hashed], "x": [1.5]}
    assert (event.keys, event.context) == ([hashed], {"agent": [hashed]})
    require_no_secret(tmp_path, event.model_dump_json())


def test_prediction_is_that_of_the_true_values(client: TestClient, make_client: Callable[..., Any]) -> None:
    with make_client() as open_client:
        expected = open_client.post("/predict", json={"instances": [ROW]}).json()["predictions"]
    other = client.post("/predict", json={"instances": [{**ROW, "email": "b@x"}]}).json()["predictions"]
    assert client.post("/predict", json={"instances": [ROW]}).json()["predictions"] == expected
    assert other != expected


def test_key_in_a_header_is_hashed_and_the_repeated_request_is_the_same_prediction(
    client: TestClient, outbox: Outbox, tmp_path: Path
) -> None:
    headers = {"Driftloop-Key": SECRET}
    ids = {client.post("/predict", json={"instances": [ROW]}, headers=headers).json()["id"] for _ in range(2)}
    assert len(ids) == 1
    (event,) = outbox_events(outbox)
    assert isinstance(event, Prediction)
    assert event.keys == [hash_value(KEY, SECRET)]
    require_no_secret(tmp_path)


def test_outcome_names_the_row_by_the_hash_of_its_key(client: TestClient, outbox: Outbox, tmp_path: Path) -> None:
    prediction_id = new_event_id()
    outcomes = [
        {"key": SECRET, "outcome": 1},
        {"id": prediction_id, "index": 0, "outcome": 0},
        {"id": SECRET, "index": 0, "outcome": 0},  # a client that takes its own key for the id
    ]
    assert client.post("/outcomes", json={"outcomes": outcomes}).status_code == 202
    by_key, by_id, foreign = outbox_events(outbox)
    assert isinstance(by_key, Outcome)
    assert isinstance(by_id, Outcome)
    assert isinstance(foreign, Outcome)
    assert (by_key.model, by_key.key, by_key.message_key) == ("m", hash_value(KEY, SECRET), hash_value(KEY, SECRET))
    assert by_id.prediction_id == prediction_id
    assert foreign.prediction_id == hash_value(KEY, SECRET)
    require_no_secret(tmp_path)


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/predict", {"instances": [{**ROW, "x": SECRET}]}),
        ("/predict", {"instances": [{**ROW, "x": SECRET}], "keys": [SECRET, SECRET]}),
        ("/predict", {"instances": [ROW], "keys": [SECRET, SECRET]}),
        ("/predict", {"instances": [ROW], "keys": [SECRET * 100]}),
        ("/predict", {"instances": [ROW], "context": [{"agent": [SECRET]}]}),
        ("/v1/models/m:predict", {"instances": [[SECRET, SECRET, SECRET]]}),
        ("/v2/models/m/infer", {"inputs": [{**V2["inputs"][0], "datatype": "FP64"}]}),
        ("/invocations", {"dataframe_records": [{**ROW, "x": SECRET}]}),
        ("/outcomes", {"outcomes": [{"key": SECRET, "outcome": SECRET}]}),
        ("/outcomes", {"outcomes": [{"key": SECRET, "outcome": [SECRET]}]}),
    ],
)
def test_refused_request_is_in_no_log_file_or_page(
    client: TestClient, tmp_path: Path, path: str, body: dict[str, Any], capfd: pytest.CaptureFixture[str]
) -> None:
    with capture_logs() as logs:
        response = client.post(path, json=body)
    assert response.status_code in (400, 422), response.text
    require_no_secret(tmp_path, json.dumps(logs), *capfd.readouterr())
    assert SECRET not in client.get("/models").text + client.get("/readyz").text


class QuotingModel(LogisticRegression):  # type: ignore[misc]  # published without types
    """Fails with a message that quotes a value, as encoders do."""

    def predict_proba(self, X: pd.DataFrame) -> Any:  # noqa: N803  # scikit-learn's name
        raise ValueError(f"unknown value {X['email'].iloc[0]!r}")


def quoting_model() -> ServingModel:
    return serving_model(QuotingModel().fit(FRAME[["x"]], [0, 0, 1, 1]), FRAME)


def test_exception_that_quotes_a_value_is_named_by_its_type_alone(
    client: TestClient, manager: StaticModelManager, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    manager.serving = quoting_model()
    with capture_logs() as logs:
        response = client.post("/predict", json={"instances": [ROW]})
    assert response.status_code == 422
    assert "ValueError" in response.text
    assert [entry["event"] for entry in logs] == ["batch.prediction_failed"]
    require_no_secret(tmp_path, json.dumps(logs), *capfd.readouterr(), response.text, manager.serving.record.last_error)


def test_defect_of_the_predictor_is_logged_without_its_message(
    client: TestClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: Any) -> Any:
        raise RuntimeError(SECRET) from ValueError(SECRET)

    monkeypatch.setattr("predictor.http.protocols.native.NativeProtocol.encode", fail)
    with capture_logs() as logs:
        assert client.post("/predict", json={"instances": [ROW]}).status_code == 500
    (entry,) = logs
    assert entry["event"] == "request.failed"
    assert "RuntimeError" in entry["error"]
    assert "in fail" in entry["trace"]
    assert SECRET not in json.dumps(entry).replace("raise RuntimeError(SECRET)", "")


def test_examples_on_the_api_page_have_no_private_value_of_the_training_data(
    client: TestClient, make_client: Callable[..., Any]
) -> None:
    with make_client() as open_client:
        assert SECRET in open_client.get("/openapi.json").text
    document = client.get("/openapi.json").text
    assert SECRET not in document
    example = json.loads(document)["components"]["schemas"]["Instances"]["example"]
    assert example["instances"][0]["email"] == "text"
    assert client.post("/predict", json=example).status_code == 200


def test_rejected_version_is_described_without_values_of_rows_that_were_answered(manager: StaticModelManager) -> None:
    served = manager.serving
    assert served is not None
    served.record.add_success({"email": [SECRET], "phone": [SECRET], "x": [1.5]})
    broken = quoting_model()
    broken = replace(broken, loaded=broken.loaded._replace(example=None))
    with pytest.raises(ModelRejected) as error:
        try_model(broken, served, "auto", has_served=False, privacy=PRIVACY)
    assert SECRET not in str(error.value)
    assert "ValueError" in str(error.value)


def model_manager(folder: Path, health: Health, privacy: Privacy, tags: dict[str, str]) -> ModelManager:
    save_model(folder / "model", estimator(), FRAME, "predict_proba")
    registry: Any = FakeRegistry(folder / "model", "7")
    registry.version_tags = lambda _: tags
    return ModelManager(registry, ModelCache(folder / "cache", registry.fetch), ServingSettings(), health, privacy)


def test_version_without_a_private_feature_is_rejected_by_name(tmp_path: Path) -> None:
    health = Health()
    manager = model_manager(tmp_path, health, Privacy({"e_mail": "drop"}), {})
    manager.refresh()
    assert manager.serving is None
    assert manager.rejected is not None
    assert "names the feature e_mail, which version 7 does not have: did you mean email" in manager.rejected.reason


@pytest.mark.parametrize(
    ("tags", "privacy", "warning"),
    [
        (privacy_tags(PRIVACY.feature_policy), PRIVACY, None),
        ({}, NO_PRIVACY, None),
        ({}, PRIVACY, "version 7: its reference was made without private features"),
        (privacy_tags(PRIVACY.feature_policy), NO_PRIVACY, "version 7: its reference was made with other treatments"),
    ],
)
def test_readiness_warns_of_a_version_with_another_record(
    tmp_path: Path, tags: dict[str, str], privacy: Privacy, warning: str | None
) -> None:
    health = Health()
    with capture_logs() as logs:
        manager = model_manager(tmp_path, health, privacy, tags)
        manager.refresh()
        manager.refresh()
    assert manager.serving is not None
    assert (health.warnings.get("privacy") or "").startswith(warning or "")
    assert ("privacy" in health.warnings) is (warning is not None)
    assert sum(entry["event"] == "model.privacy_differs" for entry in logs) == (warning is not None)


def test_record_is_read_again_when_the_registry_did_not_answer() -> None:
    class Registry:
        available = False

        def version_tags(self, _: str) -> dict[str, str]:
            if not self.available:
                raise RegistryUnavailable("no answer")
            return {}

    registry, health = Registry(), Health()
    check = PrivacyRecordCheck(registry, PRIVACY, health)
    check.check(RegisteredVersion("7", "run"))
    assert "privacy" not in health.warnings
    registry.available = True
    check.check(RegisteredVersion("7", "run"))
    assert "privacy" in health.warnings
