"""References and gate evaluations, in a bucket that keeps its objects in a folder."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from driftloop.drift.calibration import calibrate
from driftloop.errors import DriftloopError
from driftloop.events import Evaluation
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference, ReferenceUnavailable
from tests.support.folder_store import folder_store


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path / "store")


@pytest.fixture(scope="module")
def reference() -> Reference:
    random = np.random.default_rng(0)
    rows = pd.DataFrame({"x": random.normal(size=2_000), "_prediction": random.random(2_000)})
    profile = calibrate(
        rows,
        np.repeat(np.arange(40), 50),
        {"x": "number", "_prediction": "number"},
        window_rows=50,
        false_alarm_rate=0.05,
        embargo_days=1,
        importance={},
        distances={},
    )
    return Reference(rows, profile)


def test_saved_reference_is_loaded_unchanged(store: ObjectStore, reference: Reference) -> None:
    assert reference_store.save_reference(store, "m", "1", reference) == store.url("references/m/1")
    loaded = reference_store.load_reference(store, "m", "1")
    pd.testing.assert_frame_equal(loaded.rows, reference.rows)
    assert loaded.profile == reference.profile


def test_version_of_a_model_that_was_made_again_has_a_reference_of_its_own(
    store: ObjectStore, reference: Reference
) -> None:
    evaluation = Evaluation(rows=10, days=3, resampling_unit="days", metrics={})
    for run_id, rows in (("first", reference.rows), ("second", reference.rows.head(10))):
        url = reference_store.save_reference(store, "m", "1", reference._replace(rows=rows), run_id)
        assert url == store.url(f"references/m/1/{run_id}")
        reference_store.save_gate_evaluation(store, "m", "1", evaluation.model_copy(update={"rows": len(rows)}), run_id)
    for run_id, count in (("first", 2_000), ("second", 10), ("", 10)):
        assert len(reference_store.load_reference(store, "m", "1", run_id).rows) == count
        loaded = reference_store.load_gate_evaluation(store, "m", "1", run_id)
        assert loaded is not None
        assert loaded.rows == count
        assert reference_store.load_profile(store, "m", "1", run_id) == reference.profile
    for load in (reference_store.load_reference, reference_store.load_profile):
        with pytest.raises(ReferenceUnavailable, match="references/m/1/third is incomplete or missing"):
            load(store, "m", "1", "third")


@pytest.mark.parametrize("name", ["rows.parquet", "profile.json"])
def test_reference_with_missing_object_is_unavailable(store: ObjectStore, reference: Reference, name: str) -> None:
    reference_store.save_reference(store, "m", "1", reference)
    store.delete(f"{reference_store.reference_prefix('m', '1')}/{name}")
    with pytest.raises(ReferenceUnavailable, match=r"version 1 of m has no reference: file://.*/references/m/1"):
        reference_store.load_reference(store, "m", "1")


@pytest.mark.parametrize("name", ["rows.parquet", "profile.json"])
def test_reference_with_corrupt_object_is_unavailable(store: ObjectStore, reference: Reference, name: str) -> None:
    reference_store.save_reference(store, "m", "1", reference)
    store.write(f"{reference_store.reference_prefix('m', '1')}/{name}", b"neither Parquet nor JSON")
    with pytest.raises(ReferenceUnavailable, match="the reference of version 1 of m cannot be read"):
        reference_store.load_reference(store, "m", "1")


def test_reference_without_a_column_of_its_profile_is_unavailable(store: ObjectStore, reference: Reference) -> None:
    reference_store.save_reference(store, "m", "1", reference._replace(rows=reference.rows[["x"]]))
    with pytest.raises(ReferenceUnavailable, match="has no column _prediction"):
        reference_store.load_reference(store, "m", "1")


def test_gate_evaluation_is_loaded_unchanged_and_none_if_never_saved(store: ObjectStore) -> None:
    evaluation = Evaluation(rows=10, days=3, resampling_unit="days", metrics={})
    assert reference_store.load_gate_evaluation(store, "m", "1") is None
    reference_store.save_gate_evaluation(store, "m", "1", evaluation)
    assert reference_store.load_gate_evaluation(store, "m", "1") == evaluation


def test_corrupt_gate_evaluation_is_an_error(store: ObjectStore) -> None:
    store.write(f"{reference_store.reference_prefix('m', '1')}/gate_evaluation.json", b'{"rows": ')
    with pytest.raises(ReferenceUnavailable, match="the gate evaluation of version 1 of m cannot be read") as error:
        reference_store.load_gate_evaluation(store, "m", "1")
    assert isinstance(error.value, DriftloopError)


@pytest.mark.parametrize(
    ("count", "max_rows", "expected"), [(5, 5, [0, 1, 2, 3, 4]), (5, 9, [0, 1, 2, 3, 4]), (9, 3, [0, 4, 8])]
)
def test_subsample_evenly_keeps_order_and_both_ends(count: int, max_rows: int, expected: list[int]) -> None:
    rows = pd.DataFrame({"x": range(count)})
    assert reference_store.subsample_evenly(rows, max_rows)["x"].tolist() == expected
