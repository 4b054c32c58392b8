"""What a retrain leaves behind, in which order."""

from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pandas as pd
import pytest
from pydantic import SecretStr
from sklearn.linear_model import LogisticRegression

from driftloop import settings
from driftloop.consuming import Received
from driftloop.events import Event, ModelChange, Retrain
from driftloop.reference import read_measured
from driftloop.storage import Bucket
from driftloop.usecase import UseCase
from trainer import dataset, training
from trainer.retrains import Retrains
from trainer.settings import Gate, Trainer, TrainerSettings

USE_CASE = UseCase(
    name="m",
    numbers=("good", "poor"),
    categories=(),
    outcome="y",
    time="at",
    timezone="UTC",
    pipeline=LogisticRegression,
    pointer=Path("m.dvc"),
    rows=pd.DataFrame,
)
DAYS, ROWS = 40, 50


class Objects(Bucket):
    """A bucket in memory."""

    def __init__(self) -> None:
        self.name, self.objects = "b", dict[str, bytes]()

    def write(self, path: str, content: bytes) -> None:
        self.objects[path] = content

    def read(self, path: str) -> bytes:
        if path not in self.objects:
            raise FileNotFoundError(path)
        return self.objects[path]


class Sees(NamedTuple):
    """An estimator that goes by one feature."""

    feature: str

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray[Any, Any]:
        return np.column_stack([1 - rows[self.feature], rows[self.feature]])


class Stored(NamedTuple):
    estimator: Sees


class Versions:
    """A registry whose champion goes by the poor feature."""

    def __init__(self, bucket: Bucket, champion: str | None) -> None:
        self.bucket, self._champion = bucket, champion
        self.measured_at_promotion = False

    def champion(self) -> str | None:
        return self._champion

    def outcome_of(self, _: str) -> None:
        return None

    def learned_until(self, _: str) -> pd.Timestamp:
        return pd.Timestamp(0, tz="UTC")

    def load(self, _: str) -> Stored:
        return Stored(Sees("poor"))

    def log_figures(self, *_: object) -> None:
        pass

    def record(self, *_: object) -> None:
        pass

    def promote(self, version: str) -> None:
        self.measured_at_promotion = read_measured(self.bucket, "m", version) is not None


class Nobody:
    """Hears what is published, and says nothing."""

    def publish(self, event: Event) -> None:
        pass


def rows() -> pd.DataFrame:
    random = np.random.default_rng(0)
    good = random.random(DAYS * ROWS)
    at = pd.Timestamp("2013-01-01", tz="UTC") + pd.to_timedelta(np.arange(DAYS * ROWS) // ROWS, unit="D")
    outcomes = (random.random(DAYS * ROWS) < good).astype(float)
    return pd.DataFrame(
        {"at": at + timedelta(hours=12), "good": good, "poor": random.random(DAYS * ROWS), "y": outcomes}
    )


def retrained(monkeypatch: pytest.MonkeyPatch, champion: str | None, goes_by: str) -> tuple[ModelChange, Versions]:
    """The end of a retrain whose challenger goes by a feature."""
    bucket = Objects()
    versions = Versions(bucket, champion)
    monkeypatch.setattr(dataset, "pull", lambda *_: rows())
    monkeypatch.setattr(training, "register", lambda *_: training.Challenger("2", "run", Sees(goes_by), 1000))
    mine = TrainerSettings(
        use_case=USE_CASE,
        registry=settings.Registry(model="m"),
        trainer=Trainer(api_key=SecretStr("open sesame")),
        gate=Gate(held_out_days=10),
    )
    retrains = Retrains(mine, versions, bucket, Nobody())  # type: ignore[arg-type]  # stand-ins
    asked = Retrain.model_validate(
        {"model": "m", "trigger": "manual", "reason": "why not", "asked_by": "me", "data": {"archive": False}}
    )
    (final,) = retrains.handle(Received("retrain", 0, 0, asked, 0))
    (change,) = final.events
    assert isinstance(change, ModelChange)
    return change, versions


@pytest.mark.parametrize(("goes_by", "state"), [("good", "promoted"), ("poor", "rejected")])
def test_what_the_gate_measured_lies_beside_the_reference(
    monkeypatch: pytest.MonkeyPatch, goes_by: str, state: str
) -> None:
    change, versions = retrained(monkeypatch, "1", goes_by)
    assert change.state == state, change.why
    measured = read_measured(versions.bucket, "m", "2")
    assert measured is not None
    assert (measured.rows, measured.days, measured.drawn) == (10 * ROWS, 10, "days")
    assert measured.figures["roc_auc"].value == pytest.approx(change.challenger["roc_auc"], abs=1e-12)
    assert set(measured.figures) == {"roc_auc", "brier", "accuracy", "calibration_error"}


def test_it_lies_there_before_the_version_can_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    assert retrained(monkeypatch, "1", "good")[1].measured_at_promotion


def test_of_a_first_version_nothing_is_measured(monkeypatch: pytest.MonkeyPatch) -> None:
    change, versions = retrained(monkeypatch, None, "good")
    assert change.state == "promoted"
    assert read_measured(versions.bucket, "m", "2") is None
