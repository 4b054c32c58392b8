"""The images, built and run for real: sizes, one round through all four services, a swap of predictors under load.

Kafka and the server that speaks GCS's protocol are those of `make up`; predictor, drift worker, trainer, producer and
MLflow are containers, with the limits that compose gives them. Before them stands Caddy with compose's own files.

Needs podman, catatonit as its init, and caddy for the proxies. Where no base image can be pulled, a stand-in does: with
Debian's debootstrap,

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie FOLDER
    python -m tests.images.run_containers --stand-in FOLDER --caddy CADDY  # a static one: CGO_ENABLED=0
"""

import argparse
import os
import shutil
import ssl
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import httpx
from mirakuru import HTTPExecutor, TCPExecutor
from mirakuru.exceptions import ProcessFinishedWithError

from driftloop.events import Drift, ModelChange, Prediction
from driftloop.kafka import topics
from driftloop.settings import Kafka, Topics
from stack import gcs, kafka, services
from stack.settings import Ports, StackSettings
from tests.images.podman import (
    IMAGES,
    ROOT,
    Failed,
    build,
    container,
    environment,
    healthy,
    image,
    imported,
    once,
    podman,
    secrets,
    sizes,
    stand_in,
    stopped,
)
from tests.support import report
from tests.support.report import tell, warn

COMPOSE = ROOT / "compose"
TLS_PORT = 9094
NETWORK = "driftloop-try"
TMP = ("--tmpfs", "/tmp")  # noqa: S108  # in a container
PREDICTOR = ("--read-only", *TMP, "--memory", "1g", "-v", "driftloop-try-outbox:/var/lib/driftloop")
FLIGHT = {
    **{"sched_dep_time": 1720, "distance": 1400, "day_of_week": 3, "carrier": "UA", "origin": "EWR", "dest": "IAH"},
    **{"temp": 75.2, "dewp": 66.0, "humid": 73.0, "wind_dir": 200, "wind_speed": 11.5, "precip": 0},
    **{"pressure": 1011.8, "visib": 10},
}


PACE_SECONDS = 0.01  # of each of those who ask while predictors are swapped
ANSWERS = 200  # before, between and after
LOOK_SECONDS = 0.5  # between two looks at what is waited for

T = TypeVar("T")


def ended(executor: TCPExecutor) -> None:
    """Stops a part of the stack."""
    with suppress(ProcessFinishedWithError):  # Java tells of SIGTERM in its exit code
        executor.stop()


def outside(ports: Ports, certificates: Path) -> str:
    """The broker's door for those with a certificate, as compose has it."""
    return f"""
listeners=PLAINTEXT://127.0.0.1:{ports.kafka_port},CONTROLLER://127.0.0.1:{ports.kafka_controller_port},OUTSIDE://127.0.0.1:{TLS_PORT}
advertised.listeners=PLAINTEXT://127.0.0.1:{ports.kafka_port},OUTSIDE://localhost:{TLS_PORT}
listener.security.protocol.map=PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT,OUTSIDE:SSL
inter.broker.listener.name=PLAINTEXT
ssl.client.auth=required
ssl.keystore.type=PEM
ssl.keystore.location={certificates / "serving.pem"}
ssl.truststore.type=PEM
ssl.truststore.location={certificates / "ca.crt"}
"""


