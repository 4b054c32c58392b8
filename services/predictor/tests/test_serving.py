"""Swaps: loaded, checked and tried before they are seen; refused ones leave the old version serving."""

from collections.abc import Sequence
from typing import Any

import pandas as pd
import pytest
from mlflow.exceptions import MlflowException
from mlflow.models import infer_signature
from sklearn.linear_model import LinearRegression, LogisticRegression

from driftloop.registry import Refused, StoredModel
from driftloop.telemetry import Health
from predictor.serving import Champion

FRAME = pd.DataFrame({"x": [0.0, 1.0, 2.0, 3.0]})


def stored(estimator: Any, outcome: Sequence[float] = (0, 0, 1, 1)) -> StoredModel:
    return StoredModel(estimator.fit(FRAME, outcome), infer_signature(FRAME), FRAME.head(2))


class Versions:
    """Stands in for the registry: versions that load, and faults."""

    model, alias = "m", "champion"

    def __init__(self) -> None:
        self.named: str | None = None
        self.versions: dict[str, StoredModel | Exception] = {}
        self.fault: Exception | None = None
        self.loads = 0

    def champion(self) -> str | None:
        if self.fault:
            raise self.fault
        return self.named

    def load(self, version: str, _: Sequence[str]) -> StoredModel:
        self.loads += 1
        found = self.versions[version]
        if isinstance(found, Exception):
            raise found
        return found


@pytest.fixture
def versions() -> Versions:
    return Versions()


@pytest.fixture
def health() -> Health:
    health = Health()
    health.started()
    return health


@pytest.fixture
def champion(versions: Versions, health: Health) -> Champion:
    return Champion(versions, [], 10, health)  # type: ignore[arg-type]  # a stand-in


def test_without_a_version_the_predictor_is_not_ready_and_says_so(champion: Champion, health: Health) -> None:
    champion.refresh()
    assert champion.serving is None
    assert "no version of m has the alias champion" in health.missing["model"]


def test_the_version_that_the_alias_names_is_swapped_in(champion: Champion, versions: Versions, health: Health) -> None:
    versions.versions = {"1": stored(LogisticRegression()), "2": stored(LinearRegression())}
    for version in ("1", "2", "1"):
        versions.named = version
        champion.refresh()
        assert champion.serving is not None
        assert champion.serving.version == version
    assert not health.missing


def test_the_same_version_is_loaded_once(champion: Champion, versions: Versions) -> None:
    versions.named, versions.versions = "1", {"1": stored(LogisticRegression())}
    champion.refresh()
    champion.refresh()
    assert versions.loads == 1


@pytest.mark.parametrize(
    "broken",
    [Refused("not skops"), StoredModel(LogisticRegression(), infer_signature(FRAME), FRAME)],
    ids=["refused by the registry", "does not answer its example"],
)
def test_a_version_that_cannot_serve_is_refused_once_and_the_old_one_goes_on(
    champion: Champion, versions: Versions, health: Health, broken: StoredModel | Exception
) -> None:
    versions.named, versions.versions = "1", {"1": stored(LogisticRegression()), "2": broken}
    champion.refresh()
    versions.named = "2"
    champion.refresh()
    champion.refresh()
    assert champion.serving is not None
    assert champion.serving.version == "1"
    assert versions.loads == 2
    assert champion.refusal is not None
    assert champion.refusal.startswith("version 2: ")
    assert not health.missing


def test_a_registry_that_is_away_leaves_the_version_serving(
    champion: Champion, versions: Versions, health: Health
) -> None:
    versions.named, versions.versions = "1", {"1": stored(LogisticRegression())}
    champion.refresh()
    versions.fault = MlflowException("away")
    champion.refresh()
    assert champion.serving is not None
    assert not health.missing


def test_a_classifier_answers_with_probabilities_and_a_regressor_with_values(
    champion: Champion, versions: Versions
) -> None:
    versions.versions = {"1": stored(LogisticRegression()), "2": stored(LinearRegression(), [0, 2, 4, 6])}
    versions.named = "1"
    champion.refresh()
    assert champion.serving is not None
    low, high = champion.serving.score({"x": [0.0, 3.0]})
    assert 0 < low < 0.5 < high < 1
    versions.named = "2"
    champion.refresh()
    assert champion.serving.score({"x": [5.0]}) == pytest.approx([10.0])
