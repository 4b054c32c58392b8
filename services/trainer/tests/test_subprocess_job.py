"""Subprocess jobs: progress, results, limits, and that they exit with their parent."""

import os
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest

from driftloop.exit_codes import ExitCode
from trainer.retrain import subprocess_job
from trainer.retrain.subprocess_job import (
    JobFunction,
    JobResult,
    Progress,
    ReportPhase,
    RetryableError,
    SubprocessJob,
)

pytestmark = pytest.mark.integration

LONG_SECONDS = 600
WAIT_SECONDS = 60


def greet(argument: str, report_phase: ReportPhase) -> str:
    report_phase("first", "half of it")
    return f"hello {argument}"


def need_unavailable_store(_: str, __: ReportPhase) -> str:
    raise RetryableError("the bucket is unavailable")


def fail(_: str, __: ReportPhase) -> str:
    raise ValueError("no such column")


def sleep(_: str, report_phase: ReportPhase) -> str:
    report_phase("asleep", str(os.getpid()))
    time.sleep(LONG_SECONDS)
    return ""


def use_memory(_: str, __: ReportPhase) -> str:
    memory = bytearray(300 * 2**20)
    memory[:: 2**12] = b"x" * len(memory[:: 2**12])
    time.sleep(LONG_SECONDS)
    return ""


@pytest.fixture
def start() -> Iterator[Callable[..., SubprocessJob]]:
    """Starts jobs, which are killed after the test."""
    jobs: list[SubprocessJob] = []

    def start(
        function: JobFunction, argument: str = "", timeout_seconds: float = 60, memory_limit_mb: float | None = None
    ) -> SubprocessJob:
        jobs.append(SubprocessJob(function, argument, timeout_seconds=timeout_seconds, memory_limit_mb=memory_limit_mb))
        return jobs[-1]

    yield start
    for job in jobs:
        job.kill()


def wait_for_result(job: SubprocessJob) -> JobResult:
    deadline = time.monotonic() + WAIT_SECONDS
    while (result := job.poll()) is None:
        assert time.monotonic() < deadline, "the job still runs"
        time.sleep(0.01)
    return result


def wait_for_progress(job: SubprocessJob) -> list[Progress]:
    deadline = time.monotonic() + WAIT_SECONDS
    while not (progress := job.progress()):
        assert time.monotonic() < deadline, "the job has reported no phase"
        time.sleep(0.01)
    return progress


def test_subprocess_job_returns_progress_and_result(start: Callable[..., SubprocessJob]) -> None:
    job = start(greet, "world")
    assert wait_for_progress(job)[0] == Progress("first", "half of it")
    assert wait_for_result(job) == JobResult("done", "hello world")


@pytest.mark.parametrize(
    ("function", "result"),
    [
        (need_unavailable_store, JobResult("retry", "the bucket is unavailable")),
        (fail, JobResult("failed", "ValueError: no such column")),
    ],
)
def test_subprocess_job_tells_retryable_errors_from_failures(
    start: Callable[..., SubprocessJob], function: object, result: JobResult
) -> None:
    assert wait_for_result(start(function)) == result


def test_subprocess_job_fails_after_timeout_and_names_setting(start: Callable[..., SubprocessJob]) -> None:
    job = start(sleep, timeout_seconds=0.5)
    expected = "it took more than 0.5 s (DRIFTLOOP_TRAINER__TRAINING_TIMEOUT_SECONDS)"
    assert wait_for_result(job) == JobResult("failed", expected)
    assert not psutil.pid_exists(job.pid)


def test_subprocess_job_fails_above_memory_limit_and_names_setting(start: Callable[..., SubprocessJob]) -> None:
    status, payload = wait_for_result(start(use_memory, memory_limit_mb=200))
    assert status == "failed"
    assert "more than 200 (DRIFTLOOP_TRAINER__TRAINING_MEMORY_LIMIT_MB)" in payload


def test_subprocess_job_reports_kill_from_outside(start: Callable[..., SubprocessJob]) -> None:
    job = start(sleep)
    wait_for_progress(job)
    psutil.Process(job.pid).kill()
    assert wait_for_result(job).status == "killed"