def round_trip(at: Path, certificates: Path, caddy: str) -> dict[str, float]:
    """One version, its predictions, events and a verdict, through all images; then a swap of predictors."""
    settings = StackSettings()
    ours = settings.stack
    given = services.environment(settings) | {"DRIFTLOOP_WINDOW__QUIET_SECONDS": "5"}
    given.pop("DRIFTLOOP_PREDICTOR__FOLDER")  # the image's own
    bus, names = Kafka(bootstrap_servers=given["DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS"]), Topics()
    reach, figures = environment(given), dict[str, float]()
    registry = environment(
        given
        | {
            "DRIFTLOOP_REGISTRY__URI": "https://127.0.0.1:5443",
            "MLFLOW_TRACKING_SERVER_CERT_PATH": "/run/secrets/ca",
            "MLFLOW_TRACKING_CLIENT_CERT_PATH": "/run/secrets/client",
        }
    )
    tls = environment(
        given
        | {
            "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": f"localhost:{TLS_PORT}",
            "DRIFTLOOP_KAFKA__PROTOCOL": "SSL",
            "DRIFTLOOP_KAFKA__CA": "/run/secrets/ca",
            "DRIFTLOOP_KAFKA__CERTIFICATE": "/run/secrets/client",
            "DRIFTLOOP_KAFKA__KEY": "/run/secrets/client",
        }
    )
    tls += secrets("ca", "client", folder=certificates)
    with ExitStack() as running:
        log = running.enter_context((at / "stack.log").open("w"))
        for part in (
            kafka.part(at / "kafka", ours.kafka_port, ours.kafka_controller_port, outside(ours, certificates)),
            gcs.part(at / "gcs", ours.gcs_port, services.BUCKET),
        ):
            part.prepare()
            common: dict[str, Any] = {"timeout": 60, "stdout": log, "stderr": log, "envvars": dict(os.environ)}
            executor = (
                HTTPExecutor(part.command, part.url + part.ready_path, method="GET", **common)
                if part.ready_path
                else TCPExecutor(part.command, "127.0.0.1", part.port, **common)
            )
            executor.start()
            running.callback(ended, executor)
        tell("Kafka and GCS run")

        def start(name: str, of: str, *options: str, command: tuple[str, ...] = ()) -> str:
            return running.enter_context(container(name, of, *options, command=command))

        mlflow = start(
            *("mlflow", image("mlflow"), "--network", "host", "--read-only", *TMP, "--memory", "2g"),
            *("-v", "driftloop-try-mlflow:/var/lib/mlflow"),
            *environment({"STORAGE_EMULATOR_HOST": given["DRIFTLOOP_STORAGE__ENDPOINT"]}),
            command=("--workers=1", "--backend-store-uri=sqlite:////var/lib/mlflow/mlflow.db", "--serve-artifacts",
                     f"--artifacts-destination=gs://{services.BUCKET}/mlflow",
                     "--allowed-hosts=mlflow:5000,localhost:5000,127.0.0.1:5000"),
        )  # fmt: skip
        tell(f"MLflow healthy after {healthy(mlflow):.0f} s")
        start(
            *("registry", caddy, "--network", "host", "--add-host", "mlflow:127.0.0.1"),
            *("--cap-add", "NET_BIND_SERVICE"),
            *("-v", f"{COMPOSE / 'caddy' / 'training.Caddyfile'}:/etc/caddy/Caddyfile:ro"),
            *secrets("training", "ca", folder=certificates),
        )
        wait(lambda: True if asked("http://127.0.0.1:8080/healthz") == 200 else None, 20)
        tell("topics: " + once(image("producer"), *reach, "--entrypoint", "driftloop", command=("topics", "create")))
        once(
            image("trainer"), *reach, "--user", "root", "--entrypoint", "python",
            command=("-m", "usecases.flights.publish"),
        )  # fmt: skip
        tell("the dataset is in the bucket")
        trainer = start("trainer", image("trainer"), "--network", "host", "--memory", "3g", *tls)
        worker = start(
            *("worker", image("drift_worker"), "--network", "host", "--read-only", *TMP),
            *("--memory", "2g", *tls),
        )
        tell(f"trainer healthy after {healthy(trainer):.0f} s, drift worker after {healthy(worker):.0f} s more")
        tell(
            once(
                image("producer"), *reach, "--entrypoint", "driftloop",
                command=("retrain", "--reason", "the first version", "--wait", "--no-archive",
                         "--from", "2013-01-01", "--to", "2013-04-01"),
            ).splitlines()[-1]
        )  # fmt: skip
        promoted = [c for c in topics.latest(bus, names.models, 10) if isinstance(c, ModelChange) and c.final]
        revision = podman("inspect", image("trainer"), "--format", "{{json .Config.Labels}}")
        tell(f"{promoted[-1].state}: version {promoted[-1].version}; labels {revision}")
        predictor = start(
            *("predictor", image("predictor"), "--network", "host", *PREDICTOR, *registry),
            *secrets("ca", "client", folder=certificates),
        )
        tell(f"predictor healthy after {healthy(predictor):.0f} s, its version fetched through the proxy with TLS")
        tell(
            once(
                image("producer"), *reach,
                command=("--from", "2013-07-01", "--to", "2013-07-04", "--rate", "max", "--rows", "5"),
            ).replace("\n", " | ")
        )  # fmt: skip
        verdict = wait(lambda: next((e for e in topics.latest(bus, names.drift, 50) if isinstance(e, Drift)), None))
        tell(f"verdict: {verdict.verdict}, {verdict.rows} rows of version {verdict.version}, {verdict.why}")
        for name in (worker, trainer, predictor):
            figures[f"{name.rsplit('-', 1)[1]}_stop_seconds"] = stopped(name)
            tell(f"{name} ended by itself on SIGTERM")
        figures |= swap(certificates, caddy, bus, names, running)
    return figures


