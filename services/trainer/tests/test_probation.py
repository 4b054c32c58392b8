"""Probation: whether a promoted version stays in service."""

import os
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr

from driftloop import settings
from driftloop.errors import ArchiveUnreadable
from driftloop.events import ModelStateChanged
from driftloop.privacy_settings import SourcePrivacySettings
from driftloop.registry.loading import ModelRejected
from driftloop.registry.model_registry import RegisteredVersion, VersionOrigin
from driftloop.usecase import UseCase
from tests.support.folder_store import folder_store
from tests.support.synthetic_usecase import make_use_case
from trainer.probation import job
from trainer.probation.job import apply, evaluate
from trainer.probation.probation import ProbationDecision, decide, first_days
from trainer.probation.settings import ProbationSettings
from trainer.settings import TrainerServerSettings, TrainerSettings

USE_CASE = make_use_case(numeric_features=("good", "poor"))
REGRESSION = replace(USE_CASE, classes=None)
PROBATION = ProbationSettings(days=7, min_days=5)
REGISTERED = datetime(2026, 1, 2, tzinfo=UTC)
FAILED = ProbationDecision(status="failed", explanation="", version="2", run_id="run", previous="1")


def served(days: int, feature: str, rows: int = 200) -> pd.DataFrame:
    """Return the labelled rows of a version that returns a feature."""
    random = np.random.default_rng(1)
    good = random.random(days * rows)
    at = pd.Timestamp("2013-04-01 14:00", tz="UTC") + pd.to_timedelta(np.arange(days * rows) // rows, unit="D")
    frame = pd.DataFrame({"at": at, "good": good, "poor": random.random(days * rows)})
    return frame.assign(y=(random.random(days * rows) < good).astype(float), _prediction=frame[feature])


class SingleFeatureModel(NamedTuple):
    """An estimator that returns one feature."""

    feature: str

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.column_stack([1 - rows[self.feature], rows[self.feature]])

    def predict(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return rows[self.feature].to_numpy()


class FakeLoadedModel(NamedTuple):
    estimator: SingleFeatureModel


class FakeRegistry:
    """A registry whose version 2 has replaced version 1, which returns a feature."""

    model = "m"

    def __init__(self, previous: str | None, feature: str = "good") -> None:
        self.serving: str | None = "2"
        self.run_id = "run"
        self._previous, self._feature = previous, feature
        self.loaded: list[str] = []

    def champion(self) -> str | None:
        return self.serving

    def identified_champion(self) -> RegisteredVersion | None:
        return RegisteredVersion(self.serving, self.run_id) if self.serving else None

    def changing_alias(self, *, wait: bool) -> AbstractContextManager[None]:
        assert not wait
        return nullcontext()

    def previous(self) -> str | None:
        return self._previous

    def versions(self) -> list[str]:
        return ["1", "2"]

    def load(self, version: str) -> FakeLoadedModel:
        self.loaded.append(version)
        if self._feature == "broken":
            raise ModelRejected("its files are broken")
        return FakeLoadedModel(SingleFeatureModel(self._feature))

    def origin(self, version: str) -> VersionOrigin:
        assert version == self.serving
        return VersionOrigin("run", "", REGISTERED)

    def trained_through(self, _: str) -> pd.Timestamp:
        return pd.Timestamp("2013-03-01", tz="UTC")

    def retrain_id_of(self, version: str) -> str:
        return f"retrain-{version}"

    def apply_rollback(self, version: str, change: ModelStateChanged) -> None:
        assert version == self.serving
        self.serving = change.version


def trainer_settings(days: int = 7) -> TrainerSettings:
    return TrainerSettings(
        use_case=USE_CASE,
        registry=settings.RegistrySettings(model="m"),
        trainer=TrainerServerSettings(api_key=SecretStr("open sesame")),
        probation=ProbationSettings(days=days, min_days=5),
    )


@pytest.mark.parametrize("use_case", [USE_CASE, REGRESSION], ids=["roc_auc", "rmse"])
@pytest.mark.parametrize(
    ("feature", "previous_feature", "days", "status", "explanation"),
    [
        ("poor", "good", 7, "failed", "which is clearly better"),
        ("poor", "good", 5, "failed", "on 1,000 rows of 5 days since its promotion"),
        ("good", "poor", 7, "passed", "on 1,400 rows of 7 days"),
        ("good", "good", 7, "passed", "at 95%, resampled by days"),
        ("good", "poor", 5, "pending", "; probation goes on for 2 more days of outcomes"),
    ],
)
def test_probation_fails_version_that_is_clearly_worse_than_previous(
    use_case: UseCase, feature: str, previous_feature: str, days: int, status: str, explanation: str
) -> None:
    rows = served(days, feature)
    decision = decide(use_case, rows, rows[previous_feature].to_numpy(), PROBATION)
    assert (decision.status, explanation in decision.explanation) == (status, True), decision.explanation


def test_probation_explanation_has_difference_with_interval() -> None:
    rows = served(7, "good")
    decision = decide(USE_CASE, rows, rows["good"].to_numpy(), PROBATION)
    assert "a difference of +0.000 [+0.000, +0.000] at 95%" in decision.explanation


def test_probation_does_not_fail_for_one_bad_day() -> None:
    """A bootstrap of single rows would be sure: a fifth of them are from a day with reversed predictions."""
    rows = served(5, "good")
    rows.loc[rows["at"].dt.day == 3, "_prediction"] = 1 - rows["good"]
    decision = decide(USE_CASE, rows, rows["good"].to_numpy(), PROBATION)
    assert decision.status == "pending"


def test_probation_passes_when_outcomes_are_all_equal() -> None:
    rows = served(7, "poor").assign(y=0.0)
    assert decide(USE_CASE, rows, rows["good"].to_numpy(), PROBATION).status == "passed"


def test_first_days_counts_days_in_use_case_time_zone() -> None:
    """03:30 UTC is the evening before in New York."""
    rows = served(8, "good").assign(at=lambda frame: frame["at"] + pd.Timedelta(hours=13.5))
    first = first_days(USE_CASE, rows, 7)
    assert sorted(USE_CASE.local_dates(first["at"]).unique())[-1].isoformat() == "2013-04-07"
    assert len(first) == 7 * 200
    assert first_days(USE_CASE, rows[:0], 7).empty


@pytest.mark.parametrize(
    ("previous", "feature", "days", "probation_days", "status", "explanation", "loaded"),
    [
        (None, "good", 9, 7, "passed", "there is no version to roll back to", []),
        ("1", "good", 9, 0, "passed", "there is no probation", []),
        ("1", "good", 0, 7, "pending", "0 days of outcomes since its promotion, and 5 are needed", []),
        ("1", "good", 4, 7, "pending", "4 days of outcomes since its promotion, and 5 are needed", []),
        ("1", "good", 5, 7, "failed", "which is clearly better", ["1"]),
        ("1", "poor", 9, 7, "passed", "on 1,400 rows of 7 days", ["1"]),
        ("1", "broken", 9, 7, "passed", "version 1 cannot be loaded: its files are broken", ["1"]),
    ],
)
def test_probation_check_loads_previous_version_only_with_enough_days(
    monkeypatch: pytest.MonkeyPatch,
    previous: str | None,
    feature: str,
    days: int,
    probation_days: int,
    status: str,
    explanation: str,
    loaded: list[str],
) -> None:
    queried = []

    def labelled_rows_of(_: object, __: object, version: str, registered: datetime) -> pd.DataFrame:
        assert registered == REGISTERED
        queried.append(version)
        return served(days, "poor")

    monkeypatch.setattr(job, "labelled_rows_of", labelled_rows_of)
    registry = FakeRegistry(previous, feature)
    decision = evaluate(trainer_settings(probation_days), registry, None)  # type: ignore[arg-type]  # stand-ins
    assert (decision.status, explanation in decision.explanation) == (status, True), decision.explanation
    assert (decision.version, decision.run_id, decision.previous) == ("2", "run", previous)
    assert registry.loaded == loaded
    assert queried == ([] if previous is None or probation_days == 0 else ["2"])


def test_labelled_rows_are_read_from_files_since_the_registration(tmp_path: Path) -> None:
    """The rows' own times are those of a replay; an older file would fail the check, as it is no Parquet file."""
    store, settings = folder_store(tmp_path / "store"), trainer_settings()
    rows = served(1, "good", rows=3)
    ids = pd.DataFrame({"_id": ["a", "b", "c"], "_row": 0, "_time": rows["at"]})
    answers = ids.assign(good=rows["good"], poor=rows["poor"], _model="m", _version=["2", "2", "1"], _prediction=0.5)
    outcomes = ids.assign(outcome=rows["y"])
    written = {settings.topics.predictions: answers, settings.topics.outcomes: outcomes}
    for topic, frame in written.items():
        old = f"slices/{topic}/{topic}-0-{0:012}-{9:012}.parquet"
        store.write(old, b"no Parquet file")
        before = (REGISTERED - timedelta(days=1)).timestamp()
        os.utime(tmp_path / "store" / old, (before, before))
        store.write_parquet(f"slices/{topic}/{topic}-0-{10:012}-{19:012}.parquet", frame)
    read = job.labelled_rows_of(settings, store, "2", REGISTERED)
    assert read["_id"].tolist() == ["a", "b"]
    assert read["at"].tolist() == rows["at"][:2].tolist()
    with pytest.raises(ArchiveUnreadable):
        job.labelled_rows_of(settings, store, "2", REGISTERED - timedelta(days=2))


def test_probation_passes_where_privacy_hides_features_from_the_archive() -> None:
    """The version before would predict hashes, and lose every comparison."""
    settings = trainer_settings().model_copy(
        update={"privacy": SourcePrivacySettings(features={"good": "hash"}, hash_key=SecretStr("k" * 32))}
    )
    decision = evaluate(settings, FakeRegistry("1"), None)  # type: ignore[arg-type]  # stand-ins
    assert decision.status == "passed"
    assert "DRIFTLOOP_PRIVACY__FEATURES hides good from archived rows" in decision.explanation


def test_probation_rolls_back_failed_version_once() -> None:
    registry = FakeRegistry("1")
    decision = FAILED.model_copy(update={"explanation": "the one before is better"})
    change = apply(registry, decision)  # type: ignore[arg-type]  # a stand-in
    assert change is not None
    assert (change.state, change.version, change.retrain_id) == ("rolled_back", "1", "retrain-2")
    assert change.explanation == "version 1 serves again instead of version 2: probation: the one before is better"
    assert apply(registry, decision) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("status", ["pending", "passed"])
def test_probation_does_not_roll_back_without_failure(status: str) -> None:
    decision = ProbationDecision.model_validate({**FAILED.model_dump(), "status": status})
    assert apply(FakeRegistry("1"), decision) is None  # type: ignore[arg-type]


def test_probation_does_not_roll_back_replaced_version() -> None:
    registry = FakeRegistry("1")
    registry.serving = "3"
    assert apply(registry, FAILED) is None  # type: ignore[arg-type]


def test_probation_does_not_roll_back_a_version_of_the_same_number_of_a_model_that_was_made_again() -> None:
    registry = FakeRegistry("1")
    registry.run_id = "another run"
    assert apply(registry, FAILED) is None  # type: ignore[arg-type]
