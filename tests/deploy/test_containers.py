"""The compose files and Dockerfiles, checked without containers: by Compose's own library, and against the code."""

import json
import os
import re
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import yaml
from kafka import KafkaConsumer, KafkaProducer
from mirakuru import TCPExecutor
from mirakuru.exceptions import ProcessFinishedWithError
from pydantic import BaseModel

from drift_worker.settings import DriftWorkerSettings
from driftloop.errors import BrokerUnavailable
from driftloop.kafka import topics
from driftloop.settings import KafkaSettings, Settings, TopicsSettings, list_variables
from driftloop_cli.settings import CliSettings
from predictor.settings import PredictorSettings
from producer.settings import ProducerSettings
from stack import kafka, services
from stack.settings import StackSettings
from tests.support.external_tools import ROOT, needed, run
from tests.support.ports import reserve_ports
from trainer.settings import TrainerSettings
from usecases.flights.publish import PublishSettings

COMPOSE = ROOT / "compose"
SECRETS = {"TRAINER_API_KEY": "of no worth", "GRAFANA_PASSWORD": "of no worth"}
VMS = {"SERVING_ADDRESS": "10.0.0.2", "TRAINING_ADDRESS": "10.0.0.3"}
PROJECTS = {
    "the serving VM": (["serving.yaml"], VMS),
    "the other VM": (["training.yaml", "monitoring.yaml"], VMS),
    "one machine": (["compose.yaml"], {}),
}
READS: dict[str, Sequence[type[BaseModel]]] = {
    "topics": [Settings],
    "predictor": [PredictorSettings],
    "drift_worker": [DriftWorkerSettings],
    "trainer": [TrainerSettings],
    "dataset": [PublishSettings],
    "driftloop": [CliSettings, ProducerSettings],
    "producer": [CliSettings, ProducerSettings],
}
"""What each service of ours reads its settings with; those of commands share theirs."""
END = {"topics", "dataset", "driftloop", "producer"}
"""Services that are there to end."""


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Compose specification's own reader."""
    reader = tmp_path_factory.mktemp("compose") / "check"
    subprocess.run([needed("go"), "build", "-o", str(reader), "."], cwd=COMPOSE / "check", check=True, timeout=200)
    return reader


