"""evidently's report of a window, and the queue that renders reports in processes."""

import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
from prometheus_client import REGISTRY

from drift_worker.web import report
from drift_worker.web.report import ReportKey, WindowNotArchived
from drift_worker.web.report_queue import ReportQueue
from driftloop.drift.distances import DistanceName
from driftloop.events import DriftVerdict
from driftloop.storage import reference_store
from driftloop.storage.object_store import ObjectStore
from driftloop.storage.reference_store import Reference, ReferenceUnavailable
from tests.support.drift_windows import COLUMN_TYPES, archive_and_judge, make_days, store_reference
from tests.support.folder_store import folder_store

pytest_plugins = "tests.support.drift_windows"

EVIDENTLY_NAMES = {
    "wasserstein": "Wasserstein distance (normed)",
    "jensenshannon": "Jensen-Shannon distance",
    "psi": "PSI",
    "kl_div": "Kullback-Leibler divergence",
    "hellinger": "Hellinger distance",
}
A, B, C, D = (ReportKey("m", "1", f"predictions-0-{n:012}-{n:012}") for n in range(4))


@pytest.fixture
def store(tmp_path: Path) -> ObjectStore:
    return folder_store(tmp_path)


@pytest.fixture
def reference(store: ObjectStore) -> Reference:
    return store_reference(store)


def render_report(store: ObjectStore, verdict: DriftVerdict) -> str:
    """Render and store the report of a window; return its HTML."""
    return store.read(report.render_and_store(store, ReportKey.for_verdict(verdict))).decode()


def with_binary_visibility(rows: pd.DataFrame) -> pd.DataFrame:
    """Return rows whose visibility is 0 or 1: integers, for which numpy makes a single bin."""
    return rows.assign(visib=(rows["visib"] == 10).astype(int))


@pytest.mark.parametrize(
    "distances",
    [{}, {"temp": "psi", "visib": "hellinger", "carrier": "kl_div", "_prediction": "jensenshannon"}],
    ids=["by default", "chosen"],
)
def test_report_shows_our_distances_and_thresholds(store: ObjectStore, distances: dict[str, DistanceName]) -> None:
    store_reference(store, rows=with_binary_visibility(make_days(80)), distances=distances)
    normal_verdict, verdict = archive_and_judge(
        store, [with_binary_visibility(make_days(1, 5)), with_binary_visibility(make_days(1, 5, warmer=10))]
    )
    assert (normal_verdict.verdict, verdict.verdict, verdict.drifted_columns) == ("no_drift", "drift", ["temp"])
    assert {column: method for column, method in distances_of(verdict).items() if column in distances} == distances
    page = render_report(store, verdict)
    assert store.exists(f"reports/m/1/{verdict.window.name}.html")
    rows = re.findall(
        r'"column_name": "(\w+)", "column_type": "\w+", "stattest_name": "([^"]+)".*?'
        r'"data_drift": "([^"]+)", "drift_score": ([0-9.]+)',
        page,
    )
    results_in_page = {column: (method, drifted == "Detected", float(score)) for column, method, drifted, score in rows}
    findings = [finding for finding in verdict.findings if finding.windows == 1 and finding.method in EVIDENTLY_NAMES]
    assert set(results_in_page) == {finding.column for finding in findings} == set(COLUMN_TYPES)
    for finding in findings:
        method, drifted, score = results_in_page[finding.column]
        assert (method, drifted) == (EVIDENTLY_NAMES[finding.method], finding.drifted)
        # The reference is a sample, and fewer rows make fewer bins.
        assert score == pytest.approx(finding.value, rel=0.1, abs=0.02)
        assert f"{finding.column} {finding.threshold:.3g}" in page


def distances_of(verdict: DriftVerdict) -> dict[str, str]:
    """Return the distance of each column in a verdict."""
    return {finding.column: finding.method for finding in verdict.findings if finding.method in EVIDENTLY_NAMES}


