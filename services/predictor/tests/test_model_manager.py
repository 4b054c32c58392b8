"""The model manager swaps to valid versions, and keeps the old one serving if the new one is rejected."""

import shutil
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.models import ModelSignature, infer_signature
from mlflow.types import ColSpec, Schema
from mlflow.types.schema import DataType
from prometheus_client import REGISTRY
from sklearn.base import clone
from sklearn.linear_model import LinearRegression, LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import OneHotEncoder, PowerTransformer

from driftloop.errors import RegistryUnavailable
from driftloop.registry.loading import ModelFilesUnreadable, ModelRejected
from driftloop.registry.model_registry import RegisteredVersion
from driftloop.telemetry.health import Health
from predictor.serving import model_manager
from predictor.serving.model_cache import ModelCache
from predictor.serving.model_manager import ModelManager
from predictor.settings import ServingSettings

FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})


def save(
    folder: Path, estimator: Any, target: Sequence[float] = (0, 0, 1, 1), frame: pd.DataFrame = FRAME, **options: Any
) -> Path:
    mlflow.sklearn.save_model(
        estimator.fit(frame, target),
        folder / "model",
        signature=infer_signature(frame),
        input_example=options.pop("input_example", frame.head(2)),
        serialization_format="skops",
        pip_requirements=["scikit-learn"],
        **options,
    )
    return folder / "model"


class FakeRegistry:
    """A registry of saved models, whose alias and errors a test sets."""

    model, alias, trusted_types = "m", "champion", ()

    def __init__(self, folder: Path) -> None:
        self.alias_version: str | None = None
        self.run_id = "first run"
        self.folder = folder
        self.error: Exception | None = None
        self.fetch_error: Exception | None = None
        self.fetches = 0
        self.tags: dict[str, str] = {}

    def version_tags(self, version: str) -> dict[str, str]:  # noqa: ARG002
        if self.error:
            raise self.error
        return self.tags

    def add(self, version: str, estimator: Any, *args: Any, **options: Any) -> None:
        save(self.folder / version, estimator, *args, **options)

    def identified_champion(self) -> RegisteredVersion | None:
        if self.error:
            raise self.error
        return None if self.alias_version is None else self.identified(self.alias_version)

    def identified(self, version: str) -> RegisteredVersion:
        if self.error:
            raise self.error
        return RegisteredVersion(version, self.run_id)

    def fetch(self, version: str, into: Path) -> Path:
        if self.error:
            raise self.error
        if self.fetch_error:
            raise self.fetch_error
        self.fetches += 1
        if not (self.folder / version).exists():
            raise ModelRejected("the registry does not have it")
        return Path(shutil.copytree(self.folder / version / "model", into / "model"))


@pytest.fixture
def registry(tmp_path: Path) -> FakeRegistry:
    return FakeRegistry(tmp_path / "remote")


@pytest.fixture
def health() -> Health:
    health = Health()
    health.mark_started()
    return health


@pytest.fixture
def start(registry: FakeRegistry, health: Health, tmp_path: Path) -> Callable[..., ModelManager]:
    """Starts on the same disk each time."""

    def start(**settings: Any) -> ModelManager:
        cache = ModelCache(tmp_path / "models", registry.fetch)
        return ModelManager(registry, cache, ServingSettings(**settings), health)  # type: ignore[arg-type]  # a double

    return start


@pytest.fixture
def manager(start: Callable[..., ModelManager]) -> ModelManager:
    return start()


def serving_version(manager: ModelManager) -> str | None:
    return manager.serving.version if manager.serving else None


def test_model_manager_without_a_version_is_unavailable(manager: ModelManager, health: Health) -> None:
    manager.refresh()
    assert manager.serving is None
    assert "no version of m has the alias champion" in health.unavailable["model"]


def test_model_manager_swaps_to_the_version_of_the_alias(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression(C=0.1))
    for version in ("1", "2", "1"):
        registry.alias_version = version
        manager.refresh()
        assert serving_version(manager) == version
    assert not health.unavailable
    assert registry.fetches == 2  # back to a version that is on disk


