"""Test the verdict on one version's rows of a window."""

import json
import tracemalloc
from collections.abc import Sequence
from datetime import timedelta

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest

from drift_worker.verdicts import window_judge as judging
from drift_worker.verdicts.window_judge import WindowJudge
from driftloop.drift.comparable_columns import FeatureKind
from driftloop.drift.settings import WindowSettings
from driftloop.events import DriftVerdict, Window
from driftloop.privacy import FeaturePolicy, Treatment
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_building import build_reference
from driftloop.telemetry.health import Health
from tests.support.drift_windows import BEGIN, ROWS, make_days, store_reference

pytest_plugins = "tests.support.drift_windows"

SETTINGS = WindowSettings(rows=ROWS)


@pytest.fixture
def window_judge(store: ObjectStore) -> WindowJudge:
    return WindowJudge(store, SETTINGS)


def window(number: int = 0) -> Window:
    return Window(topic="predictions", partition=0, first_offset=number * ROWS, last_offset=(number + 1) * ROWS - 1)


def rows_of_day(frame: pd.DataFrame, day: int = 0) -> pd.DataFrame:
    times = [BEGIN + timedelta(days=day, minutes=row) for row in range(len(frame))]
    ids = [f"{day}-{row}" for row in range(len(frame))]
    return frame.assign(_id=ids, _row=0, _time=pd.to_datetime(times), _model="m", _version="1")


def judge(
    window_judge: WindowJudge,
    frame: pd.DataFrame,
    number: int = 0,
    preceding: Sequence[pd.DataFrame] = (),
    version: str = "1",
) -> DriftVerdict:
    rows = rows_of_day(frame, number)
    return window_judge.judge(window(number), "m", version, rows, preceding, ["gs://b/rows"])


def test_verdict_has_scores_findings_and_times(window_judge: WindowJudge, store: ObjectStore) -> None:
    reference = store_reference(store)
    normal, warm = judge(window_judge, make_days(1, 3)), judge(window_judge, make_days(1, 4, warmer=12))
    assert (normal.verdict, normal.drifted_columns) == ("no_drift", [])
    assert (warm.verdict, warm.drifted_columns) == ("drift", ["temp"])
    assert warm.score_threshold == reference.profile.spans[0].score_threshold
    assert warm.score is not None
    assert warm.score > warm.score_threshold
    assert (warm.first_prediction_at, warm.last_prediction_at) == (BEGIN, BEGIN + timedelta(minutes=ROWS - 1))
    assert (warm.rows, warm.archive, warm.id) == (ROWS, ["gs://b/rows"], f"{window().name}/m/1")


def test_judging_a_window_again_gives_an_equal_verdict(window_judge: WindowJudge, store: ObjectStore) -> None:
    store_reference(store)
    first, second = (judge(window_judge, make_days(1, 3)) for _ in range(2))
    assert second.model_copy(update={"time": first.time}) == first


def test_explanation_lists_scores_and_drifted_statistics(window_judge: WindowJudge, store: ObjectStore) -> None:
    store_reference(store)
    verdict = judge(window_judge, make_days(1, 4, warmer=12))
    score, *drifted = verdict.explanation.split("; ")
    assert score == f"score {verdict.score:.1f}, threshold {verdict.score_threshold:.1f}"
    assert drifted == [
        f"{f.column}: {f.method} {f.value:.3g} > {f.threshold:.3g}" for f in verdict.findings if f.drifted
    ]


@pytest.mark.parametrize(
    ("frame", "reason"),
    [
        (make_days(1).head(89), "too_few_rows"),
        (make_days(1).drop(columns=["temp", "visib"]), "missing_columns"),
    ],
    ids=["too few rows", "missing columns"],
)
def test_rows_that_cannot_be_compared_are_inconclusive(
    window_judge: WindowJudge, store: ObjectStore, frame: pd.DataFrame, reason: str
) -> None:
    store_reference(store)
    verdict = judge(window_judge, frame)
    assert (verdict.verdict, verdict.score, verdict.findings) == ("inconclusive", None, [])
    assert verdict.reason == reason


def test_small_reference_gives_data_quality_only(window_judge: WindowJudge, store: ObjectStore) -> None:
    store_reference(store, rows=make_days(19))
    verdict = judge(window_judge, make_days(1, 3).assign(carrier="XX"))
    assert (verdict.verdict, verdict.reason, verdict.findings) == ("inconclusive", "small_reference", [])
    assert [(issue.column, issue.kind) for issue in verdict.data_quality_issues] == [("carrier", "unseen_levels")]


