"""A registry, a bucket or a broker that does not answer: services say so and end when asked, and commands do not hang.

Away are a port at which nothing listens, and a server that takes connections and never answers.
"""

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.support.ports import reserve_ports
from tests.support.store_servers import AWS_ENVIRONMENT
from tests.support.waiting import wait_until

pytestmark = pytest.mark.integration

COMMAND = Path(sys.executable).with_name("driftloop")
ERASE = "archive erase --id some-id --reason x --yes"
CLOSED = (
    *("status", "explain some-id", "shadow --version 1", "rollback", "retrain --reason x", "topics create"),
    *("archive status", "archive compact", "archive expire --predictions-days 9", ERASE),
)
SILENT = ("status --all", "explain some-id", "data restore 1", ERASE)
STORES = {
    "gs://archive": {},
    "s3://archive": AWS_ENVIRONMENT,
    "az://archive": {"AZURE_STORAGE_ACCOUNT_NAME": "somebody", "AZURE_STORAGE_ACCOUNT_KEY": "dGVzdA=="},
}
MAX_STORE_SECONDS = 60
MAX_COMMAND_SECONDS = 300  # MLflow's client tries for a while, on a busy machine


@pytest.fixture(scope="module")
def silent_url() -> Iterator[str]:
    """A server that takes connections and never answers."""
    with socket.create_server(("127.0.0.1", 0), backlog=128) as server:
        yield f"http://127.0.0.1:{server.getsockname()[1]}"


@pytest.fixture(scope="module")
def closed_url() -> str:
    """The address of a port at which nothing listens."""
    return f"http://127.0.0.1:{reserve_ports(1)[0]}"


def environment(registry: str, bucket: str, kafka: str) -> dict[str, str]:
    return {
        **os.environ,
        "DRIFTLOOP_REGISTRY__URI": registry,
        "DRIFTLOOP_REGISTRY__MODEL": "flights",
        "DRIFTLOOP_STORAGE__ENDPOINT": bucket,
        "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": kafka.removeprefix("http://"),
        "DRIFTLOOP_USE_CASE": "usecases.flights:usecase",
    }


@pytest.mark.parametrize(
    ("command", "away"), [*((command, "closed") for command in CLOSED), *((command, "silent") for command in SILENT)]
)
def test_command_ends_with_a_sentence_while_nothing_answers(
    silent_url: str, closed_url: str, command: str, away: str
) -> None:
    url = closed_url if away == "closed" else silent_url
    done = subprocess.run(
        [str(COMMAND), *command.split()],
        env=environment(url, url, url),
        capture_output=True,
        text=True,
        timeout=MAX_COMMAND_SECONDS,
        check=False,
    )
    assert (done.returncode, done.stdout) == (6, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert 1 <= len(done.stderr.splitlines()) <= 2, done.stderr
    assert "DRIFTLOOP_" in done.stderr


@pytest.mark.parametrize("away", ["closed", "silent"])
@pytest.mark.parametrize("store", STORES)
def test_command_ends_with_a_sentence_while_its_store_does_not_answer(
    silent_url: str, closed_url: str, store: str, away: str
) -> None:
    url = closed_url if away == "closed" else silent_url
    began = time.monotonic()
    done = subprocess.run(
        [str(COMMAND), "archive", "erasures"],
        env=environment(closed_url, url, closed_url) | {"DRIFTLOOP_STORAGE__URL": store} | STORES[store],
        capture_output=True,
        text=True,
        timeout=MAX_STORE_SECONDS,
        check=False,
    )
    print(f"\n{store} {away}: {time.monotonic() - began:.0f} s")
    assert (done.returncode, done.stdout) == (6, ""), done.stderr
    assert "Traceback" not in done.stderr
    assert "DRIFTLOOP_STORAGE__" in done.stderr


@pytest.mark.parametrize("away", ["closed", "silent"])
def test_predictor_is_alive_and_says_what_it_waits_for_while_nothing_answers(
    silent_url: str, closed_url: str, tmp_path: Path, away: str
) -> None:
    registry = closed_url if away == "closed" else silent_url
    port = reserve_ports(1)[0]
    url = f"http://127.0.0.1:{port}"
    variables = {
        **environment(registry, closed_url, closed_url),
        "DRIFTLOOP_PREDICTOR__PORT": str(port),
        "DRIFTLOOP_PREDICTOR__DATA_DIR": str(tmp_path),
        "MLFLOW_HTTP_REQUEST_TIMEOUT": "3600",
    }
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen([sys.executable, "-m", "predictor.main"], env=variables, stdout=log, stderr=log)
    try:

        def readiness() -> httpx.Response | None:
            assert process.poll() is None, (tmp_path / "log").read_text()
            try:
                return httpx.get(f"{url}/readyz", timeout=60)
            except httpx.TransportError:
                return None

        answer = wait_until(readiness, "the port is open", seconds=600)
        assert (answer.status_code, "start" in answer.json()["unavailable"]) == (503, False)
        assert "DRIFTLOOP_REGISTRY__URI" in answer.json()["unavailable"]["model"]
        assert httpx.get(f"{url}/healthz", timeout=60).status_code == 200
        predicted = httpx.post(f"{url}/predict", json={"instances": [{"x": 1}]}, timeout=60)
        assert (predicted.status_code, "Retry-After" in predicted.headers) == (503, True)
        process.send_signal(signal.SIGTERM)
        process.wait(60)  # supervisors kill after 30 s; the registry would keep it for an hour
        assert process.returncode == 0, (tmp_path / "log").read_text()
    finally:
        process.kill()
        process.wait()