def test_model_manager_loads_a_version_once(manager: ModelManager, registry: FakeRegistry) -> None:
    registry.add("1", LogisticRegression())
    registry.alias_version = "1"
    manager.refresh()
    first = manager.serving
    manager.refresh()
    assert manager.serving is first


@pytest.mark.parametrize(
    ("damage", "reason"),
    [
        (lambda model: (model / "model.skops").write_bytes(b"broken"), "cannot be loaded"),
        (lambda model: shutil.rmtree(model.parent), "the registry does not have it"),
        (
            lambda model: (
                (model / "serving_input_example.json").unlink()
                or (model / "input_example.json").write_text('{"columns": ["y"], "data": [[1.0]]}')
            ),
            "fails on its own input example",
        ),
    ],
    ids=["broken", "gone", "fails on its example"],
)
def test_model_manager_rejects_broken_version_once_and_keeps_the_old_one(
    manager: ModelManager, registry: FakeRegistry, health: Health, damage: Callable[[Path], Any], reason: str
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression())
    damage(registry.folder / "2" / "model")
    registry.alias_version = "1"
    manager.refresh()
    registry.alias_version = "2"
    manager.refresh()
    fetches = registry.fetches
    manager.refresh()
    assert serving_version(manager) == "1"
    assert registry.fetches == fetches
    assert manager.rejected is not None
    assert (manager.rejected.version, reason in manager.rejected.reason) == ("2", True)
    assert not health.unavailable
    assert "version 2 is rejected" in health.warnings["version"]


