"""Archived windows judged again."""

import pandas as pd
import pytest

from drift_worker.verdicts.replay import format_table, main, rejudge
from drift_worker.windows.archive import slice_path
from driftloop.events import DriftVerdict
from driftloop.settings import WindowSettings
from driftloop.storage import reference_store
from driftloop.storage.bucket import Bucket
from tests.support.drift_windows import ROWS, days, give_reference, judged

pytest_plugins = "tests.support.drift_windows"

WINDOW = WindowSettings(rows=ROWS)


@pytest.fixture
def given(bucket: Bucket) -> list[DriftVerdict]:
    """Verdicts on four quiet windows and a warm one."""
    give_reference(bucket)
    frames = [days(1, seed) for seed in range(1, 5)] + [days(1, 5, warmer=12)]
    return list(judged(bucket, frames))


def test_the_same_reference_gives_the_same_verdicts_marked_and_with_ids_of_their_own(
    bucket: Bucket, given: list[DriftVerdict]
) -> None:
    pairs = list(rejudge(reversed(given), given, bucket, WINDOW))
    assert [old for old, _ in pairs] == given
    for old, new in pairs:
        assert new.replayed
        assert not old.replayed
        alike = {"id", "time", "replayed"}
        assert new.model_dump(exclude=alike) == old.model_dump(exclude=alike)
    assert len({verdict.id for pair in pairs for verdict in pair}) == 2 * len(given)
    assert given[-1].multiwindow_score is not None


def test_only_some_windows_are_judged_with_those_that_came_before_them(
    bucket: Bucket, given: list[DriftVerdict]
) -> None:
    ((_, new),) = rejudge(given[-1:], given, bucket, WINDOW)
    assert new.multiwindow_score == given[-1].multiwindow_score


def test_a_new_reference_changes_what_is_said(bucket: Bucket, given: list[DriftVerdict]) -> None:
    assert [verdict.verdict for verdict in given] == ["no_drift"] * 4 + ["drift"]
    known = reference_store.load_reference(bucket, "m", "1")
    spans = [span.model_copy(update={"score_threshold": 10_000.0}) for span in known.profile.spans]
    reference_store.save_reference(
        bucket, "m", "1", known._replace(profile=known.profile.model_copy(update={"spans": spans}))
    )
    pairs = list(rejudge(given, given, bucket, WINDOW))
    assert {new.verdict for _, new in pairs} == {"no_drift"}
    *_, warm, last = format_table(pairs)
    assert warm.startswith(given[-1].window.name)
    assert "drift" in warm
    assert "/10000.0" in warm
    assert last == "5 verdicts given again, 1 of them another one"


def test_windows_whose_rows_are_gone_are_left_out(bucket: Bucket, given: list[DriftVerdict]) -> None:
    bucket.delete(slice_path(given[1].window))
    assert [old for old, _ in rejudge(given, given, bucket, WINDOW)] == [given[0], *given[2:]]


def test_rows_of_several_versions_are_judged_each_by_its_own(bucket: Bucket, given: list[DriftVerdict]) -> None:
    at = slice_path(given[0].window)
    rows = bucket.read_parquet(at)
    bucket.write_parquet(at, pd.concat([rows, rows.assign(version="2")]))
    other = given[0].model_copy(update={"version": "2"})
    verdicts = [new.verdict for _, new in rejudge([given[0], other], given, bucket, WINDOW)]
    assert verdicts == ["no_drift", "inconclusive"]


def test_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "driftloop-drift-worker replay --from 2013-07-01 --to 2013-08-01" in capsys.readouterr().out


def test_a_day_that_is_none_is_named(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--from", "July", "--to", "2013-08-01"])
    assert ended.value.code == 2
    assert "July" in capsys.readouterr().err
