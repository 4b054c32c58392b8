"""Health of a service, and the routes that show it."""

import subprocess
import sys
import time

from fastapi import FastAPI
from fastapi.testclient import TestClient

from driftloop.telemetry.health import Health
from driftloop.telemetry.http import operational_routes


def client(health: Health) -> TestClient:
    app = FastAPI()
    app.include_router(operational_routes(health))
    return TestClient(app)


def without_heartbeat_for(health: Health, seconds: float) -> None:
    health._last_heartbeat = time.monotonic() - seconds


def test_health_is_stalled_without_a_heartbeat_and_alive_again_after_one() -> None:
    health = Health(stall_seconds=10)
    without_heartbeat_for(health, 9)
    assert health.stalled_reason is None
    without_heartbeat_for(health, 12)
    assert health.stalled_reason == "no progress for 12 s"
    health.heartbeat()
    assert health.stalled_reason is None


def test_health_is_ready_once_started_unless_a_component_is_unavailable() -> None:
    health = Health()
    health.mark_unavailable("model", "no version yet")
    assert health.unavailable == {"start": "starting", "model": "no version yet"}
    health.mark_started()
    assert health.unavailable == {"model": "no version yet"}
    health.mark_unavailable("model", "the registry does not answer")
    assert health.unavailable == {"model": "the registry does not answer"}
    health.mark_available("model")
    health.mark_available("never unavailable")
    assert health.unavailable == {}


def test_health_warning_leaves_a_service_ready_until_it_is_cleared() -> None:
    health = Health()
    health.mark_started()
    health.add_warning("registry", "it does not answer")
    assert (health.unavailable, health.warnings) == ({}, {"registry": "it does not answer"})
    health.clear_warning("registry")
    health.clear_warning("never added")
    assert health.warnings == {}


def test_health_properties_are_copies() -> None:
    health = Health()
    health.unavailable.clear()
    health.warnings["model"] = "changed by a reader"
    assert (health.unavailable, health.warnings) == ({"start": "starting"}, {})


def test_healthz_answers_503_with_the_reason_while_stalled() -> None:
    health = Health(stall_seconds=10)
    alive = client(health).get("/healthz")
    assert (alive.status_code, alive.json()) == (200, {"alive": True, "reason": None})
    without_heartbeat_for(health, 11)
    stalled = client(health).get("/healthz")
    assert (stalled.status_code, stalled.json()) == (503, {"alive": False, "reason": "no progress for 11 s"})


def test_readyz_answers_503_with_what_is_unavailable_and_200_with_warnings() -> None:
    health = Health()
    health.add_warning("registry", "it does not answer")
    starting = client(health).get("/readyz")
    assert starting.status_code == 503
    assert starting.json() == {
        **{"ready": False, "unavailable": {"start": "starting"}},
        **{"warnings": {"registry": "it does not answer"}},
    }
    health.mark_started()
    ready = client(health).get("/readyz")
    assert ready.status_code == 200
    assert ready.json() == {"ready": True, "unavailable": {}, "warnings": {"registry": "it does not answer"}}


def test_metrics_route_calls_back_before_each_scrape() -> None:
    app, scrapes = FastAPI(), []
    app.include_router(operational_routes(Health(), lambda: scrapes.append(1)))
    answer = TestClient(app).get("/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain")
    assert TestClient(app).get("/metrics").is_success
    assert len(scrapes) == 2


def test_watchdog_ends_a_stalled_process_and_logs_the_reason_and_where_it_waits() -> None:
    code = """
import time
from driftloop.telemetry.health import Health, start_watchdog
def wait_for_store():
    time.sleep(30)
start_watchdog(Health(stall_seconds=0.1))
wait_for_store()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, timeout=25)
    assert done.returncode == 1
    assert "watchdog.process_stalled" in done.stdout + done.stderr
    assert "<string>:5 wait_for_store" in done.stdout + done.stderr
