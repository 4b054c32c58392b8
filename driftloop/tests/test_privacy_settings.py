"""Privacy settings are read in two forms, and are refused by name where values would stay as they are."""

import secrets

import pytest

from drift_worker.settings import DriftWorkerSettings
from driftloop.privacy import NO_PRIVACY
from driftloop.settings import InvalidSettings, load_settings
from driftloop_cli.settings import StorageCliSettings
from predictor.settings import PredictorSettings
from trainer.settings import TrainerSettings

KEY = secrets.token_hex(16)


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_USE_CASE", "usecases.flights:usecase")
    monkeypatch.setenv("DRIFTLOOP_REGISTRY__MODEL", "flights")
    monkeypatch.setenv("DRIFTLOOP_TRAINER__API_KEY", "open sesame")


@pytest.mark.parametrize(
    "text", ["email=hash, phone = drop,age=keep", '{"email": "hash", "phone": "drop", "age": "keep"}']
)
def test_treatments_are_a_list_or_json(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("DRIFTLOOP_PRIVACY__FEATURES", text)
    monkeypatch.setenv("DRIFTLOOP_PRIVACY__HASH_KEY", KEY)
    settings = load_settings(PredictorSettings)
    assert settings.privacy.features == {"email": "hash", "phone": "drop", "age": "keep"}
    assert settings.privacy.privacy.hash_key == KEY.encode()
    assert KEY not in repr(settings)


def test_empty_variables_count_as_not_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("FEATURES", "CONTEXT", "KEYS", "HASH_KEY"):
        monkeypatch.setenv(f"DRIFTLOOP_PRIVACY__{name}", "")
    loaded = (
        load_settings(PredictorSettings),
        load_settings(DriftWorkerSettings),
        load_settings(TrainerSettings),
        load_settings(StorageCliSettings),
    )
    assert all(settings.privacy.privacy == NO_PRIVACY for settings in loaded)


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"FEATURES": "email=encrypt"}, "DRIFTLOOP_PRIVACY__FEATURES__EMAIL: Input should be 'hash', 'drop' or 'keep'"),
        ({"FEATURES": "email"}, "DRIFTLOOP_PRIVACY__FEATURES: 'email' is not column=treatment"),
        ({"FEATURES": "email=hash,email=drop"}, "names a column again"),
        ({"FEATURES": '{"email": '}, "DRIFTLOOP_PRIVACY__FEATURES: "),
        ({"KEYS": "drop"}, "DRIFTLOOP_PRIVACY__KEYS: Input should be 'hash' or 'keep'"),
        ({"COLUMNS": "email=hash"}, "DRIFTLOOP_PRIVACY__COLUMNS: Extra inputs are not permitted"),
        ({"HASH_KEY": "too short"}, "DRIFTLOOP_PRIVACY__HASH_KEY: a key of at least 32 characters is needed"),
        ({"KEYS": "hash"}, "set DRIFTLOOP_PRIVACY__HASH_KEY"),
        ({"FEATURES": "email=hash", "HASH_KEY": ""}, 'python -c "import secrets; print(secrets.token_hex(32))"'),
        ({"CONTEXT": "email=hash"}, "set DRIFTLOOP_PRIVACY__HASH_KEY"),
    ],
)
@pytest.mark.parametrize("settings", [PredictorSettings, TrainerSettings, StorageCliSettings])
def test_invalid_privacy_settings_are_refused_by_name(
    monkeypatch: pytest.MonkeyPatch,
    settings: type[PredictorSettings | TrainerSettings | StorageCliSettings],
    environment: dict[str, str],
    message: str,
) -> None:
    for name, value in environment.items():
        monkeypatch.setenv(f"DRIFTLOOP_PRIVACY__{name}", value)
    with pytest.raises(InvalidSettings) as error:
        load_settings(settings)
    assert message in str(error.value)
    assert "too short" not in str(error.value)


def test_drift_worker_needs_no_hash_key(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_PRIVACY__FEATURES", "email=hash")
    policy = load_settings(DriftWorkerSettings).privacy.privacy.feature_policy
    assert (policy.features, policy.hash_key_id) == ({"email": "hash"}, None)


@pytest.mark.parametrize(
    ("features", "message"),
    [
        (
            "dist=drop",
            "names the feature dist, which the use case flights does not have: did you mean dest",
        ),
        ("carrier=drop", "DRIFTLOOP_USE_CASE has the subgroup columns carrier, which DRIFTLOOP_PRIVACY__FEATURES"),
    ],
)
def test_trainer_refuses_features_that_cannot_be_private(
    monkeypatch: pytest.MonkeyPatch, features: str, message: str
) -> None:
    monkeypatch.setenv("DRIFTLOOP_PRIVACY__FEATURES", features)
    with pytest.raises(InvalidSettings) as error:
        load_settings(TrainerSettings)
    assert message in str(error.value)


def test_distance_of_a_hashed_number_is_that_of_a_category(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DRIFTLOOP_PRIVACY__FEATURES", "distance=hash")
    monkeypatch.setenv("DRIFTLOOP_PRIVACY__HASH_KEY", KEY)
    monkeypatch.setenv("DRIFTLOOP_CALIBRATION__DISTANCES", '{"distance": "wasserstein"}')
    with pytest.raises(InvalidSettings, match="has wasserstein for distance, which is a category"):
        load_settings(TrainerSettings)
