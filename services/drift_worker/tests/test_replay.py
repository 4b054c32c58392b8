"""Test judging archived windows again."""

from datetime import UTC, datetime

import pandas as pd
import pytest

from drift_worker.verdicts.replay import format_table, main, replay_verdicts, select_verdicts
from driftloop.archive.layout import slice_path
from driftloop.drift.settings import WindowSettings
from driftloop.events import DriftVerdict
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from tests.support.drift_windows import ROWS, archive_and_judge, make_days, store_reference

pytest_plugins = "tests.support.drift_windows"

WINDOW = WindowSettings(rows=ROWS)


@pytest.fixture
def verdicts(store: ObjectStore) -> list[DriftVerdict]:
    """Return verdicts on four normal windows and a warm one."""
    store_reference(store)
    frames = [make_days(1, seed) for seed in range(1, 5)] + [make_days(1, 5, warmer=12)]
    return list(archive_and_judge(store, frames))


def test_replay_selects_original_verdicts_by_days_model_and_version(verdicts: list[DriftVerdict]) -> None:
    start, end = datetime(2013, 1, 2, tzinfo=UTC), datetime(2013, 1, 4, tzinfo=UTC)
    events = [*verdicts, verdicts[1].model_copy(update={"replayed": True})]
    assert select_verdicts(events, start, end, None, None) == verdicts[1:3]
    assert select_verdicts(events, start, end, "m", "1") == verdicts[1:3]
    assert select_verdicts(events, start, end, "m", "2") == select_verdicts(events, start, end, "other", None) == []


def test_replay_with_equal_reference_gives_equal_verdicts_with_new_ids(
    store: ObjectStore, verdicts: list[DriftVerdict]
) -> None:
    pairs = list(replay_verdicts(reversed(verdicts), verdicts, store, WINDOW))
    assert [old for old, _ in pairs] == verdicts
    for old, new in pairs:
        assert new.replayed
        assert not old.replayed
        alike = {"id", "time", "replayed"}
        assert new.model_dump(exclude=alike) == old.model_dump(exclude=alike)
    assert len({verdict.id for pair in pairs for verdict in pair}) == 2 * len(verdicts)
    assert verdicts[-1].multiwindow_score is not None


def test_replay_of_selected_windows_uses_the_windows_before_them(
    store: ObjectStore, verdicts: list[DriftVerdict]
) -> None:
    ((_, new),) = replay_verdicts(verdicts[-1:], verdicts, store, WINDOW)
    assert new.multiwindow_score == verdicts[-1].multiwindow_score
    assert new.cumulated_score == verdicts[-1].cumulated_score
    assert new.cumulated_score


def test_replay_uses_the_current_reference(store: ObjectStore, verdicts: list[DriftVerdict]) -> None:
    assert [verdict.verdict for verdict in verdicts] == ["no_drift"] * 4 + ["drift"]
    reference = reference_store.load_reference(store, "m", "1")
    spans = [span.model_copy(update={"score_threshold": 10_000.0}) for span in reference.profile.spans]
    reference_store.save_reference(
        store, "m", "1", reference._replace(profile=reference.profile.model_copy(update={"spans": spans}))
    )
    pairs = list(replay_verdicts(verdicts, verdicts, store, WINDOW))
    assert {new.verdict for _, new in pairs} == {"no_drift"}
    *_, warm, last = format_table(pairs)
    assert warm.startswith(verdicts[-1].window.name)
    assert "drift" in warm
    assert "/10000.0" in warm
    assert last == "5 windows judged again, 1 verdicts changed"


def test_replay_leaves_out_windows_without_archived_rows(store: ObjectStore, verdicts: list[DriftVerdict]) -> None:
    store.delete(slice_path(verdicts[1].window))
    assert [old for old, _ in replay_verdicts(verdicts, verdicts, store, WINDOW)] == [verdicts[0], *verdicts[2:]]


def test_replay_judges_each_version_by_its_own_rows(store: ObjectStore, verdicts: list[DriftVerdict]) -> None:
    path = slice_path(verdicts[0].window)
    rows = store.read_parquet(path)
    store.write_parquet(path, pd.concat([rows, rows.assign(_version="2")]))
    other = verdicts[0].model_copy(update={"version": "2"})
    pairs = replay_verdicts([verdicts[0], other], verdicts, store, WINDOW)
    assert [new.verdict for _, new in pairs] == ["no_drift", "inconclusive"]


def test_replay_judges_windows_of_several_slices(store: ObjectStore, verdicts: list[DriftVerdict]) -> None:
    """Cut the rows of each window into two slices, with the rows of another version and an orphan beside them."""
    halves = []
    for old in verdicts:
        rows = store.read_parquet(slice_path(old.window))
        store.delete(slice_path(old.window))
        middle = old.window.first_offset + ROWS // 2
        first = old.window.model_copy(update={"last_offset": middle - 1})
        second = old.window.model_copy(update={"first_offset": middle})
        orphan = second.model_copy(update={"last_offset": middle + 9})
        half = rows.iloc[: ROWS // 2]
        for each, part in ((first, half), (second, rows.iloc[ROWS // 2 :]), (orphan, rows.iloc[ROWS // 2 :].head(10))):
            store.write_parquet(slice_path(each), pd.concat([part, part.assign(_version="2")]))
        halves.append(old.model_copy(update={"archive": [store.url(slice_path(each)) for each in (first, second)]}))
    pairs = list(replay_verdicts(halves, halves, store, WINDOW))
    alike = {"id", "time", "replayed"}
    assert [new.model_dump(exclude=alike) for _, new in pairs] == [old.model_dump(exclude=alike) for old in halves]
    store.delete(slice_path(halves[1].window.model_copy(update={"last_offset": ROWS + ROWS // 2 - 1})))
    assert [old for old, _ in replay_verdicts(halves, halves, store, WINDOW)] == [halves[0], *halves[2:]]


def test_replay_help_shows_examples(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--help"])
    assert ended.value.code == 0
    assert "driftloop-drift-worker replay --from 2013-07-01 --to 2013-08-01" in capsys.readouterr().out


def test_replay_names_an_invalid_day(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["--from", "July", "--to", "2013-08-01"])
    assert ended.value.code == 2
    assert "July" in capsys.readouterr().err
