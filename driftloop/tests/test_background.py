"""A background task is called again after any exception, which shows in readiness and metrics meanwhile."""

import threading
from collections.abc import Callable

import pytest
from prometheus_client import REGISTRY

from driftloop.errors import BrokerUnavailable
from driftloop.telemetry.background import run_until_stopped
from driftloop.telemetry.health import Health


@pytest.mark.parametrize(
    ("error", "reason"),
    [(BrokerUnavailable("no answer"), "no answer"), (KeyError("topic"), "KeyError: 'topic'")],
    ids=["expected", "unexpected"],
)
def test_task_runs_again_after_an_exception_and_warns_until_it_makes_progress(error: Exception, reason: str) -> None:
    health, stop = Health(), threading.Event()
    warnings: list[dict[str, str]] = []
    before = failures()

    def follow(report_progress: Callable[[], None]) -> None:
        warnings.append(health.warnings)
        if len(warnings) < 3:
            raise error
        report_progress()
        stop.set()

    run_until_stopped("followed", follow, health, 0, stop)
    assert warnings == [{}, {"followed": reason}, {"followed": reason}]
    assert not health.warnings
    assert failures() - before == 2


def failures() -> float:
    return REGISTRY.get_sample_value("driftloop_background_failures_total", {"task": "followed"}) or 0
