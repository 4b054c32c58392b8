"""evidently's report of a window, and who has it made."""

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
from driftloop.storage.bucket import Bucket
from driftloop.storage.reference_store import Reference, ReferenceUnavailable
from tests.support.drift_windows import KINDS, FolderBucket, archive_and_judge, days, store_reference

pytest_plugins = "tests.support.drift_windows"

NAMES = {
    "wasserstein": "Wasserstein distance (normed)",
    "jensenshannon": "Jensen-Shannon distance",
    "psi": "PSI",
    "kl_div": "Kullback-Leibler divergence",
    "hellinger": "Hellinger distance",
}
A, B, C, D = (ReportKey("m", "1", f"predictions-0-{n:012}-{n:012}") for n in range(4))


@pytest.fixture
def bucket(tmp_path: Path) -> Bucket:
    return FolderBucket(tmp_path)


@pytest.fixture
def reference(bucket: Bucket) -> Reference:
    return store_reference(bucket)


def rendered(bucket: Bucket, verdict: DriftVerdict) -> str:
    return bucket.read(report.render_and_store(bucket, ReportKey.for_verdict(verdict))).decode()


def clear(days: pd.DataFrame) -> pd.DataFrame:
    """Days whose visibility is good or not: an integer, of which numpy makes a single bin."""
    return days.assign(visib=(days["visib"] == 10).astype(int))


@pytest.mark.parametrize(
    "methods",
    [{}, {"temp": "psi", "visib": "hellinger", "carrier": "kl_div", "prediction": "jensenshannon"}],
    ids=["by default", "chosen"],
)
def test_report_shows_our_distances_and_thresholds(bucket: Bucket, methods: dict[str, DistanceName]) -> None:
    store_reference(bucket, rows=clear(days(80)), methods=methods)
    quiet, verdict = archive_and_judge(bucket, [clear(days(1, 5)), clear(days(1, 5, warmer=10))])
    assert (quiet.verdict, verdict.verdict, verdict.drifted_columns) == ("no_drift", "drift", ["temp"])
    assert {column: method for column, method in _distances(verdict).items() if column in methods} == methods
    page = rendered(bucket, verdict)
    assert bucket.exists(f"reports/m/1/{verdict.window.name}.html")
    rows = re.findall(
        r'"column_name": "(\w+)", "column_type": "\w+", "stattest_name": "([^"]+)".*?'
        r'"data_drift": "([^"]+)", "drift_score": ([0-9.]+)',
        page,
    )
    drawn = {column: (method, drifted == "Detected", float(score)) for column, method, drifted, score in rows}
    single = [finding for finding in verdict.findings if finding.windows == 1 and finding.method in NAMES]
    assert set(drawn) == {finding.column for finding in single} == set(KINDS)
    for finding in single:
        method, drifted, score = drawn[finding.column]
        assert (method, drifted) == (NAMES[finding.method], finding.drifted)
        # The reference is a sample, and fewer rows make fewer bins.
        assert score == pytest.approx(finding.value, rel=0.1, abs=0.02)
        assert f"{finding.column} {finding.threshold:.3g}" in page


def _distances(verdict: DriftVerdict) -> dict[str, str]:
    return {finding.column: finding.method for finding in verdict.findings if finding.method in NAMES}


def test_report_uses_the_profile_s_threshold(bucket: Bucket, reference: Reference) -> None:
    (verdict,) = archive_and_judge(bucket, [days(1, 5, warmer=10)])
    single = reference.profile.spans[0]
    lenient = reference.profile.model_copy(
        update={"spans": [single.model_copy(update={"score_threshold": single.score_threshold * 100})]}
    )
    reference_store.save_reference(bucket, "m", "1", reference._replace(profile=lenient))
    page = rendered(bucket, verdict)
    assert '"data_drift": "Not Detected"' in page
    assert '"data_drift": "Detected"' not in page


@pytest.mark.usefixtures("reference")
def test_report_leaves_out_and_names_column_without_values(bucket: Bucket) -> None:
    (verdict,) = archive_and_judge(bucket, [days(1, 6).assign(visib=np.nan)])
    page = rendered(bucket, verdict)
    assert "Left out because they have no values: visib." in page
    assert "<title>m 1: predictions-0-" in page


@pytest.mark.usefixtures("reference")
def test_report_of_window_without_values_says_so(bucket: Bucket) -> None:
    (verdict,) = archive_and_judge(bucket, [days(1, 6).assign(**dict.fromkeys(KINDS, np.nan))])
    page = rendered(bucket, verdict)
    assert f"Left out because they have no values: {', '.join(KINDS)}." in page


def test_stored_report_is_not_rendered_again(bucket: Bucket) -> None:
    bucket.write(A.path, b"as it was")
    assert bucket.read(report.render_and_store(bucket, A)) == b"as it was"


