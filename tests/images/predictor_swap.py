"""Swap of one predictor container by another under load, without registry and broker."""

import ssl
import threading
import time
from collections import Counter
from contextlib import ExitStack
from pathlib import Path

import httpx

from driftloop.events import Prediction
from driftloop.kafka import reader
from driftloop.settings import KafkaSettings, TopicsSettings
from tests.images.podman import (
    ROOT,
    ImageTestFailed,
    environment_options,
    get_status,
    image_name,
    podman,
    running_container,
    secret_options,
    stop_container,
    wait_for,
    wait_until_healthy,
)
from tests.support.report import log

COMPOSE = ROOT / "compose"
MODEL = "flights"
NETWORK = "driftloop-try"
TMPFS = ("--tmpfs", "/tmp")  # noqa: S108  # in a container
PREDICTOR_OPTIONS = ("--read-only", *TMPFS, "--memory", "1g", "-v", "driftloop-try-outbox:/var/lib/driftloop")
FLIGHT = {
    **{"sched_dep_time": 1720, "distance": 1400, "day_of_week": 3, "carrier": "UA", "origin": "EWR", "dest": "IAH"},
    **{"temp": 75.2, "dewp": 66.0, "humid": 73.0, "wind_dir": 200, "wind_speed": 11.5, "precip": 0},
    **{"pressure": 1011.8, "visib": 10},
}


REQUEST_INTERVAL_SECONDS = 0.01  # of each client while predictors are swapped
REQUESTS_PER_PHASE = 200  # before, during and after the swap


def swap_predictors(
    certificates: Path, caddy: str, kafka_settings: KafkaSettings, topic_names: TopicsSettings, running: ExitStack
) -> dict[str, float]:
    """Replace a predictor by another under load, both without registry and broker. Return figures."""
    podman("network", "create", NETWORK)
    running.callback(lambda: podman("network", "rm", "--force", NETWORK))
    offline_options = environment_options({"DRIFTLOOP_REGISTRY__MODEL": MODEL})

    def predictor(name: str) -> str:
        started = running.enter_context(
            running_container(
                name,
                image_name("predictor"),
                *PREDICTOR_OPTIONS,
                "--network",
                NETWORK,
                "--network-alias",
                "predictor",
                *offline_options,
            )
        )
        log(f"{name} healthy after {wait_until_healthy(started):.0f} s with the cached version, without a registry")
        return started

    def event_count() -> int:
        return sum(
            isinstance(event, Prediction) for event in reader.read_last(kafka_settings, topic_names.predictions, 10**9)
        )

    before = event_count()
    old = predictor("blue")
    gateway = running.enter_context(
        running_container(
            "gateway", caddy, "--network", NETWORK, "--cap-add", "NET_BIND_SERVICE", "--env", "PREDICTOR_SITE=:8000",
            *("-v", f"{COMPOSE / 'caddy' / 'serving.Caddyfile'}:/etc/caddy/Caddyfile:ro"),
            *secret_options("serving", "ca", folder=certificates),
        )
    )  # fmt: skip
    address = podman("inspect", gateway, "--format", f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}')
    wait_for(lambda: True if get_status(f"http://{address}:8000/readyz") == 200 else None)
    require_guarded_metrics(address, certificates)
    statuses, slowest, stop = Counter[int](), [0.0], threading.Event()

    def send_requests() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                started_at = time.monotonic()
                try:
                    status = client.post(f"http://{address}:8000/predict", json={"instances": [FLIGHT]}).status_code
                except httpx.HTTPError:
                    status = 0
                statuses[status] += 1
                slowest[0] = max(slowest[0], time.monotonic() - started_at)
                time.sleep(REQUEST_INTERVAL_SECONDS)

    threads = [threading.Thread(target=send_requests) for _ in range(4)]
    for thread in threads:
        thread.start()

    def wait_for_more_requests() -> None:
        expected = sum(statuses.values()) + REQUESTS_PER_PHASE
        wait_for(lambda: True if sum(statuses.values()) >= expected else None)

    wait_for_more_requests()
    green = predictor("green")
    wait_for_more_requests()
    log(f"the old predictor ended in {stop_container(old):.1f} s")
    wait_for_more_requests()
    stop.set()
    for thread in threads:
        thread.join()
    log(f"responses by status: {dict(statuses)}, the slowest after {slowest[0]:.2f} s")
    stop_container(green)
    # The events of both predictors stay in the volume until a relay reaches the broker.
    last = running.enter_context(
        running_container(
            "last", image_name("predictor"), *PREDICTOR_OPTIONS, "--network", "host",
            *environment_options({"DRIFTLOOP_REGISTRY__MODEL": MODEL,
                          "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": kafka_settings.bootstrap_servers}),
        )
    )  # fmt: skip
    wait_for(lambda: True if event_count() - before >= statuses[200] else None)
    log(f"events on the topic: {event_count() - before} of {statuses[200]} responses")
    stop_container(last)
    if set(statuses) != {200}:
        raise ImageTestFailed(f"requests failed during the swap: {dict(statuses)}")
    return {
        "swap_requests": sum(statuses.values()),
        "swap_failures": sum(statuses.values()) - statuses[200],
        "swap_longest_seconds": slowest[0],
        "swap_events": event_count() - before,
    }


def require_guarded_metrics(address: str, certificates: Path) -> None:
    """Check that metrics need a client certificate.

    Raises:
        ImageTestFailed: They are visible without one, or not visible with one.
    """
    trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    trust.check_hostname = False  # the certificate has no address of a container
    try:
        httpx.get(f"https://{address}:8443/metrics", verify=trust)
    except httpx.HTTPError:
        pass
    else:
        raise ImageTestFailed("metrics are visible without a client certificate")
    trust.load_cert_chain(str(certificates / "client.pem"))
    response = httpx.get(f"https://{address}:8443/metrics", verify=trust)
    if "driftloop_" not in response.text:
        raise ImageTestFailed(f"metrics are not visible with a client certificate: {response.status_code}")
    log("metrics are visible with a client certificate only")