def test_model_manager_clears_rejection_when_alias_moves_back(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    for registry.alias_version in ("1", "2", "1"):
        manager.refresh()
    assert manager.rejected is None
    assert not health.warnings


def test_model_manager_rejects_incompatible_signature_unless_accepted(
    start: Callable[..., ModelManager], registry: FakeRegistry
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression(), frame=FRAME.assign(y=1.0))
    manager = start()
    for registry.alias_version in ("1", "2"):
        manager.refresh()
    assert manager.rejected is not None
    assert "the new column y is required" in manager.rejected.reason
    assert "DRIFTLOOP_PREDICTOR__ON_SIGNATURE_CHANGE" in manager.rejected.reason
    again = start()  # what was served last counts after a restart too
    again.restore_cached()
    again.refresh()
    assert serving_version(again) == "1"
    accepting = start(on_signature_change="accept")
    accepting.refresh()
    assert serving_version(accepting) == "2"


def test_model_manager_keeps_serving_while_registry_is_unavailable(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    registry.alias_version = "1"
    manager.refresh()
    registry.error = RegistryUnavailable("away")
    manager.refresh()
    assert serving_version(manager) == "1"
    assert not health.unavailable
    assert "the registry is unavailable: away" in health.warnings["registry"]
    registry.error = None
    manager.refresh()
    assert not health.warnings


def test_model_manager_starts_from_cache_while_registry_is_unavailable(
    start: Callable[..., ModelManager], registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression())
    before = start()
    for registry.alias_version in ("1", "2", "1", "3"):  # the last is refused
        before.refresh()
    registry.error = RegistryUnavailable("away")
    after = start()
    after.restore_cached()
    assert (serving_version(after), health.unavailable) == ("1", {})
    after.refresh()
    assert (serving_version(after), after.source) == ("1", "cache")
    assert not health.unavailable
    assert "registry" in health.warnings
    registry.error, registry.alias_version = None, "2"
    after.refresh()
    assert (serving_version(after), after.source) == ("2", "alias")


def test_model_manager_without_registry_and_cache_is_unavailable(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.error = RegistryUnavailable("away")
    assert "DRIFTLOOP_REGISTRY__URI" in health.unavailable["model"]
    manager.restore_cached()
    manager.refresh()
    assert "the registry is unavailable: away" in health.unavailable["model"]


def test_model_manager_serves_pinned_version_instead_of_alias(
    start: Callable[..., ModelManager], registry: FakeRegistry
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression())
    registry.alias_version = "2"
    start().refresh()  # leaves version 2 on the disk
    pinned = start(pinned_version="1")
    pinned.restore_cached()
    assert pinned.serving is None
    pinned.refresh()
    assert (serving_version(pinned), pinned.source) == ("1", "setting")
    registry.error = RegistryUnavailable("away")
    pinned.refresh()
    assert "registry" not in pinned._health.warnings  # what is pinned and serves needs no registry


def test_pinned_version_of_a_model_that_was_deleted_and_made_again_is_the_new_one(
    start: Callable[..., ModelManager], registry: FakeRegistry
) -> None:
    registry.add("1", LogisticRegression(C=1.0))
    manager, restarted = start(pinned_version="1"), start(pinned_version="1")
    manager.refresh()
    shutil.rmtree(registry.folder / "1")
    registry.add("1", LogisticRegression(C=2.0))
    registry.run_id = "second run"
    restarted.restore_cached()
    for each in (restarted, manager):
        assert each.serving is not None
        assert each.serving.run_id == "first run"
        each.refresh()
        assert (each.serving.run_id, each.serving.loaded.estimator.get_params()["C"]) == ("second run", 2.0)


def test_pinned_version_that_was_deleted_keeps_serving_with_a_warning(
    start: Callable[..., ModelManager], registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    manager = start(pinned_version="1")
    manager.refresh()
    registry.error = ModelFilesUnreadable("there is no version 1")
    manager.refresh()
    assert (serving_version(manager), health.unavailable) == ("1", {})
    assert "there is no version 1" in health.warnings["registry"]


def test_model_manager_serves_the_version_of_a_model_that_was_deleted_and_made_again(
    start: Callable[..., ModelManager], registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression(C=1.0))
    registry.alias_version = "1"
    manager = start()
    manager.refresh()
    assert manager.serving is not None
    assert (manager.serving.run_id, registry.fetches) == ("first run", 1)
    shutil.rmtree(registry.folder / "1")
    registry.add("1", LogisticRegression(C=2.0))
    registry.run_id = "second run"
    manager.refresh()
    assert (manager.serving.version, manager.serving.run_id, registry.fetches) == ("1", "second run", 2)
    assert manager.serving.loaded.estimator.get_params()["C"] == 2.0
    assert not health.warnings
    after = start()
    after.restore_cached()
    assert after.serving is not None
    assert (after.serving.run_id, after.serving.loaded.estimator.get_params()["C"]) == ("second run", 2.0)
    registry.run_id = "first run"  # the registry was restored: the files are on the disk
    after.refresh()
    assert (after.serving.run_id, registry.fetches) == ("first run", 2)


def test_version_of_a_model_that_was_made_again_is_rejected_for_itself(
    manager: ModelManager, registry: FakeRegistry
) -> None:
    registry.add("1", LogisticRegression())
    registry.alias_version = "1"
    manager.refresh()
    shutil.rmtree(registry.folder / "1")
    registry.add("1", LogisticRegression(), frame=FRAME.assign(y=1.0))
    registry.run_id = "second run"
    before = REGISTRY.get_sample_value("driftloop_predictor_rejected_versions_total") or 0.0
    for _ in range(2):
        manager.refresh()
    assert manager.rejected is not None
    assert (manager.rejected.version, manager.rejected.run_id) == ("1", "second run")
    assert REGISTRY.get_sample_value("driftloop_predictor_rejected_versions_total") == before + 1
    assert metric("driftloop_predictor_alias_not_served") == 1
    assert (serving_version(manager), manager.serving and manager.serving.run_id) == ("1", "first run")
    registry.run_id = "first run"
    manager.refresh()
    assert manager.rejected is None
    assert metric("driftloop_predictor_alias_not_served") == 0


@pytest.mark.parametrize(
    "error", [OSError("no space left on device"), RegistryUnavailable("no artifacts")], ids=["disk", "artifacts"]
)
def test_version_of_the_alias_that_cannot_be_fetched_is_reported_as_not_served(
    manager: ModelManager, registry: FakeRegistry, health: Health, error: Exception
) -> None:
    for version in ("1", "2"):
        registry.add(version, LogisticRegression())
    registry.alias_version = "1"
    manager.refresh()
    assert metric("driftloop_predictor_alias_not_served") == 0
    registry.alias_version, registry.fetch_error = "2", error
    manager.refresh()
    assert (serving_version(manager), str(error) in health.warnings["registry"]) == ("1", True)
    assert metric("driftloop_predictor_alias_not_served") == 1
    registry.fetch_error = None
    manager.refresh()
    assert serving_version(manager) == "2"
    assert metric("driftloop_predictor_alias_not_served") == 0


def metric(name: str) -> float | None:
    return REGISTRY.get_sample_value(name)


def test_nothing_names_the_version_in_service_once_the_alias_is_gone(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    for registry.alias_version, source in (("1", "alias"), (None, "nothing"), ("1", "alias")):
        manager.refresh()
        assert (serving_version(manager), manager.source) == ("1", source)
        assert ("alias" in health.warnings) == (source == "nothing")


def test_model_cache_keeps_the_last_two_versions(manager: ModelManager, registry: FakeRegistry, tmp_path: Path) -> None:
    for registry.alias_version in ("1", "2", "3"):
        registry.add(str(registry.alias_version), LogisticRegression())
        manager.refresh()
    assert {path.name[:2] for path in (tmp_path / "models").iterdir() if path.is_dir()} == {"2-", "3-"}


@pytest.mark.parametrize(
    ("estimator", "target", "method", "expected"),
    [
        (LogisticRegression(), [0, 0, 1, 1], "predict_proba", lambda low, high: 0 < low < 0.5 < high < 1),
        (LogisticRegression(), [0, 0, 1, 1], "predict", lambda low, high: (low, high) == (0.0, 1.0)),
        (LogisticRegression(), ["no", "no", "yes", "yes"], "predict", lambda low, high: (low, high) == ("no", "yes")),
        (LogisticRegression(), [0, 0, 1, 2], "predict_proba", lambda low, high: len(low) == len(high) == 3),
        (LinearRegression(), [0, 2, 4, 6], "predict", lambda _, high: high == pytest.approx(6)),
        (
            LinearRegression(),
            [[0, 1], [2, 1], [4, 1], [6, 1]],
            "predict",
            lambda _, high: high == pytest.approx([6, 1]),
        ),
    ],
    ids=["probability", "class", "named class", "three classes", "number", "two outputs"],
)
def test_serving_model_predicts_with_the_logged_method(
    manager: ModelManager,
    registry: FakeRegistry,
    estimator: Any,
    target: Any,
    method: str,
    expected: Callable[..., bool],
) -> None:
    registry.add("1", estimator, target, pyfunc_predict_fn=method)
    registry.alias_version = "1"
    manager.refresh()
    assert manager.serving is not None
    low, high = manager.serving.predict({"x": [0.0, 3.0]}).scores()
    assert expected(low, high)


class UnexpectedError(Exception):
    """An error that nobody has thought of."""


def test_model_manager_survives_any_error_of_the_registry(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression())
    registry.alias_version = "1"
    manager.refresh()
    registry.error = UnexpectedError("403 Forbidden")
    manager.refresh()
    assert "UnexpectedError: 403 Forbidden" in health.warnings["registry"]
    assert (serving_version(manager), health.unavailable) == ("1", {})
    registry.error, registry.alias_version = None, "2"
    manager.refresh()
    assert (serving_version(manager), health.warnings) == ("2", {})


def test_model_manager_serves_columns_whose_names_are_numbers(manager: ModelManager, registry: FakeRegistry) -> None:
    frame = pd.DataFrame([[0.0, 1.0], [1.0, 0.0], [2.0, 1.0], [3.0, 0.0]])
    registry.add("1", LogisticRegression(), frame=frame)
    registry.alias_version = "1"
    manager.refresh()
    assert manager.serving is not None, manager.rejected
    assert list(manager.serving.schema.columns) == ["0", "1"]
    assert manager.serving.predict({"0": [0.0, 3.0], "1": [1.0, 0.0]}).scores() == [0, 1]


def test_model_manager_rejects_columns_whose_names_collide(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    frame = pd.DataFrame([[0.0, 1.0], [1.0, 0.0]], columns=["x", "x"])
    mlflow.sklearn.save_model(
        LogisticRegression().fit(frame.to_numpy(), [0, 1]),
        registry.folder / "2" / "model",
        signature=ModelSignature(Schema([ColSpec(DataType.double, "x")] * 2)),
        input_example=frame,
        serialization_format="skops",
        pip_requirements=["scikit-learn"],
    )
    for registry.alias_version in ("1", "2"):
        manager.refresh()
    assert serving_version(manager) == "1"
    assert "several columns whose names read x" in health.warnings["version"]


def test_model_manager_tries_a_version_without_example_on_rows_that_the_version_before_answered(
    manager: ModelManager, registry: FakeRegistry
) -> None:
    encoder = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression())
    words = pd.DataFrame({"x": ["a", "b", "a", "b"]})
    registry.add("1", clone(encoder), frame=words)
    registry.add("2", clone(encoder), frame=words, input_example=None)
    registry.add("3", clone(encoder), frame=words.replace({"a": "c", "b": "d"}), input_example=None)
    registry.alias_version = "1"
    manager.refresh()
    assert manager.serving is not None
    manager.serving.record.add_success({"x": ["a"]})
    registry.alias_version = "2"
    manager.refresh()
    assert serving_version(manager) == "2", manager.rejected
    manager.serving.record.add_success({"x": ["a"]})
    registry.alias_version = "3"
    manager.refresh()
    assert serving_version(manager) == "2"
    assert manager.rejected is not None
    assert "it fails on the rows that version 2 has answered: ValueError" in manager.rejected.reason


def test_model_manager_tries_a_version_without_example_on_a_row_of_its_categories(
    manager: ModelManager, registry: FakeRegistry
) -> None:
    encoder = make_pipeline(OneHotEncoder(handle_unknown="error"), LogisticRegression())
    registry.add("1", encoder, frame=pd.DataFrame({"x": ["a", "b", "a", "b"]}), input_example=None)
    registry.alias_version = "1"
    manager.refresh()
    assert serving_version(manager) == "1", manager.rejected


def test_model_manager_restores_a_cached_version_that_fails_only_on_a_made_up_row(
    start: Callable[..., ModelManager], registry: FakeRegistry
) -> None:
    positive = pd.DataFrame({"x": [1.0, 2.0, 3.0, 4.0]})
    box_cox = make_pipeline(PowerTransformer(method="box-cox"), LogisticRegression())  # fails on 0
    registry.add("1", clone(box_cox), frame=positive)
    registry.add("2", clone(box_cox), frame=positive, input_example=None)
    before = start()
    registry.alias_version = "1"
    before.refresh()
    assert before.serving is not None
    before.serving.record.add_success({"x": [2.0]})
    registry.alias_version = "2"
    before.refresh()
    assert serving_version(before) == "2", before.rejected
    after = start()
    after.restore_cached()
    assert (serving_version(after), after.source) == ("2", "cache")
    shutil.rmtree(registry.folder.parent / "models")
    fresh = start()
    fresh.refresh()
    assert fresh.serving is None
    assert fresh.rejected is not None
    assert "log it with an input_example" in fresh.rejected.reason


def test_model_manager_rejects_an_unfitted_version_without_example(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    mlflow.sklearn.save_model(
        LogisticRegression(),
        registry.folder / "2" / "model",
        signature=infer_signature(FRAME),
        serialization_format="skops",
        pip_requirements=["scikit-learn"],
    )
    for registry.alias_version in ("1", "2"):
        manager.refresh()
    assert serving_version(manager) == "1"
    assert "NotFittedError" in health.warnings["version"]


def test_model_manager_restores_the_previous_version_if_the_new_one_answers_nothing(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression())
    for registry.alias_version in ("1", "2"):
        manager.refresh()
    assert manager.serving is not None
    for _ in range(20):
        manager.serving.record.add_failure("ValueError: unknown category")
    manager.refresh()
    manager.refresh()
    assert serving_version(manager) == "1"
    assert "answered none of its last 20 requests: ValueError: unknown category" in health.warnings["version"]
    assert not health.unavailable


@pytest.mark.parametrize(("restore", "answered"), [(False, False), (True, True)])
def test_model_manager_only_warns_of_failures_if_set_to_or_if_the_version_has_answered(
    start: Callable[..., ModelManager], registry: FakeRegistry, health: Health, restore: bool, answered: bool
) -> None:
    manager = start(restore_previous=restore, max_consecutive_failures=3)
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression())
    for registry.alias_version in ("1", "2"):
        manager.refresh()
    assert manager.serving is not None
    if answered:
        manager.serving.record.add_success({"x": [1.0]})
    for _ in range(3):
        manager.serving.record.add_failure("ValueError: no")
    manager.refresh()
    assert serving_version(manager) == "2"
    assert "answered none of its last 3 requests" in health.warnings["predictions"]
    manager.serving.record.add_success({"x": [1.0]})
    manager.refresh()
    assert not health.warnings


def test_model_manager_downloads_incomplete_files_again_with_growing_pauses(
    manager: ModelManager, registry: FakeRegistry, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LogisticRegression())
    complete = registry.folder / "2" / "model"
    incomplete = complete.with_name("later")
    shutil.copytree(complete, incomplete)
    (complete / "model.skops").write_bytes((incomplete / "model.skops").read_bytes()[:100])
    clock = Clock()
    monkeypatch.setattr(model_manager, "now", lambda: clock.time)
    pauses = []
    for registry.alias_version in ("1", "2"):
        manager.refresh()
    for _ in range(3):
        assert manager.rejected is not None
        assert manager.rejected.retry_at is not None
        pauses.append((manager.rejected.retry_at - clock.time).total_seconds())
        clock.time = manager.rejected.retry_at
        manager.refresh()
    assert pauses == [5, 10, 20]
    shutil.rmtree(complete)
    incomplete.rename(complete)
    manager.refresh()
    assert serving_version(manager) == "1"  # it is not time yet
    clock.time += timedelta(seconds=40)
    manager.refresh()
    assert (serving_version(manager), manager.rejected) == ("2", None)


class Clock:
    """A clock that a test sets."""

    def __init__(self) -> None:
        self.time = datetime(2013, 7, 1, tzinfo=UTC)


def test_model_manager_does_not_try_a_rejected_model_again(manager: ModelManager, registry: FakeRegistry) -> None:
    registry.add("1", LogisticRegression())
    registry.add("2", LinearRegression(), [0, 1, 2, 3])
    for registry.alias_version in ("1", "2"):
        manager.refresh()
    assert manager.rejected is not None
    assert (manager.rejected.retry_at, serving_version(manager)) == (None, "1")
    assert "the predictions have changed from label to number" in manager.rejected.reason


def test_model_manager_warns_while_the_alias_is_missing(
    manager: ModelManager, registry: FakeRegistry, health: Health
) -> None:
    registry.add("1", LogisticRegression())
    registry.alias_version = "1"
    manager.refresh()
    registry.alias_version = None
    manager.refresh()
    assert (serving_version(manager), manager.alias_version, health.unavailable) == ("1", None, {})
    assert health.warnings["alias"] == "no version of m has the alias champion any more; version 1 keeps serving"
    registry.alias_version = "1"
    manager.refresh()
    assert not health.warnings
