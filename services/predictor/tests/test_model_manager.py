"""Swaps: loaded, checked and tried before they are seen; refused ones leave the old version serving."""

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression

from driftloop.registry.model_registry import Refused
from driftloop.telemetry.health import Health
from predictor.serving.model_cache import Versions
from predictor.serving.model_manager import Champion
from predictor.settings import Predictor

FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})


def save(
    folder: Path, estimator: Any, outcome: Sequence[float] = (0, 0, 1, 1), frame: pd.DataFrame = FRAME, **options: Any
) -> Path:
    mlflow.sklearn.save_model(
        estimator.fit(frame, outcome),
        folder / "model",
        signature=infer_signature(frame),
        input_example=frame.head(2),
        serialization_format="skops",
        pip_requirements=["scikit-learn"],
        **options,
    )
    return folder / "model"


class Remote:
    """Stands in for the registry: versions that can be fetched, and faults."""

    model, alias = "m", "champion"

    def __init__(self, folder: Path) -> None:
        self.named: str | None = None
        self.folder = folder
        self.fault: Exception | None = None
        self.fetches = 0

    def add(self, version: str, estimator: Any, *args: Any, **options: Any) -> None:
        save(self.folder / version, estimator, *args, **options)

    def champion(self) -> str | None:
        if self.fault:
            raise self.fault
        return self.named

    def fetch(self, version: str, into: Path) -> Path:
        if self.fault:
            raise self.fault
        self.fetches += 1
        if not (self.folder / version).exists():
            raise Refused("the registry does not have it")
        return Path(shutil.copytree(self.folder / version / "model", into / "model"))


@pytest.fixture
def remote(tmp_path: Path) -> Remote:
    return Remote(tmp_path / "remote")


@pytest.fixture
def health() -> Health:
    health = Health()
    health.started()
    return health


@pytest.fixture
def start(remote: Remote, health: Health, tmp_path: Path) -> Callable[..., Champion]:
    """Starts on the same disk each time."""

    def start(**settings: Any) -> Champion:
        versions = Versions(tmp_path / "models", remote.fetch)
        return Champion(remote, versions, Predictor(**settings), health)  # type: ignore[arg-type]  # a stand-in

    return start


@pytest.fixture
def champion(start: Callable[..., Champion]) -> Champion:
    return start()


def in_service(champion: Champion) -> str | None:
    return champion.serving.version if champion.serving else None


def test_without_a_version_the_predictor_is_not_ready_and_says_so(champion: Champion, health: Health) -> None:
    champion.refresh()
    assert champion.serving is None
    assert "no version of m has the alias champion" in health.missing["model"]


def test_the_version_that_the_alias_names_is_swapped_in(champion: Champion, remote: Remote, health: Health) -> None:
    remote.add("1", LogisticRegression())
    remote.add("2", LinearRegression())
    for version in ("1", "2", "1"):
        remote.named = version
        champion.refresh()
        assert in_service(champion) == version
    assert not health.missing
    assert remote.fetches == 2  # back to a version that is on disk


def test_the_same_version_is_loaded_once(champion: Champion, remote: Remote) -> None:
    remote.add("1", LogisticRegression())
    remote.named = "1"
    champion.refresh()
    first = champion.serving
    champion.refresh()
    assert champion.serving is first


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda model: (model / "model.skops").write_bytes(b"broken"), "cannot be loaded"),
        (lambda model: shutil.rmtree(model.parent), "the registry does not have it"),
        (
            lambda model: (
                (model / "serving_input_example.json").unlink()
                or (model / "input_example.json").write_text('{"columns": ["y"], "data": [[1.0]]}')
            ),
            "does not answer its own input example",
        ),
    ],
    ids=["broken", "gone", "does not answer its example"],
)
def test_a_version_that_cannot_serve_is_refused_once_and_the_old_one_goes_on(
    champion: Champion, remote: Remote, health: Health, spoil: Callable[[Path], Any], why: str
) -> None:
    remote.add("1", LogisticRegression())
    remote.add("2", LogisticRegression())
    spoil(remote.folder / "2" / "model")
    remote.named = "1"
    champion.refresh()
    remote.named = "2"
    champion.refresh()
    fetches = remote.fetches
    champion.refresh()
    assert in_service(champion) == "1"
    assert remote.fetches == fetches
    assert champion.refusal is not None
    assert (champion.refusal.version, why in champion.refusal.why) == ("2", True)
    assert not health.missing
    assert "version 2 is refused" in health.warnings["version"]