def test_window_has_the_length_that_the_version_s_profile_says(store: ObjectStore) -> None:
    window_judge = WindowJudge(store, WindowSettings(rows=5 * ROWS))
    assert window_judge.window_length("m", "1") == 5 * ROWS  # it has no reference
    store_reference(store)
    assert window_judge.window_length("m", "1") == ROWS
    assert judge(window_judge, make_days(1, 3)).verdict == "no_drift"


def test_window_of_a_version_with_unreadable_reference_has_the_length_of_the_setting(
    window_judge: WindowJudge, store: ObjectStore
) -> None:
    store.write("references/m/1/profile.json", b"{")
    assert window_judge.window_length("m", "1") == ROWS


def test_levels_that_are_numbers_are_found_in_a_slice_with_texts_of_another_model(
    window_judge: WindowJudge, store: ObjectStore
) -> None:
    codes = {"UA": 1, "DL": 2, "B6": 3, "AA": 4}
    store_reference(store, rows=make_days(80).assign(carrier=lambda rows: rows["carrier"].map(codes)))
    frame = make_days(1, 3).assign(carrier=lambda rows: rows["carrier"].map(codes))
    as_texts = frame.astype({"carrier": str, "temp": str})
    numbers, texts = judge(window_judge, frame), judge(window_judge, as_texts)
    assert texts.findings == numbers.findings
    partly = as_texts.assign(carrier=frame["carrier"].astype(object).where(frame.index % 2 == 0, as_texts["carrier"]))
    assert judge(window_judge, partly).findings == numbers.findings


def test_version_without_reference_is_inconclusive(window_judge: WindowJudge) -> None:
    verdict = judge(window_judge, make_days(1))
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "no_reference")


def test_version_with_unreadable_reference_is_inconclusive(window_judge: WindowJudge, store: ObjectStore) -> None:
    store_reference(store)
    store.write("references/m/1/profile.json", b"{")
    verdict = judge(window_judge, make_days(1))
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "unreadable_reference")


def test_conclusive_verdict_has_no_reason(window_judge: WindowJudge, store: ObjectStore) -> None:
    store_reference(store)
    assert judge(window_judge, make_days(1, 3)).reason is None


def test_reference_that_is_stored_later_is_used(window_judge: WindowJudge, store: ObjectStore) -> None:
    assert judge(window_judge, make_days(1, 3)).verdict == "inconclusive"
    store_reference(store)
    assert judge(window_judge, make_days(1, 3)).verdict == "no_drift"