def read(compose: Path, files: Sequence[str], environment: Mapping[str, str]) -> "subprocess.CompletedProcess[str]":
    return subprocess.run(
        [str(compose), *files],
        cwd=COMPOSE,
        env={"PATH": os.environ["PATH"], **SECRETS, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="session", params=PROJECTS)
def project(request: pytest.FixtureRequest, compose: Path) -> dict[str, Any]:
    files, environment = PROJECTS[request.param]
    done = read(compose, files, environment)
    assert done.returncode == 0, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def built(service: str) -> dict[str, str]:
    """The settings that the Dockerfile of a service gives."""
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    return dict(re.findall(r"\b(DRIFTLOOP_\w+)=(\S*)", text))


def settings_of(service: Mapping[str, Any]) -> dict[str, str]:
    return {name: value for name, value in service.get("environment", {}).items() if name.startswith("DRIFTLOOP_")}


def known(models: Sequence[type[BaseModel]]) -> dict[str, bool]:
    """The variables of settings, and whether each has to be set."""
    return {variable.name: variable.default is None for model in models for variable in list_variables(model)}


def test_compose_refuses_what_it_does_not_know(compose: Path, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong.yaml"
    wrong.write_text("services: {kafka: {image: apache/kafka, memory: 1g}}")
    done = read(compose, [str(wrong)], {})
    assert done.returncode == 1
    assert "memory" in done.stderr


def test_a_secret_that_is_not_set_stops_compose(compose: Path) -> None:
    done = read(compose, ["compose.yaml"], {"TRAINER_API_KEY": ""})
    assert done.returncode == 1
    assert "TRAINER_API_KEY is missing a value: see .env.example" in done.stderr


def test_each_variable_in_compose_is_one_that_its_service_reads_and_none_is_missing(project: dict[str, Any]) -> None:
    ours = {name: service for name, service in project["services"].items() if name in READS}
    assert ours
    for name, service in ours.items():
        wanted, given = known(READS[name]), settings_of(service)
        assert given.keys() <= wanted.keys(), name
        image = service["image"].split(":")[0].removeprefix("driftloop-").replace("-", "_")
        from_image = built(image) if name not in END else {}
        assert from_image.keys() <= wanted.keys(), name
        if name not in END:  # a command's settings are those of all commands
            assert {variable for variable, needed in wanted.items() if needed} <= given.keys() | from_image.keys(), name
    assert not [
        name
        for name in project["services"].keys() - READS.keys()
        if settings_of(project["services"][name])
        if name != "grafana"
    ]


def test_each_variable_that_compose_fills_in_is_explained_and_each_explained_one_is_used() -> None:
    files = [*COMPOSE.glob("*.yaml")]
    used = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    explained = set(re.findall(r"^#?(\w+)=", (COMPOSE / ".env.example").read_text(), re.MULTILINE))
    of_one_machine = set(re.findall(r"^(\w+)=", (COMPOSE / "one-machine.env").read_text(), re.MULTILINE))
    assert used == explained | of_one_machine


def test_services_are_bound_limited_watched_and_started_again(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        if name in END:
            assert service.get("restart", "on-failure") == "on-failure", name
            continue
        assert int(service["mem_limit"]) > 0, name
        assert service["restart"] == "unless-stopped", name
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text() if "build" in service else ""
        assert "healthcheck" in service or "HEALTHCHECK" in dockerfile or name == "far_predictor", name
        if name != "kafka":  # its image's own start writes all over it
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_nothing_is_published_but_to_this_machine_and_on_vms_to_the_other_one(project: dict[str, Any]) -> None:
    vms = project["services"].get("gcs") is None
    published = {
        int(port["published"]): port["host_ip"]
        for service in project["services"].values()
        for port in service.get("ports", [])
    }
    private = dict.fromkeys((9094, 8443), VMS["SERVING_ADDRESS"]) | {5443: VMS["TRAINING_ADDRESS"]}
    assert published
    for port, address in published.items():
        assert address == (private.get(port, "127.0.0.1") if vms else "127.0.0.1"), port


def test_images_of_others_are_pinned_by_version(project: dict[str, Any]) -> None:
    for service in project["services"].values():
        name, _, tag = service["image"].rpartition(":")
        assert name.startswith("driftloop-") or re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]


def test_what_is_mounted_from_the_repository_is_there(project: dict[str, Any]) -> None:
    mounted = [
        Path(v["source"]) for s in project["services"].values() for v in s.get("volumes", []) if v["type"] == "bind"
    ]
    assert mounted
    for path in mounted:
        assert path.exists(), path


def test_make_up_and_compose_have_the_same_model_bucket_topics_broker_and_rules(project: dict[str, Any]) -> None:
    stack = services.environment(StackSettings())
    ours = {name: settings_of(service) for name, service in project["services"].items() if name in READS}
    for name, given in ours.items():
        # Names and shapes of topics are nobody's but the code's.
        assert not [variable for variable in given if variable.startswith("DRIFTLOOP_TOPICS__")], name
        for variable in ("DRIFTLOOP_REGISTRY__MODEL", "DRIFTLOOP_USE_CASE", "DRIFTLOOP_STORAGE__BUCKET"):
            assert given.get(variable, stack[variable]) == stack[variable], name
    mounts = {
        name: {v["target"]: Path(v["source"]) for v in service.get("volumes", []) if v["type"] == "bind"}
        for name, service in project["services"].items()
    }
    if "kafka" in mounts:
        assert mounts["kafka"]["/mnt/shared/config/server.properties"].samefile(kafka.BASE_PROPERTIES)
    if "prometheus" in mounts:
        assert (mounts["prometheus"]["/etc/prometheus"] / "alerts.yaml").exists()


def test_dockerfiles_have_the_same_base_and_the_uv_of_the_repository() -> None:
    files = [*ROOT.glob("services/*/Dockerfile"), COMPOSE / "mlflow" / "Dockerfile"]
    assert len(files) == 5
    arguments = {tuple(re.findall(r"^ARG (?:PYTHON|UV)=.*$", file.read_text(), re.MULTILINE)) for file in files}
    assert len(arguments) == 1
    python, uv = arguments.pop()
    assert re.fullmatch(r"ARG PYTHON=python:3\.1[123]\.\d+-slim-\w+", python)
    (version,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert uv.endswith(f":{version}")


def test_the_predictors_image_carries_neither_evidently_nor_dvc_nor_the_full_mlflow() -> None:
    lock = (ROOT / "services" / "predictor" / "requirements.txt").read_text()
    packages = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    assert "mlflow-skinny" in packages
    assert not packages & {"evidently", "dvc", "mlflow", "gcsfs", "duckdb"}


def test_git_holds_no_secret() -> None:
    run("gitleaks", "git", "--no-banner", "--redact", ".")


def test_the_broker_of_compose_takes_those_with_a_certificate_and_nobody_else(tmp_path: Path) -> None:
    """Its own properties on a real broker: what its image makes of variables is done here."""
    certificates = tmp_path / "certificates"
    subprocess.run(
        [str(COMPOSE / "certificates.sh")],
        env={**os.environ, "CERTIFICATES": str(certificates)},
        check=True,
        timeout=60,
    )
    inside, controller, outside = reserve_ports(3)
    given = yaml.safe_load((COMPOSE / "serving.yaml").read_text())["services"]["kafka"]["environment"]
    here = {
        **{"${SERVING_ADDRESS:-kafka}": "localhost", "//kafka": "//localhost"},
        **{"INSIDE://:": "INSIDE://localhost:", "OUTSIDE://:": "OUTSIDE://localhost:"},
        **{"9092": str(inside), "9093": str(controller), "9094": str(outside)},
        "/run/secrets/serving": str(certificates / "serving.pem"),
        "/run/secrets/ca": str(certificates / "ca.crt"),
        "/var/lib/kafka/data": str(tmp_path / "log"),
    }
    there = re.compile("|".join(map(re.escape, here)))
    properties = "".join(
        f"{name.removeprefix('KAFKA_').replace('_', '.').lower()}={there.sub(lambda found: here[found[0]], value)}\n"
        for name, value in given.items()
    )
    part = kafka.kafka_component(tmp_path, inside, controller, properties)
    part.prepare()
    with (tmp_path / "broker.log").open("w") as log:
        broker = TCPExecutor(part.command, "localhost", outside, timeout=60, stdout=log, stderr=log)
        broker.start()
        try:
            ca, client = certificates / "ca.crt", certificates / "client.pem"
            address = f"localhost:{outside}"
            known_to_it = KafkaSettings(
                bootstrap_servers=address,
                security_protocol="SSL",
                ssl_cafile=ca,
                ssl_certfile=client,
                ssl_keyfile=client,
            )
            assert "predictions" in topics.create(known_to_it, TopicsSettings())
            with KafkaProducer(**known_to_it.client_config) as producer:
                producer.send("predictions", b"over TLS").get(timeout=20)
            with KafkaConsumer("predictions", **known_to_it.client_config, auto_offset_reset="earliest") as consumer:
                assert next(iter(consumer)).value == b"over TLS"
            for stranger in (
                KafkaSettings(
                    bootstrap_servers=address, security_protocol="SSL", ssl_cafile=ca, request_timeout_seconds=3
                ),
                KafkaSettings(bootstrap_servers=address, request_timeout_seconds=3),
            ):
                with pytest.raises(BrokerUnavailable):
                    topics.create(stranger, TopicsSettings())
        finally:
            with suppress(ProcessFinishedWithError):  # Java tells of SIGTERM in its exit code
                broker.stop()
