"""Start and stop of the stack and of each service: start errors, clean stops, no processes left."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import httpx
import psutil
import pytest

from stack.running import FOLDER_VARIABLE, Stack, StackStartError, orphans
from tests.support.ports import reserve_ports
from tests.support.running_stack import FLIGHT, FLIGHTS, isolated_settings
from tests.support.waiting import wait_until


def test_stack_start_error_names_used_port_its_service_and_setting(tmp_path: Path) -> None:
    settings = isolated_settings(tmp_path)
    with socket.socket() as listener:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)  # the port is reserved by this process
        listener.bind(("127.0.0.1", settings.trainer.port))
        listener.listen()
        with pytest.raises(StackStartError) as error_info, Stack(settings, print):
            pass
    assert f"port {settings.trainer.port} is in use, and trainer needs it" in str(error_info.value)
    assert "DRIFTLOOP_TRAINER__PORT" in str(error_info.value)


def test_stack_does_not_start_on_data_of_running_stack(stack: Stack) -> None:
    settings = isolated_settings(stack.folder)
    with pytest.raises(StackStartError, match=f"runs already, as process {os.getpid()}"), Stack(settings, print):
        pass
    assert not stack.exited()


def test_orphans_are_found_by_data_directory_in_their_environment(tmp_path: Path) -> None:
    sleeper = [sys.executable, "-c", "import time; time.sleep(60)"]
    orphan = subprocess.Popen(sleeper, env={**os.environ, FOLDER_VARIABLE: str(tmp_path)})
    other = subprocess.Popen(sleeper, env={**os.environ, FOLDER_VARIABLE: str(tmp_path / "other")})
    try:
        wait_until(lambda: list(orphans(tmp_path)) or None, "the process is found")
        assert [process.pid for process in orphans(tmp_path)] == [orphan.pid]
    finally:
        for process in (orphan, other):
            process.kill()
            process.wait()


@pytest.mark.parametrize(("stop_signal", "is_killed"), [(signal.SIGINT, False), (signal.SIGKILL, True)])
def test_stopped_or_killed_stack_leaves_nothing_that_blocks_the_next_one(
    tmp_path: Path, stop_signal: signal.Signals, is_killed: bool
) -> None:
    settings = isolated_settings(tmp_path)
    environment = {
        **os.environ,
        "DRIFTLOOP_USE_CASE": FLIGHTS,
        "DRIFTLOOP_STACK__DATA_DIR": str(tmp_path),
        "DRIFTLOOP_STACK__KAFKA_PORT": str(settings.stack.kafka_port),
        "DRIFTLOOP_STACK__KAFKA_CONTROLLER_PORT": str(settings.stack.kafka_controller_port),
        "DRIFTLOOP_STACK__GCS_PORT": str(settings.stack.gcs_port),
        "DRIFTLOOP_STACK__MLFLOW_PORT": str(settings.stack.mlflow_port),
        "DRIFTLOOP_STACK__PROMETHEUS_PORT": str(settings.stack.prometheus_port),
        "DRIFTLOOP_PREDICTOR__PORT": str(settings.predictor.port),
        "DRIFTLOOP_DRIFT_WORKER__PORT": str(settings.drift_worker.port),
        "DRIFTLOOP_TRAINER__PORT": str(settings.trainer.port),
    }
    up = subprocess.Popen([sys.executable, "-m", "stack.up"], env=environment, stdout=subprocess.PIPE, text=True)
    try:
        wait_until(lambda: len(orphans(tmp_path)) >= 3 or None, "the first components run")
        up.send_signal(stop_signal)
        up.wait(timeout=60)
        if is_killed:
            assert orphans(tmp_path)
            stack = Stack(settings, print)
            stack._kill_orphans()
            stack._require_free_ports()
        wait_until(lambda: not orphans(tmp_path) or None, "no process of the stack is left")
    finally:
        up.kill()
        up.communicate()
        for process in orphans(tmp_path):
            process.kill()


@pytest.mark.parametrize("service", ["predictor", "drift_worker", "trainer"])
def test_service_stops_cleanly_on_sigterm(stack: Stack, service: str, tmp_path: Path) -> None:
    port = reserve_ports(1)[0]
    settings = {f"DRIFTLOOP_{service.upper()}__PORT": str(port), "DRIFTLOOP_INSTANCE_ID": "stopping"}
    if service != "predictor":
        settings[f"DRIFTLOOP_{service.upper()}__GROUP"] = f"stopping-{service}"
    log = tmp_path / "log"
    with log.open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", f"{service}.main"],
            env={**os.environ, **stack.environment, **settings},
            stderr=stderr,
        )

    def listening() -> bool | None:
        assert process.poll() is None, log.read_text()
        with socket.socket() as probe:
            return True if probe.connect_ex(("127.0.0.1", port)) == 0 else None

    wait_until(listening, f"{service} listens")
    children = psutil.Process(process.pid).children(recursive=True)
    stopped_at = time.monotonic()
    process.send_signal(signal.SIGTERM)
    code = process.wait(timeout=30)
    assert time.monotonic() - stopped_at < 15
    log_text = log.read_text()
    # If uvicorn owns the process, it raises the signal once more after its shutdown.
    assert code in ((0,) if service == "predictor" else (0, -signal.SIGTERM)), log_text[-2000:]
    stopping = log_text.partition("Shutting down")[2]
    assert "Application shutdown complete" in stopping
    assert "Traceback" not in stopping
    # The trainer's fork server notices only after its imports that its parent has exited.
    wait_until(lambda: not any(child.is_running() for child in children) or None, "no process is left")


@pytest.mark.parametrize("service", ["predictor", "drift_worker", "trainer"])
def test_service_help_describes_every_setting_and_gives_examples(service: str) -> None:
    done = subprocess.run(
        [sys.executable, "-m", f"{service}.main", "--help"], capture_output=True, text=True, check=True, timeout=60
    )
    assert "Examples:" in done.stdout
    settings = re.findall(r"^ +(DRIFTLOOP_\w+)\n((?: {8}\S.*\n)+)", done.stdout, re.MULTILINE)
    assert len(settings) == len(re.findall(r"^ +DRIFTLOOP_\w+$", done.stdout, re.MULTILINE)) > 10
    for name, text in settings:
        assert re.fullmatch(r"\w.+ \((one of .*; )?(default: .*|required)\)", " ".join(text.split())), name


def test_predictor_without_version_is_not_ready_and_names_missing_alias(stack: Stack) -> None:
    port = reserve_ports(1)[0]
    settings = {"DRIFTLOOP_PREDICTOR__PORT": str(port), "DRIFTLOOP_REGISTRY__MODEL": "unknown"}
    process = subprocess.Popen(
        [sys.executable, "-m", "predictor.main"],
        env={**os.environ, **stack.environment, **settings},
        stderr=subprocess.DEVNULL,
    )

    def missing_model() -> str | None:
        try:
            response = httpx.get(f"http://127.0.0.1:{port}/readyz")
        except httpx.TransportError:
            return None
        assert response.status_code == 503
        explanation: str = response.json()["unavailable"].get("model", "")
        return explanation if "alias champion" in explanation else None

    try:
        assert (
            wait_until(missing_model, "the predictor reports the missing alias")
            == "no version of unknown has the alias champion yet"
        )
        rejected = httpx.post(f"http://127.0.0.1:{port}/predict", json={"instances": [FLIGHT]})
        assert rejected.status_code == 503
        assert "Retry-After" in rejected.headers
        assert httpx.get(f"http://127.0.0.1:{port}/healthz").status_code == 200
    finally:
        process.terminate()
        process.wait(timeout=30)
