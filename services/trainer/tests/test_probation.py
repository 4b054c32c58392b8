"""Whether a promoted version stays."""

from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr
from sklearn.linear_model import LogisticRegression

from driftloop import settings
from driftloop.events import ModelChange
from driftloop.registry.model_registry import Refused
from driftloop.usecase import UseCase
from trainer.probation import probation
from trainer.probation.probation import Verdict, decide, end, first_days, judge_probation
from trainer.settings import Probation, Trainer, TrainerSettings

USE_CASE = UseCase(
    name="m",
    numbers=("good", "poor"),
    categories=(),
    outcome="y",
    time="at",
    timezone="America/New_York",
    pipeline=LogisticRegression,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)
REGRESSION = replace(USE_CASE, metric="rmse")
PROBATION = Probation(days=7, fewest_days=5)


def served(days: int, by: str, rows: int = 200) -> pd.DataFrame:
    """What a version that goes by a feature has answered, with outcomes."""
    random = np.random.default_rng(1)
    good = random.random(days * rows)
    at = pd.Timestamp("2013-04-01 14:00", tz="UTC") + pd.to_timedelta(np.arange(days * rows) // rows, unit="D")
    frame = pd.DataFrame({"at": at, "good": good, "poor": random.random(days * rows)})
    return frame.assign(y=(random.random(days * rows) < good).astype(float), prediction=frame[by])


class Sees(NamedTuple):
    """An estimator that goes by one feature."""

    feature: str

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.column_stack([1 - rows[self.feature], rows[self.feature]])

    def predict(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return rows[self.feature].to_numpy()


class Stored(NamedTuple):
    estimator: Sees


class Versions:
    """A registry whose version 2 has replaced version 1, which goes by a feature."""

    model = "m"

    def __init__(self, previous: str | None, feature: str = "good") -> None:
        self.serving: str | None = "2"
        self._previous, self._feature = previous, feature
        self.loaded: list[str] = []

    def champion(self) -> str | None:
        return self.serving

    def previous(self) -> str | None:
        return self._previous

    def versions(self) -> list[str]:
        return ["1", "2"]

    def load(self, version: str) -> Stored:
        self.loaded.append(version)
        if self._feature == "broken":
            raise Refused("its files are broken")
        return Stored(Sees(self._feature))

    def learned_until(self, _: str) -> pd.Timestamp:
        return pd.Timestamp("2013-03-01", tz="UTC")

    def retrain_of(self, version: str) -> str:
        return f"retrain-{version}"

    def withdraw(self, version: str, change: ModelChange) -> None:
        assert version == self.serving
        self.serving = change.version


def mine(days: int = 7) -> TrainerSettings:
    return TrainerSettings(
        use_case=USE_CASE,
        registry=settings.Registry(model="m"),
        trainer=Trainer(api_key=SecretStr("open sesame")),
        probation=Probation(days=days, fewest_days=5),
    )


@pytest.mark.parametrize("use_case", [USE_CASE, REGRESSION], ids=["roc_auc", "rmse"])
@pytest.mark.parametrize(
    ("by", "before", "days", "what", "why"),
    [
        ("poor", "good", 7, "goes", "which is clearly better"),
        ("poor", "good", 5, "goes", "on 1,000 rows of 5 days since its promotion"),
        ("good", "poor", 7, "stays", "on 1,400 rows of 7 days"),
        ("good", "good", 7, "stays", "a difference of +0.000 [+0.000, +0.000] at 95%, days drawn whole"),
        ("good", "poor", 5, "waits", "; 2 more days of outcomes count"),
    ],
)
def test_a_version_goes_where_the_one_before_is_clearly_better(
    use_case: UseCase, by: str, before: str, days: int, what: str, why: str
) -> None:
    rows = served(days, by)
    verdict = decide(use_case, rows, rows[before].to_numpy(), PROBATION)
    assert (verdict.what, why in verdict.why) == (what, True), verdict.why


def test_one_bad_day_is_not_enough() -> None:
    """Rows drawn one by one would be sure: a fifth of them are of a day on which everything was the other way round."""
    rows = served(5, "good")
    rows.loc[rows["at"].dt.day == 3, "prediction"] = 1 - rows["good"]
    verdict = decide(USE_CASE, rows, rows["good"].to_numpy(), PROBATION)
    assert verdict.what == "waits"


def test_outcomes_that_are_all_the_same_say_nothing() -> None:
    rows = served(7, "poor").assign(y=0.0)
    assert decide(USE_CASE, rows, rows["good"].to_numpy(), PROBATION).what == "stays"


def test_days_are_the_use_cases_own() -> None:
    """Half past three in the night of UTC is the evening before in New York."""
    rows = served(8, "good").assign(at=lambda frame: frame["at"] + pd.Timedelta(hours=13.5))
    first = first_days(USE_CASE, rows, 7)
    assert sorted(USE_CASE.days(first["at"]).unique())[-1].isoformat() == "2013-04-07"
    assert len(first) == 7 * 200
    assert first_days(USE_CASE, rows[:0], 7).empty


@pytest.mark.parametrize(
    ("previous", "feature", "days", "of", "what", "why", "loaded"),
    [
        (None, "good", 9, 7, "stays", "there is no version to go back to", []),
        ("1", "good", 9, 0, "stays", "there is no probation", []),
        ("1", "good", 0, 7, "waits", "0 days of outcomes since its promotion, and 5 are needed", []),
        ("1", "good", 4, 7, "waits", "4 days of outcomes since its promotion, and 5 are needed", []),
        ("1", "good", 5, 7, "goes", "which is clearly better", ["1"]),
        ("1", "poor", 9, 7, "stays", "on 1,400 rows of 7 days", ["1"]),
        ("1", "broken", 9, 7, "stays", "version 1 cannot be loaded: its files are broken", ["1"]),
    ],
)
def test_nothing_is_loaded_before_there_are_days_enough(
    monkeypatch: pytest.MonkeyPatch,
    previous: str | None,
    feature: str,
    days: int,
    of: int,
    what: str,
    why: str,
    loaded: list[str],
) -> None:
    asked = []

    def answered_by(_: object, __: object, version: str) -> pd.DataFrame:
        asked.append(version)
        return served(days, "poor")

    monkeypatch.setattr(probation, "answered_by", answered_by)
    versions = Versions(previous, feature)
    verdict = judge_probation(mine(of), versions, None)  # type: ignore[arg-type]  # stand-ins
    assert (verdict.what, why in verdict.why) == (what, True), verdict.why
    assert (verdict.version, verdict.previous) == ("2", previous)
    assert versions.loaded == loaded
    assert asked == ([] if previous is None or of == 0 else ["2"])


def test_a_version_that_has_to_go_is_rolled_back_once() -> None:
    versions = Versions("1")
    verdict = Verdict(what="goes", why="the one before is better", version="2", previous="1")
    change = end(versions, verdict)  # type: ignore[arg-type]  # a stand-in
    assert change is not None
    assert (change.state, change.version, change.retrain_id) == ("rolled_back", "1", "retrain-2")
    assert change.why == "version 1 serves again instead of version 2: probation: the one before is better"
    assert end(versions, verdict) is None  # type: ignore[arg-type]


@pytest.mark.parametrize("what", ["waits", "stays"])
def test_others_are_left_alone(what: str) -> None:
    verdict = Verdict.model_validate({"what": what, "why": "", "version": "2", "previous": "1"})
    assert end(Versions("1"), verdict) is None  # type: ignore[arg-type]


def test_a_version_that_somebody_else_has_replaced_is_left_alone() -> None:
    versions = Versions("1")
    versions.serving = "3"
    assert end(versions, Verdict(what="goes", why="", version="2", previous="1")) is None  # type: ignore[arg-type]
