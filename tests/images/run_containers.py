"""Build and run the images: sizes, one round trip through all services, and a swap of predictors under load.

Kafka and the GCS emulator are those of `make up`. Predictor, drift worker, trainer, producer and MLflow are containers
with the limits of compose, behind Caddy with the files of compose.

Needs podman, catatonit as its init, and caddy for the proxies. If no base image can be pulled, use one made by Debian's
debootstrap:

    debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie FOLDER
    python -m tests.images.run_containers --stand-in FOLDER --caddy CADDY  # built with CGO_ENABLED=0
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from datetime import datetime
from pathlib import Path
from typing import Any

from mirakuru import HTTPExecutor, TCPExecutor
from mirakuru.exceptions import ProcessFinishedWithError

from driftloop.events import DriftVerdict, ModelStateChanged
from driftloop.kafka import reader
from driftloop.settings import KafkaSettings, TopicsSettings
from stack import gcs, kafka, services
from stack.settings import StackPorts, StackSettings, load_named
from tests.images.podman import (
    DOCKERFILES,
    ImageTestFailed,
    build_images,
    create_base_images,
    environment_options,
    get_status,
    image_name,
    import_image,
    measure_sizes,
    podman,
    run_to_end,
    running_container,
    secret_options,
    stop_container,
    wait_for,
    wait_until_healthy,
)
from tests.images.predictor_swap import COMPOSE, PREDICTOR_OPTIONS, TMPFS, swap_predictors
from tests.support import report
from tests.support.report import log, warn

TLS_PORT = 9094


def stop_executor(executor: TCPExecutor) -> None:
    """Stop a component of the stack."""
    with suppress(ProcessFinishedWithError):  # Java reports SIGTERM in its exit code
        executor.stop()


def tls_listener_properties(ports: StackPorts, certificates: Path) -> str:
    """Return the broker's properties with a listener for clients with a certificate, as in compose."""
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


def round_trip(folder: Path, certificates: Path, caddy: str) -> dict[str, float]:
    """Train a version, predict and wait for a verdict, through all images; then swap predictors. Return figures."""
    settings = StackSettings(use_case=(load_named("usecases.flights:usecase"),))
    ports = settings.stack
    base_environment = services.environment(settings) | {"DRIFTLOOP_WINDOW__IDLE_TIMEOUT_SECONDS": "5"}
    base_environment.pop("DRIFTLOOP_PREDICTOR__DATA_DIR")  # the image has its own
    kafka_settings, topic_names = (
        KafkaSettings(bootstrap_servers=base_environment["DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS"]),
        TopicsSettings(),
    )
    base_options, figures = environment_options(base_environment), dict[str, float]()
    registry = environment_options(
        base_environment
        | {
            "DRIFTLOOP_REGISTRY__URI": "https://127.0.0.1:5443",
            "MLFLOW_TRACKING_SERVER_CERT_PATH": "/run/secrets/ca",
            "MLFLOW_TRACKING_CLIENT_CERT_PATH": "/run/secrets/client",
        }
    )
    tls_options = environment_options(
        base_environment
        | {
            "DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS": f"localhost:{TLS_PORT}",
            "DRIFTLOOP_KAFKA__SECURITY_PROTOCOL": "SSL",
            "DRIFTLOOP_KAFKA__SSL_CAFILE": "/run/secrets/ca",
            "DRIFTLOOP_KAFKA__SSL_CERTFILE": "/run/secrets/client",
            "DRIFTLOOP_KAFKA__SSL_KEYFILE": "/run/secrets/client",
        }
    )
    tls_options += secret_options("ca", "client", folder=certificates)
    with ExitStack() as running:
        stack_log = running.enter_context((folder / "stack.log").open("w"))
        for component in (
            kafka.kafka_component(
                folder / "kafka",
                ports.kafka_port,
                ports.kafka_controller_port,
                tls_listener_properties(ports, certificates),
            ),
            gcs.gcs_component(folder / "gcs", ports.gcs_port, services.BUCKET),
        ):
            component.prepare()
            executor_options: dict[str, Any] = {
                "timeout": 60,
                "stdout": stack_log,
                "stderr": stack_log,
                "envvars": dict(os.environ),
            }
            executor = (
                HTTPExecutor(component.command, component.url + component.ready_path, method="GET", **executor_options)
                if component.ready_path
                else TCPExecutor(component.command, "127.0.0.1", component.port, **executor_options)
            )
            executor.start()
            running.callback(stop_executor, executor)
        log("Kafka and GCS are running")

        def start(name: str, image: str, *options: str, command: tuple[str, ...] = ()) -> str:
            return running.enter_context(running_container(name, image, *options, command=command))

        mlflow = start(
            *("mlflow", image_name("mlflow"), "--network", "host", "--read-only", *TMPFS, "--memory", "2g"),
            *("-v", "driftloop-try-mlflow:/var/lib/mlflow"),
            *environment_options({"STORAGE_EMULATOR_HOST": base_environment["DRIFTLOOP_STORAGE__ENDPOINT"]}),
            command=("--workers=1", "--backend-store-uri=sqlite:////var/lib/mlflow/mlflow.db", "--serve-artifacts",
                     f"--artifacts-destination=gs://{services.BUCKET}/mlflow",
                     "--allowed-hosts=mlflow:5000,localhost:5000,127.0.0.1:5000"),
        )  # fmt: skip
        log(f"MLflow healthy after {wait_until_healthy(mlflow):.0f} s")
        start(
            *("registry", caddy, "--network", "host", "--add-host", "mlflow:127.0.0.1"),
            *("--cap-add", "NET_BIND_SERVICE"),
            *("-v", f"{COMPOSE / 'caddy' / 'training.Caddyfile'}:/etc/caddy/Caddyfile:ro"),
            *secret_options("training", "ca", folder=certificates),
        )
        wait_for(lambda: True if get_status("http://127.0.0.1:8080/healthz") == 200 else None, 20)
        log(
            "topics: "
            + run_to_end(
                image_name("producer"), *base_options, "--entrypoint", "driftloop", command=("topics", "create")
            )
        )
        run_to_end(
            image_name("trainer"), *base_options, "--user", "root", "--entrypoint", "python",
            command=("-m", "driftloop_cli.publish_command"),
        )  # fmt: skip
        log("the dataset is in the bucket")
        trainer = start("trainer", image_name("trainer"), "--network", "host", "--memory", "3g", *tls_options)
        worker = start(
            *("worker", image_name("drift_worker"), "--network", "host", "--read-only", *TMPFS),
            *("--memory", "2g", *tls_options),
        )
        log(f"trainer healthy after {wait_until_healthy(trainer):.0f} s")
        log(f"drift worker healthy after {wait_until_healthy(worker):.0f} s more")
        log(
            run_to_end(
                image_name("producer"), *base_options, "--entrypoint", "driftloop",
                command=("retrain", "--reason", "the first version", "--wait", "--no-archive",
                         "--from", "2013-01-01", "--to", "2013-04-01"),
            ).splitlines()[-1]
        )  # fmt: skip
        promoted = [
            change
            for change in reader.read_last(kafka_settings, topic_names.models, 10)
            if isinstance(change, ModelStateChanged) and change.is_final
        ]
        revision = podman("inspect", image_name("trainer"), "--format", "{{json .Config.Labels}}")
        log(f"{promoted[-1].state}: version {promoted[-1].version}; labels {revision}")
        predictor = start(
            *("predictor", image_name("predictor"), "--network", "host", *PREDICTOR_OPTIONS, *registry),
            *secret_options("ca", "client", folder=certificates),
        )
        seconds = wait_until_healthy(predictor)
        log(f"predictor healthy after {seconds:.0f} s, with a version downloaded through the proxy with TLS")
        log(
            run_to_end(
                image_name("producer"), *base_options,
                command=("--from", "2013-07-01", "--to", "2013-07-04", "--rate", "max", "--rows", "5"),
            ).replace("\n", " | ")
        )  # fmt: skip
        verdict = wait_for(
            lambda: next(
                (e for e in reader.read_last(kafka_settings, topic_names.drift, 50) if isinstance(e, DriftVerdict)),
                None,
            )
        )
        log(f"verdict: {verdict.verdict}, {verdict.rows} rows of version {verdict.version}, {verdict.explanation}")
        for name in (worker, trainer, predictor):
            figures[f"{name.rsplit('-', 1)[1]}_stop_seconds"] = stop_container(name)
            log(f"{name} ended by itself on SIGTERM")
        figures |= swap_predictors(certificates, caddy, kafka_settings, topic_names, running)
    return figures