def test_report_uses_threshold_of_profile(store: ObjectStore, reference: Reference) -> None:
    (verdict,) = archive_and_judge(store, [make_days(1, 5, warmer=10)])
    span = reference.profile.spans[0]
    profile = reference.profile.model_copy(
        update={"spans": [span.model_copy(update={"score_threshold": span.score_threshold * 100})]}
    )
    reference_store.save_reference(store, "m", "1", reference._replace(profile=profile))
    page = render_report(store, verdict)
    assert '"data_drift": "Not Detected"' in page
    assert '"data_drift": "Detected"' not in page


@pytest.mark.usefixtures("reference")
def test_report_leaves_out_and_names_column_without_values(store: ObjectStore) -> None:
    (verdict,) = archive_and_judge(store, [make_days(1, 6).assign(visib=np.nan)])
    page = render_report(store, verdict)
    assert "Left out because they have no values: visib." in page
    assert "<title>m 1: predictions-0-" in page


@pytest.mark.usefixtures("reference")
def test_report_of_window_without_values_names_all_columns(store: ObjectStore) -> None:
    (verdict,) = archive_and_judge(store, [make_days(1, 6).assign(**dict.fromkeys(COLUMN_TYPES, np.nan))])
    page = render_report(store, verdict)
    assert f"Left out because they have no values: {', '.join(COLUMN_TYPES)}." in page


def test_stored_report_is_not_rendered_twice(store: ObjectStore) -> None:
    store.write(A.path, b"as it was")
    assert store.read(report.render_and_store(store, A)) == b"as it was"


def test_report_names_missing_reference_window_or_rows(store: ObjectStore) -> None:
    with pytest.raises(ReferenceUnavailable, match="version 1 of m has no reference"):
        report.render_and_store(store, A)
    store_reference(store)
    with pytest.raises(WindowNotArchived, match="the archive has no window predictions-0-000000000000-000000000000"):
        report.render_and_store(store, A)
    (verdict,) = archive_and_judge(store, [make_days(1)], version="2")
    store_reference(store)
    with pytest.raises(WindowNotArchived, match="has no rows of version 1 of m"):
        report.render_and_store(store, ReportKey.for_verdict(verdict)._replace(version="1"))


def test_report_has_a_window_s_rows_of_all_of_its_slices(store: ObjectStore, reference: Reference) -> None:
    (verdict,) = archive_and_judge(store, [make_days(1, 5)])
    path, middle = f"slices/predictions/{verdict.window.name}.parquet", verdict.window.first_offset + 60
    rows = store.read_parquet(path)
    store.delete(path)
    for bounds, part in (({"last_offset": middle - 1}, rows[:60]), ({"first_offset": middle}, rows[60:])):
        others = part.assign(_version="2", temp="far")
        name = verdict.window.model_copy(update=bounds).name
        mixed = pd.concat([others, part]).astype({"temp": str})
        store.write_parquet(f"slices/predictions/{name}.parquet", mixed)
    loaded, window = report.load_rows(store, ReportKey.for_verdict(verdict))
    columns = list(reference.profile.kinds)
    pd.testing.assert_frame_equal(window, rows[columns].reset_index(drop=True), check_dtype=False)
    assert len(loaded.rows) == len(reference.rows)


@contextmanager
def running_queue(code: str, timeout_seconds: float = 60, max_queued: int = 2) -> Iterator[ReportQueue]:
    """Run a queue whose reports are rendered by Python code with the variables ``model, version, window, run_id``."""
    code = f"import pathlib, sys, time\nmodel, version, window, run_id = sys.argv[2:]\n{code}"
    with ReportQueue(max_queued, timeout_seconds, [sys.executable, "-c", code]) as queue:
        yield queue