def test_reference_is_loaded_once(
    window_judge: WindowJudge, store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_reference(store)
    paths: list[str] = []
    read = ObjectStore.read

    def recording_read(self: ObjectStore, path: str) -> bytes:
        paths.append(path)
        return read(self, path)

    monkeypatch.setattr(ObjectStore, "read", recording_read)
    for _ in range(3):
        judge(window_judge, make_days(1, 3))
    assert len(paths) == len(set(paths)) == 3  # rows, profile, and the run that was saved last


def test_version_of_the_same_number_and_another_run_has_its_own_reference(
    window_judge: WindowJudge, store: ObjectStore
) -> None:
    store_reference(store, run_id="first")
    store_reference(store, rows=make_days(80, warmer=12), run_id="second")
    rows = rows_of_day(make_days(1, 3))
    judged = {
        run_id: window_judge.judge(window(), "m", "1", rows, [], ["gs://b/rows"], run_id=run_id)
        for run_id in ("first", "second", "gone", None)
    }
    assert {run_id: (verdict.verdict, verdict.run_id) for run_id, verdict in judged.items()} == {
        "first": ("no_drift", "first"),
        "second": ("drift", "second"),
        "gone": ("inconclusive", "gone"),
        None: ("drift", None),  # by the reference that was saved last
    }
    assert len({verdict.id for verdict in judged.values()}) == len(judged)


def test_values_that_are_no_numbers_are_a_type_mismatch_and_count_as_missing(
    window_judge: WindowJudge, store: ObjectStore
) -> None:
    store_reference(store)
    frame = make_days(1, 3).astype({"temp": object})
    frame.loc[: ROWS // 4 - 1, "temp"] = "warm"
    verdict = judge(window_judge, frame)
    mismatches = {i.column: i.fraction for i in verdict.data_quality_issues if i.kind == "type_mismatch"}
    assert mismatches == {"temp": 0.25}
    (missing,) = [f for f in verdict.findings if (f.column, f.method) == ("temp", "missing_rate_change")]
    assert missing.value == pytest.approx(0.25)


@pytest.mark.parametrize("moment", ["1678-01-01", "2261-12-31T23:59:59Z"])
def test_datetimes_that_are_centuries_away_are_judged(
    window_judge: WindowJudge, store: ObjectStore, moment: str
) -> None:
    """Nanoseconds hold no difference of more than 292 years."""
    rows = rows_of_day(make_days(80)).assign(due="2013-01-08")
    rows.loc[::10, "due"] = moment
    features, days = rows[["temp", "due"]], np.arange(len(rows)) // ROWS
    kinds: dict[str, FeatureKind] = {"temp": "number", "due": "datetime", "_prediction": "number"}
    reference = build_reference(features, rows["_prediction"], kinds, rows["_time"], days, SETTINGS, embargo_days=1)
    reference_store.save_reference(store, "m", "1", reference)
    frame = make_days(1, 3).assign(due=["2013-01-08"] * (ROWS - 10) + [moment] * 10)
    verdict = judge(window_judge, frame)
    assert (verdict.verdict, verdict.data_quality_issues) == ("no_drift", [])
    assert window_judge.cumulate("m", "1", rows_of_day(frame), None) is not None


def test_probabilities_that_are_not_one_for_each_class_are_a_type_mismatch_and_count_as_missing(
    window_judge: WindowJudge, store: ObjectStore
) -> None:
    rows = rows_of_day(make_days(80))
    kinds: dict[str, FeatureKind] = {"temp": "number", "_prediction": "category"}
    days = np.arange(len(rows)) // ROWS
    reference = build_reference(rows[["temp"]], rows["carrier"], kinds, rows["_time"], days, SETTINGS, embargo_days=1)
    reference_store.save_reference(store, "m", "1", reference)
    classes = ["AA", "B6", "DL", "UA"]
    frame = make_days(1, 3)
    lists = [json.dumps([float(label == carrier) for label in classes]) for carrier in frame["carrier"]]
    frame = frame.assign(_prediction=lists, _classes=json.dumps(classes))
    usual = judge(window_judge, frame)
    assert (usual.verdict, usual.data_quality_issues) == ("no_drift", [])
    frame.loc[ROWS - 1, ["_prediction", "_classes"]] = ["[0.1, 0.9]", '["AA", "B6", "DL"]']
    verdict = judge(window_judge, frame)
    assert [(issue.column, issue.kind, issue.fraction) for issue in verdict.data_quality_issues] == [
        ("_prediction", "type_mismatch", 0.01)
    ]
    (missing,) = [f for f in verdict.findings if (f.column, f.method) == ("_prediction", "missing_rate_change")]
    assert missing.value == pytest.approx(0.01)


@pytest.mark.parametrize(
    ("first", "is_together"),
    [
        (make_days(1, 0), True),
        (make_days(1, 0).drop(columns="temp"), False),
        (make_days(1, 0).head(20), False),
        (None, False),
    ],
    ids=["conclusive", "missing columns", "too few rows", "no second one"],
)
def test_window_is_judged_with_the_two_before_it_if_they_are_conclusive(
    window_judge: WindowJudge, store: ObjectStore, first: pd.DataFrame | None, is_together: bool
) -> None:
    store_reference(store)
    earlier = [frame for frame in (first, make_days(1, 1)) if frame is not None]
    preceding = [rows_of_day(frame, number) for number, frame in enumerate(earlier)]
    verdict = judge(window_judge, make_days(1, 5), 2, preceding)
    assert verdict.verdict == "no_drift"
    assert (verdict.multiwindow_score is not None) is is_together
    assert {finding.windows for finding in verdict.findings} == ({1, 3} if is_together else {1})


def test_references_beyond_the_limit_are_dropped_and_loaded_again(store: ObjectStore) -> None:
    reference = store_reference(store)
    for version in ("2", "3"):
        reference_store.save_reference(store, "m", version, reference)
    window_judge = WindowJudge(store, SETTINGS, max_references_mb=0.001)
    verdicts = [judge(window_judge, make_days(1, 3), version=version) for version in ("1", "2", "3", "1")]
    assert [verdict.verdict for verdict in verdicts] == ["no_drift"] * 4
    assert verdicts[0].findings == verdicts[-1].findings
    for version in ("1", "3"):
        store.delete(f"{reference_store.reference_prefix('m', version)}/profile.json")
    assert judge(window_judge, make_days(1, 3), version="1").verdict == "no_drift"  # the last one stays
    assert judge(window_judge, make_days(1, 3), version="3").reason == "no_reference"


def test_memory_of_references_does_not_grow_with_the_versions(store: ObjectStore) -> None:
    reference = store_reference(store, rows=make_days(200))
    versions = list(map(str, range(12)))
    for version in versions:
        reference_store.save_reference(store, "m", version, reference)
    window_judge = WindowJudge(store, SETTINGS, max_references_mb=2)
    held = []
    tracemalloc.start()
    try:
        for version in versions:
            judge(window_judge, make_days(1, 3), version=version)
            held.append(tracemalloc.get_traced_memory()[0])
    finally:
        tracemalloc.stop()
    assert held[-1] - held[3] < 2**20  # eight versions; one has a megabyte


def test_rows_of_a_reference_are_not_kept_besides_what_is_prepared_of_them(store: ObjectStore) -> None:
    store_reference(store, rows=make_days(200))
    window_judge = WindowJudge(store, SETTINGS)
    before = pa.total_allocated_bytes()
    assert judge(window_judge, make_days(1, 3)).verdict == "no_drift"
    assert pa.total_allocated_bytes() - before < 100_000  # the rows have a megabyte


def policy_of(**features: Treatment) -> FeaturePolicy:
    return FeaturePolicy(features=features)


def store_private_reference(store: ObjectStore, policy: FeaturePolicy) -> None:
    reference = store_reference(store)
    reference_store.save_reference(
        store, "m", "1", reference._replace(profile=reference.profile.model_copy(update={"privacy": policy}))
    )


@pytest.mark.parametrize(
    ("recorded", "present", "left_out"),
    [
        (policy_of(), policy_of(), []),
        (policy_of(carrier="hash"), policy_of(carrier="hash"), []),
        (policy_of(), policy_of(carrier="hash"), ["carrier"]),
        (policy_of(carrier="hash"), policy_of(), ["carrier"]),
        (policy_of(), policy_of(temp="drop"), ["temp"]),
        (policy_of(), policy_of(temp="drop", visib="hash", carrier="drop"), ["carrier", "temp", "visib"]),
    ],
)
def test_columns_that_are_treated_otherwise_than_in_the_reference_are_left_out_with_a_reason(
    store: ObjectStore, recorded: FeaturePolicy, present: FeaturePolicy, left_out: list[str]
) -> None:
    store_private_reference(store, recorded)
    health = Health()
    window_judge = WindowJudge(store, SETTINGS, policy=present, health=health)
    frame = make_days(1, 4, warmer=12).drop(columns=[name for name in left_out if present.features.get(name) == "drop"])
    verdict = judge(window_judge, frame)
    assert verdict.verdict == ("no_drift" if "temp" in left_out else "drift"), verdict.explanation
    assert {finding.column for finding in verdict.findings} == {"temp", "visib", "carrier", "_prediction"} - {*left_out}
    rows = rows_of_day(frame)
    score = window_judge.cumulate("m", "1", rows, None)
    assert score is not None
    for column in left_out:
        assert f"{column} is not compared: " in verdict.explanation
        assert "DRIFTLOOP_PRIVACY__FEATURES" in verdict.explanation
        assert f"{column} is not compared: " in health.warnings["privacy"]
    assert ("privacy" in health.warnings) is bool(left_out)


def test_hash_of_another_key_is_left_out(store: ObjectStore) -> None:
    store_private_reference(store, FeaturePolicy(features={"carrier": "hash"}, hash_key_id="a"))
    other = FeaturePolicy(features={"carrier": "hash"}, hash_key_id="b")
    verdict = judge(WindowJudge(store, SETTINGS, policy=other), make_days(1, 3))
    assert "carrier is not compared: hashed in the reference by another key" in verdict.explanation


def test_window_whose_values_make_judging_fail_is_inconclusive_and_readiness_says_it(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_reference(store)
    health = Health()
    window_judge = WindowJudge(store, SETTINGS, health=health)
    rows = make_days(1, 3)
    assert judge(window_judge, rows).verdict == "no_drift"  # the reference is loaded

    def fail(*_: object) -> None:
        raise OverflowError("int too large")

    with monkeypatch.context() as patched:
        # A mock: values that are known to do this are handled.
        patched.setattr(judging, "comparable_rows", fail)
        verdict = judge(window_judge, rows)
        assert window_judge.cumulate("m", "1", rows_of_day(rows), None) is None
    assert (verdict.verdict, verdict.reason) == ("inconclusive", "failed")
    assert verdict.explanation == "judging has failed: OverflowError, see the log"
    assert "OverflowError" in health.warnings["judging"]
    assert judge(window_judge, rows).verdict == "no_drift"
    assert "judging" not in health.warnings
