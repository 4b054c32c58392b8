"""Reports have no row that was erased, whenever that was."""

import pandas as pd
import pytest

from drift_worker.web import report
from drift_worker.web.report import ReportKey, render_and_store
from driftloop.archive import erasures
from driftloop.archive.erasures import ErasedPartition, Erasure, ErasureRequest
from driftloop.storage.object_store import ObjectStore
from tests.support.drift_windows import ROWS, archive_and_judge, make_days, store_reference

pytest_plugins = "tests.support.drift_windows"


def erase(store: ObjectStore, row: int) -> None:
    erasures.save(
        store,
        Erasure(
            requested_by="somebody",
            reason="asked to",
            request=ErasureRequest(kind="id", values=1),
            respected_until=None,
            partitions=[ErasedPartition.of_rows("predictions", 0, {row: None})],
            counts={},
        ),
    )


def test_report_has_no_row_that_is_erased_while_it_is_rendered(
    store: ObjectStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    store_reference(store)
    frame = make_days(1, 1).assign(_offset=range(ROWS))
    (verdict,) = archive_and_judge(store, [frame])
    rendered: list[int] = []

    def render(_: object, window: pd.DataFrame, *__: object) -> str:
        rendered.append(len(window))
        if len(rendered) == 1:
            erase(store, 1)
        return f"{len(window)} rows"

    monkeypatch.setattr(report, "render_html", render)
    erase(store, 0)
    path = render_and_store(store, ReportKey.for_verdict(verdict))
    assert rendered == [ROWS - 1, ROWS - 2]
    assert store.read(path) == f"{ROWS - 2} rows".encode()