def wait_for(condition: Callable[[], object], description: str, seconds: float = 20) -> None:
    """Poll every 10 ms until the condition is true; fail after ``seconds``."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"timed out after {seconds:g} s: {description}"
        time.sleep(0.01)


def blocking_code(gate: Path, log: Path) -> str:
    """Return code that appends its window to ``log`` and then waits until the file ``gate`` exists."""
    return (
        f"with open({str(log)!r}, 'a') as log: log.write(window + '\\n')\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    )


def report_count(state: str) -> float:
    """Return how many reports had this result, from the metric."""
    return REGISTRY.get_sample_value("driftloop_drift_reports_total", {"state": state}) or 0.0


def test_report_queue_renders_latest_request_first_and_drops_the_oldest(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    dropped_before, rendered_before = report_count("dropped"), report_count("rendered")
    with running_queue(blocking_code(gate, log)) as queue:
        queue.enqueue(A)
        wait_for(lambda: log.exists() and log.read_text(), "the first report is being rendered")
        started_at = time.monotonic()
        for key in (B, C, D, A):
            queue.enqueue(key)
        assert time.monotonic() - started_at < 1, "enqueue has blocked"
        states = [queue.status(key).name for key in (A, B, C, D)]
        assert states == ["rendering", "not_requested", "queued", "queued"]
        assert report_count("dropped") == dropped_before + 1
        assert log.read_text().split() == [A.window]
        gate.touch()
        wait_for(lambda: report_count("rendered") == rendered_before + 3, "all reports are rendered")
        assert log.read_text().split() == [A.window, D.window, C.window]
        assert queue.status(A).name == "not_requested"


def test_report_queue_keeps_error_of_failed_report_and_continues() -> None:
    failed_before, rendered_before = report_count("failed"), report_count("rendered")
    code = f"if window == {A.window!r}: sys.exit('no such thing')"
    with running_queue(code) as queue:
        queue.enqueue(A)
        wait_for(lambda: queue.status(A).name == "failed", "the report has failed")
        assert queue.status(A).error == "no such thing"
        assert report_count("failed") == failed_before + 1
        queue.enqueue(B)
        wait_for(lambda: report_count("rendered") == rendered_before + 1, "the next report is rendered")


def test_report_queue_kills_report_after_timeout() -> None:
    with running_queue("time.sleep(600)", timeout_seconds=0.5) as queue:
        queue.enqueue(A)
        wait_for(lambda: queue.status(A).name == "failed", "the report has timed out")
        assert "longer than 0.5 s" in queue.status(A).error


def test_report_queue_reports_command_that_does_not_start() -> None:
    with ReportQueue(2, 10, ["/nowhere/python"]) as queue:
        queue.enqueue(A)
        wait_for(lambda: queue.status(A).name == "failed", "the report has failed")
        assert "could not be started" in queue.status(A).error


def test_report_queue_leaves_no_process_behind(tmp_path: Path) -> None:
    pid_file = tmp_path / "process"
    code = f"import os\npathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    with running_queue(code) as queue:
        queue.enqueue(A)
        queue.enqueue(B)
        wait_for(lambda: pid_file.exists() and pid_file.read_text(), "the process runs")
    assert not Path(f"/proc/{pid_file.read_text()}").exists()


def test_report_process_exits_before_its_worker() -> None:
    rendered_before = report_count("rendered")
    with running_queue("from driftloop.process import exit_with_parent\nexit_with_parent()") as queue:
        queue.enqueue(A)
        wait_for(lambda: queue.status(A).name not in ("queued", "rendering"), "the report's process has ended")
        assert queue.status(A).name == "not_requested"
    assert report_count("rendered") == rendered_before + 1


def test_report_process_dies_with_its_killed_worker(tmp_path: Path) -> None:
    pid_file = tmp_path / "pid_file"
    child = f"""
import os, pathlib, time
from driftloop.process import exit_with_parent
exit_with_parent()
pathlib.Path({str(pid_file)!r}).write_text(str(os.getpid()))
time.sleep(60)
"""
    worker = f"""
import sys, time
from drift_worker.web.report_queue import ReportQueue
from drift_worker.web.report import ReportKey
with ReportQueue(2, 60, [sys.executable, "-c", {child!r}]) as queue:
    queue.enqueue(ReportKey("m", "1", "w"))
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", worker])
    try:
        wait_for(lambda: pid_file.exists() and pid_file.read_text(), "the report's process runs")
        report = psutil.Process(int(pid_file.read_text()))
    finally:
        process.kill()
        process.wait()
    wait_for(
        lambda: not report.is_running() or report.status() == psutil.STATUS_ZOMBIE, "the report's process has ended"
    )
