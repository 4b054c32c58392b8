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
from tests.support.drift_windows import KINDS, Folder, days, give_reference, judged

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
    return Folder(tmp_path)


@pytest.fixture
def known(bucket: Bucket) -> Reference:
    return give_reference(bucket)


def made(bucket: Bucket, verdict: DriftVerdict) -> str:
    return bucket.read(report.render_and_store(bucket, ReportKey.for_verdict(verdict))).decode()


def clear(days: pd.DataFrame) -> pd.DataFrame:
    """Days whose visibility is good or not: an integer, of which numpy makes a single bin."""
    return days.assign(visib=(days["visib"] == 10).astype(int))


@pytest.mark.parametrize(
    "methods",
    [{}, {"temp": "psi", "visib": "hellinger", "carrier": "kl_div", "prediction": "jensenshannon"}],
    ids=["by default", "chosen"],
)
def test_the_report_holds_our_distances_and_thresholds(bucket: Bucket, methods: dict[str, DistanceName]) -> None:
    give_reference(bucket, rows=clear(days(80)), methods=methods)
    quiet, verdict = judged(bucket, [clear(days(1, 5)), clear(days(1, 5, warmer=10))])
    assert (quiet.verdict, verdict.verdict, verdict.drifted_columns) == ("no_drift", "drift", ["temp"])
    assert {column: method for column, method in _distances(verdict).items() if column in methods} == methods
    page = made(bucket, verdict)
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


def test_the_threshold_decides(bucket: Bucket, known: Reference) -> None:
    (verdict,) = judged(bucket, [days(1, 5, warmer=10)])
    single = known.profile.spans[0]
    lenient = known.profile.model_copy(
        update={"spans": [single.model_copy(update={"score_threshold": single.score_threshold * 100})]}
    )
    reference_store.save_reference(bucket, "m", "1", known._replace(profile=lenient))
    page = made(bucket, verdict)
    assert '"data_drift": "Not Detected"' in page
    assert '"data_drift": "Detected"' not in page


@pytest.mark.usefixtures("known")
def test_a_column_without_values_is_left_out_and_named(bucket: Bucket) -> None:
    (verdict,) = judged(bucket, [days(1, 6).assign(visib=np.nan)])
    page = made(bucket, verdict)
    assert "Left out, since they have no values: visib." in page
    assert "<title>m 1: predictions-0-" in page


@pytest.mark.usefixtures("known")
def test_a_window_without_any_value_has_a_report_that_says_so(bucket: Bucket) -> None:
    (verdict,) = judged(bucket, [days(1, 6).assign(**dict.fromkeys(KINDS, np.nan))])
    page = made(bucket, verdict)
    assert f"Left out, since they have no values: {', '.join(KINDS)}." in page


def test_a_report_that_is_there_is_not_made_again(bucket: Bucket) -> None:
    bucket.write(A.path, b"as it was")
    assert bucket.read(report.render_and_store(bucket, A)) == b"as it was"


def test_what_is_missing_is_named(bucket: Bucket) -> None:
    with pytest.raises(ReferenceUnavailable, match="version 1 of m has no reference"):
        report.render_and_store(bucket, A)
    give_reference(bucket)
    with pytest.raises(WindowNotArchived, match="the archive has no window predictions-0-000000000000-000000000000"):
        report.render_and_store(bucket, A)
    (verdict,) = judged(bucket, [days(1)], version="2")
    give_reference(bucket)
    with pytest.raises(WindowNotArchived, match="has no row of version 1 of m"):
        report.render_and_store(bucket, ReportKey.for_verdict(verdict)._replace(version="1"))


@contextmanager
def reporting_by(code: str, seconds: float = 60, most_waiting: int = 2) -> Iterator[ReportQueue]:
    """Reports are made by a few lines of Python, which get ``model, version, window``."""
    code = f"import pathlib, sys, time\nmodel, version, window = sys.argv[2:]\n{code}"
    with ReportQueue(most_waiting, seconds, [sys.executable, "-c", code]) as reporting:
        yield reporting


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