def test_a_refusal_is_over_when_the_alias_is_moved_back(champion: Champion, remote: Remote, health: Health) -> None:
    remote.add("1", LogisticRegression())
    for remote.named in ("1", "2", "1"):
        champion.refresh()
    assert champion.refusal is None
    assert not health.warnings


def test_a_version_that_would_break_todays_requests_is_refused_unless_the_settings_accept_it(
    start: Callable[..., Champion], remote: Remote
) -> None:
    remote.add("1", LogisticRegression())
    remote.add("2", LogisticRegression(), frame=FRAME.assign(y=1.0))
    champion = start()
    for remote.named in ("1", "2"):
        champion.refresh()
    assert champion.refusal is not None
    assert "the new column y is required" in champion.refusal.why
    assert "DRIFTLOOP_PREDICTOR__SIGNATURE_CHANGES" in champion.refusal.why
    again = start()  # what was served last counts after a restart too
    again.start()
    again.refresh()
    assert in_service(again) == "1"
    accepting = start(signature_changes="accept")
    accepting.refresh()
    assert in_service(accepting) == "2"


def test_a_registry_that_is_away_leaves_the_version_serving(champion: Champion, remote: Remote, health: Health) -> None:
    remote.add("1", LogisticRegression())
    remote.named = "1"
    champion.refresh()
    remote.fault = MlflowException("away")
    champion.refresh()
    assert in_service(champion) == "1"
    assert not health.missing
    assert "out of reach: away" in health.warnings["registry"]
    remote.fault = None
    champion.refresh()
    assert not health.warnings


def test_without_a_registry_a_start_takes_the_last_good_version_from_the_disk_and_says_so(
    start: Callable[..., Champion], remote: Remote, health: Health
) -> None:
    remote.add("1", LogisticRegression())
    remote.add("2", LogisticRegression())
    before = start()
    for remote.named in ("1", "2", "1", "3"):  # the last is refused
        before.refresh()
    remote.fault = MlflowException("away")
    after = start()
    after.start()
    assert (in_service(after), health.missing) == ("1", {})
    after.refresh()
    assert (in_service(after), after.source) == ("1", "disk")
    assert not health.missing
    assert "registry" in health.warnings
    remote.fault, remote.named = None, "2"
    after.refresh()
    assert (in_service(after), after.source) == ("2", "alias")


def test_without_registry_and_disk_nothing_serves_and_the_reason_is_said(
    champion: Champion, remote: Remote, health: Health
) -> None:
    remote.fault = MlflowException("away")
    champion.start()
    assert "out of reach: away" in health.missing["model"]


def test_a_pinned_version_serves_whatever_the_alias_names(start: Callable[..., Champion], remote: Remote) -> None:
    remote.add("1", LogisticRegression())
    remote.add("2", LogisticRegression())
    remote.named = "2"
    start().start()  # leaves version 2 on the disk
    pinned = start(version="1")
    pinned.start()
    assert (in_service(pinned), pinned.source) == ("1", "setting")


def test_the_disk_keeps_the_version_in_service_and_the_one_before(
    champion: Champion, remote: Remote, tmp_path: Path
) -> None:
    for remote.named in ("1", "2", "3"):
        remote.add(str(remote.named), LogisticRegression())
        champion.refresh()
    assert {path.name for path in (tmp_path / "models").iterdir() if path.is_dir()} == {"2", "3"}


@pytest.mark.parametrize(
    ("estimator", "outcome", "method", "expected"),
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
def test_a_version_answers_by_the_method_that_it_was_logged_with(
    champion: Champion, remote: Remote, estimator: Any, outcome: Any, method: str, expected: Callable[..., bool]
) -> None:
    remote.add("1", estimator, outcome, pyfunc_predict_fn=method)
    remote.named = "1"
    champion.refresh()
    assert champion.serving is not None
    low, high = champion.serving.predict({"x": [0.0, 3.0]}).scores()
    assert expected(low, high)