SLOW_PRELOAD = """
import sys, time
from pathlib import Path
from trainer.retrain import subprocess_job

def name_nice(folder, _):
    import os
    (Path(folder) / "ran").touch()
    return str(os.nice(0))

if __name__ == "__main__":
    folder = Path(sys.argv[1])
    sys.path.insert(0, str(folder))
    subprocess_job.preload(["slow"])
    began = time.monotonic()
    killed = subprocess_job.SubprocessJob(name_nice, str(folder), timeout_seconds=60, memory_limit_mb=None)
    killed.kill()
    job = subprocess_job.SubprocessJob(name_nice, str(folder), timeout_seconds=60, memory_limit_mb=None)
    assert job.poll() is None
    assert time.monotonic() - began < 2, "somebody has waited for the fork server"
    assert not (folder / "ran").exists()
    (folder / "go on").touch()
    while (result := job.poll()) is None:
        time.sleep(0.01)
    print(result.payload)
"""


def test_subprocess_job_starts_after_the_preload_and_keeps_nobody_waiting(tmp_path: Path) -> None:
    (tmp_path / "slow.py").write_text(
        "import time\nfrom pathlib import Path\n"
        f"while not Path({str(tmp_path / 'go on')!r}).exists():\n    time.sleep(0.01)\n"
    )
    script = tmp_path / "parent.py"
    script.write_text(SLOW_PRELOAD)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    niceness = os.nice(0)
    done = subprocess.run(
        [sys.executable, script, tmp_path], env=environment, capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) == min(niceness + 10, 19)


PARENT = """
import os, time
from trainer.retrain.subprocess_job import SubprocessJob

def sleep(_, report_phase):
    report_phase("asleep", str(os.getpid()))
    time.sleep(600)

if __name__ == "__main__":
    job = SubprocessJob(sleep, "", timeout_seconds=600, memory_limit_mb=None)
    while not (progress := job.progress()):
        time.sleep(0.01)
    print(progress[0].message, flush=True)
    time.sleep(600)
"""


def test_subprocess_job_exits_with_parent(tmp_path: Path) -> None:
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    parent = subprocess.Popen([sys.executable, script], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    job = psutil.Process(int(parent.stdout.readline()))
    parent.kill()
    parent.wait()
    job.wait(20)


@pytest.mark.parametrize("length", [75, 76])
def test_folder_for_temporary_files_whose_path_is_too_long_is_refused_by_name(tmp_path: Path, length: int) -> None:
    """In a process of its own: there is one fork server for each."""
    root = Path("/tmp") / f"driftloop-{os.getpid()}"  # noqa: S108  # the test's own folder may be too deep
    folder = root / ("x" * (length - len(str(root)) - 1))
    folder.mkdir(parents=True)
    code = """
import time
from driftloop.command_line import exit_on_invalid_settings
from trainer.retrain import subprocess_job
def answer(_, report_phase):
    return ""
if __name__ == "__main__":
    with exit_on_invalid_settings():
        subprocess_job.preload([])
        job = subprocess_job.SubprocessJob(answer, "", timeout_seconds=60, memory_limit_mb=None)
        while (result := job.poll()) is None:
            time.sleep(0.01)
        assert result.status == "done", result
"""
    script = tmp_path / "preload.py"
    script.write_text(code)
    try:
        environment = {**os.environ, "TMPDIR": str(folder)}
        done = subprocess.run(
            [sys.executable, str(script)], env=environment, capture_output=True, text=True, check=False
        )
    finally:
        shutil.rmtree(root)
    if length > subprocess_job.MAX_TEMPORARY_FOLDER_BYTES:
        assert done.returncode == ExitCode.USAGE
        assert f"TMPDIR: {folder} has {length} bytes" in done.stderr
    else:
        assert done.returncode == 0, done.stderr


def test_job_ends_if_the_fork_server_is_gone(
    start: Callable[..., SubprocessJob], monkeypatch: pytest.MonkeyPatch
) -> None:
    def read_nothing(_: object) -> None:
        raise EOFError("unexpected EOF")

    monkeypatch.setattr(subprocess_job.CONTEXT.Process, "start", read_nothing)
    assert wait_for_result(start(sleep)) == JobResult(
        "killed", "its process could not be started: EOFError: unexpected EOF"
    )