def swap(certificates: Path, caddy: str, bus: Kafka, names: Topics, running: ExitStack) -> dict[str, float]:
    """One predictor takes another's place under load, both of them cut off from registry and broker."""
    podman("network", "create", NETWORK)
    running.callback(lambda: podman("network", "rm", "--force", NETWORK))
    away = environment({"DRIFTLOOP_REGISTRY__MODEL": services.MODEL})

    def predictor(name: str) -> str:
        started = running.enter_context(
            container(name, image("predictor"), *PREDICTOR, "--network", NETWORK, "--network-alias", "predictor", *away)
        )
        tell(f"{name} healthy after {healthy(started):.0f} s with the last good version, the registry being away")
        return started

    def count() -> int:
        return sum(isinstance(event, Prediction) for event in topics.latest(bus, names.predictions, 10**9))

    before = count()
    old = predictor("blue")
    gateway = running.enter_context(
        container(
            "gateway", caddy, "--network", NETWORK, "--cap-add", "NET_BIND_SERVICE", "--env", "PREDICTOR_SITE=:8000",
            *("-v", f"{COMPOSE / 'caddy' / 'serving.Caddyfile'}:/etc/caddy/Caddyfile:ro"),
            *secrets("serving", "ca", folder=certificates),
        )
    )  # fmt: skip
    address = podman("inspect", gateway, "--format", f'{{{{(index .NetworkSettings.Networks "{NETWORK}").IPAddress}}}}')
    wait(lambda: True if asked(f"http://{address}:8000/readyz") == 200 else None)
    guarded(address, certificates)
    seen, slowest, stop = Counter[int](), [0.0], threading.Event()

    def ask() -> None:
        with httpx.Client(timeout=30) as client:
            while not stop.is_set():
                began = time.monotonic()
                try:
                    status = client.post(f"http://{address}:8000/predict", json={"instances": [FLIGHT]}).status_code
                except httpx.HTTPError:
                    status = 0
                seen[status] += 1
                slowest[0] = max(slowest[0], time.monotonic() - began)
                time.sleep(PACE_SECONDS)

    askers = [threading.Thread(target=ask) for _ in range(4)]
    for asker in askers:
        asker.start()

    def more() -> None:
        wanted = sum(seen.values()) + ANSWERS
        wait(lambda: True if sum(seen.values()) >= wanted else None)

    more()
    green = predictor("green")
    more()
    tell(f"the old one ended in {stopped(old):.1f} s")
    more()
    stop.set()
    for asker in askers:
        asker.join()
    tell(f"answers by status: {dict(seen)}, the longest after {slowest[0]:.2f} s")
    stopped(green)
    # What both have promised lies in the volume, until a relay reaches the broker.
    last = running.enter_context(
        container(
            "last", image("predictor"), *PREDICTOR, "--network", "host",
            *environment({"DRIFTLOOP_REGISTRY__MODEL": services.MODEL,
                          "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": bus.bootstrap_servers}),
        )
    )  # fmt: skip
    wait(lambda: True if count() - before >= seen[200] else None)
    tell(f"events on the topic: {count() - before} of {seen[200]} answers")
    stopped(last)
    if set(seen) != {200}:
        raise Failed(f"requests failed during the swap: {dict(seen)}")
    return {
        "swap_requests": sum(seen.values()),
        "swap_failures": sum(seen.values()) - seen[200],
        "swap_longest_seconds": slowest[0],
        "swap_events": count() - before,
    }