def main() -> int:
    """Run the test; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--stand-in", type=Path, metavar="FOLDER", help="folder with a Debian with Python, for a base image"
    )
    parser.add_argument("--caddy", metavar="FILE", type=Path, help="Caddy's program, for an image with it")
    parser.add_argument("--no-build", action="store_true", help="use existing images")
    parser.add_argument("--no-run", action="store_true", help="only build images")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures to this file")
    options = parser.parse_args()
    try:
        arguments = create_base_images(options.stand_in) if options.stand_in else []
        if not options.no_build:
            build_images(list(DOCKERFILES), arguments)
        figures = measure_sizes("localhost/stand-in:python" if options.stand_in else "python:3.13.18-slim-trixie")
        if not options.no_run:
            caddy = "docker.io/library/caddy:2.11.9"
            with tempfile.TemporaryDirectory(prefix="driftloop-try-") as name:
                folder = Path(name)
                if options.caddy:
                    (folder / "caddy").mkdir()
                    shutil.copy(options.caddy, folder / "caddy" / "caddy")
                    caddy = "localhost/stand-in:caddy"
                    command = '["/caddy", "run", "--config", "/etc/caddy/Caddyfile", "--adapter", "caddyfile"]'
                    import_image(folder / "caddy", "stand-in:caddy", f"CMD {command}")
                certificates = folder / "certificates"
                subprocess.run(
                    [str(COMPOSE / "certificates.sh")],
                    env={**os.environ, "CERTIFICATES": str(certificates)},
                    check=True,
                    stderr=subprocess.DEVNULL,
                )
                for volume in ("driftloop-try-outbox", "driftloop-try-mlflow"):
                    podman("volume", "rm", "--force", volume)
                figures |= round_trip(folder, certificates, caddy)
    except ImageTestFailed as error:
        warn(str(error))
        return 1
    report.write_results(
        "containers", figures, {"swap_failures": "0"}, {"at": f"{datetime.now():%Y-%m-%d}"}, options.json
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