def test_report_names_missing_reference_window_or_rows(bucket: Bucket) -> None:
    with pytest.raises(ReferenceUnavailable, match="version 1 of m has no reference"):
        report.render_and_store(bucket, A)
    store_reference(bucket)
    with pytest.raises(WindowNotArchived, match="the archive has no window predictions-0-000000000000-000000000000"):
        report.render_and_store(bucket, A)
    (verdict,) = archive_and_judge(bucket, [days(1)], version="2")
    store_reference(bucket)
    with pytest.raises(WindowNotArchived, match="has no rows of version 1 of m"):
        report.render_and_store(bucket, ReportKey.for_verdict(verdict)._replace(version="1"))


@contextmanager
def queue_running(code: str, timeout_seconds: float = 60, max_queued: int = 2) -> Iterator[ReportQueue]:
    """Reports are made by a few lines of Python, which get ``model, version, window``."""
    code = f"import pathlib, sys, time\nmodel, version, window = sys.argv[2:]\n{code}"
    with ReportQueue(max_queued, timeout_seconds, [sys.executable, "-c", code]) as queue:
        yield queue


def until(found: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not found():
        assert time.monotonic() < deadline, f"waited {seconds:g} s in vain: {what}"
        time.sleep(0.01)


def waits_for(gate: Path, log: Path) -> str:
    """Writes its window down, then waits until it may end."""
    return (
        f"with open({str(log)!r}, 'a') as log: log.write(window + '\\n')\n"
        f"while not pathlib.Path({str(gate)!r}).exists(): time.sleep(0.01)"
    )


def counted(state: str) -> float:
    return REGISTRY.get_sample_value("driftloop_drift_reports_total", {"state": state}) or 0.0


def test_report_queue_renders_latest_request_first_and_drops_the_oldest(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    dropped, before = counted("dropped"), counted("rendered")
    with queue_running(waits_for(gate, log)) as queue:
        queue.enqueue(A)
        until(lambda: log.exists() and log.read_text(), "the first one is being made")
        began = time.monotonic()
        for key in (B, C, D, A):
            queue.enqueue(key)
        assert time.monotonic() - began < 1, "asking waited"
        states = [queue.status(key).name for key in (A, B, C, D)]
        assert states == ["rendering", "not_requested", "queued", "queued"]
        assert counted("dropped") == dropped + 1
        assert log.read_text().split() == [A.window]
        gate.touch()
        until(lambda: counted("rendered") == before + 3, "all are rendered")
        assert log.read_text().split() == [A.window, D.window, C.window]
        assert queue.status(A).name == "not_requested"


def test_report_queue_keeps_error_of_failed_report_and_continues() -> None:
    failed, before = counted("failed"), counted("rendered")
    code = f"if window == {A.window!r}: sys.exit('no such thing')"
    with queue_running(code) as queue:
        queue.enqueue(A)
        until(lambda: queue.status(A).name == "failed", "it fails")
        assert queue.status(A).error == "no such thing"
        assert counted("failed") == failed + 1
        queue.enqueue(B)
        until(lambda: counted("rendered") == before + 1, "the next one is rendered")


def test_report_queue_kills_report_after_timeout() -> None:
    with queue_running("time.sleep(600)", timeout_seconds=0.5) as queue:
        queue.enqueue(A)
        until(lambda: queue.status(A).name == "failed", "it is given up")
        assert "longer than 0.5 s" in queue.status(A).error


def test_report_queue_reports_command_that_does_not_start() -> None:
    with ReportQueue(2, 10, ["/nowhere/python"]) as queue:
        queue.enqueue(A)
        until(lambda: queue.status(A).name == "failed", "it fails")
        assert "could not be started" in queue.status(A).error


def test_report_queue_leaves_no_process_behind(tmp_path: Path) -> None:
    mark = tmp_path / "process"
    code = f"import os\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    with queue_running(code) as queue:
        queue.enqueue(A)
        queue.enqueue(B)
        until(lambda: mark.exists() and mark.read_text(), "it runs")
    assert not Path(f"/proc/{mark.read_text()}").exists()


def test_report_process_exits_before_its_worker() -> None:
    before = counted("rendered")
    with queue_running("from driftloop.process import exit_with_parent\nexit_with_parent()") as queue:
        queue.enqueue(A)
        until(lambda: queue.status(A).name not in ("queued", "rendering"), "its end")
        assert queue.status(A).name == "not_requested"
    assert counted("rendered") == before + 1


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
        until(lambda: pid_file.exists() and pid_file.read_text(), "the report's process")
        report = psutil.Process(int(pid_file.read_text()))
    finally:
        process.kill()
        process.wait()
    until(lambda: not report.is_running() or report.status() == psutil.STATUS_ZOMBIE, "its end")