def asked(url: str) -> int:
    """The status of an answer; 0 for none."""
    try:
        return httpx.get(url, timeout=5).status_code
    except httpx.HTTPError:
        return 0


def guarded(address: str, certificates: Path) -> None:
    """Metrics are for those with a certificate. Raises :class:`Failed`."""
    trust = ssl.create_default_context(cafile=str(certificates / "ca.crt"))
    trust.check_hostname = False  # it is called by an address here
    try:
        httpx.get(f"https://{address}:8443/metrics", verify=trust)
    except httpx.HTTPError:
        pass
    else:
        raise Failed("metrics are shown to those without a certificate")
    trust.load_cert_chain(str(certificates / "client.pem"))
    shown = httpx.get(f"https://{address}:8443/metrics", verify=trust)
    if "driftloop_" not in shown.text:
        raise Failed(f"metrics are not shown to those with a certificate: {shown.status_code}")
    tell("metrics are shown to those with a certificate alone")


def wait(found: Callable[[], T | None], seconds: float = 120) -> T:
    """What is found in the end. Raises :class:`Failed`."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        if (value := found()) is not None:
            return value
        time.sleep(LOOK_SECONDS)
    raise Failed(f"waited {seconds:g} s in vain")


def main() -> int:
    """Runs everything; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stand-in", type=Path, metavar="FOLDER", help="a Debian with Python, as a base image")
    parser.add_argument("--caddy", metavar="FILE", type=Path, help="Caddy's program, for an image of it")
    parser.add_argument("--no-build", action="store_true", help="with the images that are there")
    parser.add_argument("--no-run", action="store_true", help="build only")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures to this file")
    options = parser.parse_args()
    try:
        arguments = stand_in(options.stand_in) if options.stand_in else []
        if not options.no_build:
            build(list(IMAGES), arguments)
        figures = sizes("localhost/stand-in:python" if options.stand_in else "python:3.13.18-slim-trixie")
        if not options.no_run:
            caddy = "docker.io/library/caddy:2.11.9"
            with tempfile.TemporaryDirectory(prefix="driftloop-try-") as name:
                at = Path(name)
                if options.caddy:
                    (at / "caddy").mkdir()
                    shutil.copy(options.caddy, at / "caddy" / "caddy")
                    caddy = "localhost/stand-in:caddy"
                    command = '["/caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]'
                    imported(at / "caddy", "stand-in:caddy", f"CMD {command}")
                certificates = at / "certificates"
                subprocess.run(
                    [str(COMPOSE / "certificates.sh")],
                    env={**os.environ, "CERTIFICATES": str(certificates)},
                    check=True,
                    stderr=subprocess.DEVNULL,
                )
                for volume in ("driftloop-try-outbox", "driftloop-try-mlflow"):
                    podman("volume", "rm", "--force", volume)
                figures |= round_trip(at, certificates, caddy)
    except Failed as error:
        warn(str(error))
        return 1
    report.finish("containers", figures, {"swap_failures": "0"}, {"at": f"{datetime.now():%Y-%m-%d}"}, options.json)
    return 0


if __name__ == "__main__":
    sys.exit(main())