def test_one_report_is_made_at_a_time_the_latest_wish_first_and_the_oldest_is_dropped(tmp_path: Path) -> None:
    gate, log = tmp_path / "gate", tmp_path / "log"
    dropped, before = counted("dropped"), counted("made")
    with reporting_by(waits_for(gate, log)) as reporting:
        reporting.enqueue(A)
        until(lambda: log.exists() and log.read_text(), "the first one is being made")
        began = time.monotonic()
        for subject in (B, C, D, A):
            reporting.enqueue(subject)
        assert time.monotonic() - began < 1, "asking waited"
        states = [reporting.status(subject).name for subject in (A, B, C, D)]
        assert states == ["making", "unasked", "waiting", "waiting"]
        assert counted("dropped") == dropped + 1
        assert log.read_text().split() == [A.window]
        gate.touch()
        until(lambda: counted("made") == before + 3, "all are made")
        assert log.read_text().split() == [A.window, D.window, C.window]
        assert reporting.status(A).name == "unasked"


def test_a_failure_is_kept_with_its_reason_and_the_next_one_is_made() -> None:
    failed, before = counted("failed"), counted("made")
    code = f"if window == {A.window!r}: sys.exit('no such thing')"
    with reporting_by(code) as reporting:
        reporting.enqueue(A)
        until(lambda: reporting.status(A).name == "failed", "it fails")
        assert reporting.status(A).error == "no such thing"
        assert counted("failed") == failed + 1
        reporting.enqueue(B)
        until(lambda: counted("made") == before + 1, "the next one is made")


def test_a_report_that_takes_too_long_is_ended() -> None:
    with reporting_by("time.sleep(600)", seconds=0.5) as reporting:
        reporting.enqueue(A)
        until(lambda: reporting.status(A).name == "failed", "it is given up")
        assert "not made within 0.5 s" in reporting.status(A).error


def test_a_program_that_is_not_there_is_a_failure() -> None:
    with ReportQueue(2, 10, ["/nowhere/python"]) as reporting:
        reporting.enqueue(A)
        until(lambda: reporting.status(A).name == "failed", "it fails")
        assert "could not be started" in reporting.status(A).error


def test_nothing_is_left_running_at_the_end(tmp_path: Path) -> None:
    mark = tmp_path / "process"
    code = f"import os\npathlib.Path({str(mark)!r}).write_text(str(os.getpid()))\ntime.sleep(600)"
    with reporting_by(code) as reporting:
        reporting.enqueue(A)
        reporting.enqueue(B)
        until(lambda: mark.exists() and mark.read_text(), "it runs")
    assert not Path(f"/proc/{mark.read_text()}").exists()


def test_a_report_that_would_end_with_its_worker_ends_before() -> None:
    before = counted("made")
    with reporting_by(
        "from drift_worker.web.report_queue import end_with_the_worker\nend_with_the_worker()"
    ) as reporting:
        reporting.enqueue(A)
        until(lambda: reporting.status(A).name not in ("waiting", "making"), "its end")
        assert reporting.status(A).name == "unasked"
    assert counted("made") == before + 1


def test_a_report_ends_with_its_worker_however_that_ends(tmp_path: Path) -> None:
    told = tmp_path / "told"
    child = f"""
import os, pathlib, time
from drift_worker.web.report_queue import end_with_the_worker
end_with_the_worker()
pathlib.Path({str(told)!r}).write_text(str(os.getpid()))
time.sleep(60)
"""
    worker = f"""
import sys, time
from drift_worker.web.report_queue import Reporting
from drift_worker.web.report import Subject
with Reporting(2, 60, [sys.executable, "-c", {child!r}]) as reporting:
    reporting.ask(Subject("m", "1", "w"))
    time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", worker])
    try:
        until(lambda: told.exists() and told.read_text(), "the report's process")
        report = psutil.Process(int(told.read_text()))
    finally:
        process.kill()
        process.wait()
    until(lambda: not report.is_running() or report.status() == psutil.STATUS_ZOMBIE, "its end")
