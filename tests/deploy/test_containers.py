"""The compose files and Dockerfiles, checked without containers: by Compose's own library, and against the code."""

import json
import os
import re
import shutil
import subprocess
import tomllib
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
from driftloop.privacy_settings import SourcePrivacySettings
from driftloop.settings import PREFIX, KafkaSettings, Settings, TopicsSettings, list_variables
from driftloop.storage.base_dataset import PublishSettings
from driftloop_cli.settings import CliSettings, StorageCliSettings
from predictor.settings import PredictorSettings
from producer.settings import ProducerSettings
from stack import kafka, services
from stack.settings import StackSettings, load_named
from tests.support.external_tools import ROOT, require_tool, run_tool
from tests.support.ports import reserve_ports
from trainer.settings import TrainerSettings

COMPOSE = ROOT / "compose"
SECRETS = {"TRAINER_API_KEY": "example", "GRAFANA_PASSWORD": "example"}
VMS = {"SERVING_ADDRESS": "10.0.0.2", "TRAINING_ADDRESS": "10.0.0.3"}
COMPOSE_PROJECTS = {
    "the serving VM": (["serving.yaml"], VMS),
    "the other VM": (["training.yaml", "monitoring.yaml"], VMS),
    "one machine": (["compose.yaml"], {}),
}
SETTINGS_CLASSES: dict[str, Sequence[type[BaseModel]]] = {
    "topics": [Settings],
    "predictor": [PredictorSettings],
    "drift_worker": [DriftWorkerSettings],
    "trainer": [TrainerSettings],
    "dataset": [PublishSettings],
    "driftloop": [StorageCliSettings, ProducerSettings],
    "producer": [CliSettings, ProducerSettings],
}
"""The settings classes of each of the project's own services; commands share theirs."""
ONE_SHOT_SERVICES = {"topics", "dataset", "driftloop", "producer"}
"""Services that run one command to its end."""


@pytest.fixture(scope="session")
def compose(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the program that loads compose files with Compose's own library; return its path."""
    program = tmp_path_factory.mktemp("compose") / "check"
    subprocess.run(
        [require_tool("go"), "build", "-o", str(program), "."], cwd=COMPOSE / "check", check=True, timeout=200
    )
    return program


def load_project(
    compose: Path, files: Sequence[str], environment: Mapping[str, str], folder: Path = COMPOSE
) -> "subprocess.CompletedProcess[str]":
    """Load compose files; the output is the project as JSON."""
    return subprocess.run(
        [str(compose), *files],
        cwd=folder,
        env={"PATH": os.environ["PATH"], **SECRETS, **environment},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )


@pytest.fixture(scope="session", params=COMPOSE_PROJECTS)
def project(request: pytest.FixtureRequest, compose: Path) -> dict[str, Any]:
    """Return each project of compose files, loaded."""
    files, environment = COMPOSE_PROJECTS[request.param]
    result = load_project(compose, files, environment)
    assert result.returncode == 0, result.stderr
    project: dict[str, Any] = json.loads(result.stdout)
    return project


def image_settings(service: str) -> dict[str, str]:
    """Return the settings in the Dockerfile of a service."""
    text = (ROOT / "services" / service / "Dockerfile").read_text()
    return dict(re.findall(r"\b(DRIFTLOOP_\w+)=(\S*)", text))


def compose_settings(service: Mapping[str, Any]) -> dict[str, str]:
    """Return driftloop's settings in a service of a compose project."""
    return {name: value for name, value in service.get("environment", {}).items() if name.startswith("DRIFTLOOP_")}


def required_by_variable(models: Sequence[type[BaseModel]]) -> dict[str, bool]:
    """Return for each variable of settings whether it is required."""
    return {variable.name: variable.default is None for model in models for variable in list_variables(model)}


def test_compose_rejects_unknown_key(compose: Path, tmp_path: Path) -> None:
    invalid_file = tmp_path / "wrong.yaml"
    invalid_file.write_text("services: {kafka: {image: apache/kafka, memory: 1g}}")
    result = load_project(compose, [str(invalid_file)], {})
    assert result.returncode == 1
    assert "memory" in result.stderr


def test_compose_rejects_empty_secret(compose: Path) -> None:
    result = load_project(compose, ["compose.yaml"], {"TRAINER_API_KEY": ""})
    assert result.returncode == 1
    assert "TRAINER_API_KEY is missing a value: see .env.example" in result.stderr


def test_compose_variables_are_settings_of_their_service_and_complete(project: dict[str, Any]) -> None:
    own_services = {name: service for name, service in project["services"].items() if name in SETTINGS_CLASSES}
    assert own_services
    for name, service in own_services.items():
        required_settings, settings = required_by_variable(SETTINGS_CLASSES[name]), compose_settings(service)
        assert settings.keys() <= required_settings.keys(), name
        image = service["image"].split(":")[0].removeprefix("driftloop-").replace("-", "_")
        defaults = image_settings(image) if name not in ONE_SHOT_SERVICES else {}
        assert defaults.keys() <= required_settings.keys(), name
        if name not in ONE_SHOT_SERVICES:  # a command's settings are those of all commands
            assert {
                variable for variable, required in required_settings.items() if required
            } <= settings.keys() | defaults.keys(), name
    assert not [
        name
        for name in project["services"].keys() - SETTINGS_CLASSES.keys()
        if compose_settings(project["services"][name])
        if name != "grafana"
    ]


def test_services_of_one_project_have_one_store(project: dict[str, Any]) -> None:
    stores = {
        name: (settings["DRIFTLOOP_STORAGE__URL"], settings.get("DRIFTLOOP_STORAGE__ENDPOINT"))
        for name, service in project["services"].items()
        if "DRIFTLOOP_STORAGE__URL" in (settings := compose_settings(service))
    }
    assert len(set(stores.values())) == ("trainer" in project["services"]), stores  # the serving VM needs none


def test_trainer_image_has_the_packages_of_the_operators_command() -> None:
    def extras(requirement: str) -> set[str]:
        found = re.match(r"driftloop\[(.+?)\]", requirement)
        return set(found[1].split(",")) if found else set()

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    trainer = tomllib.loads((ROOT / "services" / "trainer" / "pyproject.toml").read_text())["project"]
    (command,) = project["optional-dependencies"]["cli"]
    assert extras(command)
    assert extras(command) <= extras(trainer["dependencies"][0])


def test_env_example_documents_exactly_the_variables_of_compose() -> None:
    files = [*COMPOSE.glob("*.yaml")]
    used_variables = {name for file in files for name in re.findall(r"\$\{(\w+)", file.read_text())}
    documented_variables = set(re.findall(r"^#?(\w+)=", (COMPOSE / ".env.example").read_text(), re.MULTILINE))
    one_machine_variables = set(re.findall(r"^(\w+)=", (COMPOSE / "one-machine.env").read_text(), re.MULTILINE))
    assert used_variables == documented_variables | one_machine_variables


def test_privacy_settings_reach_exactly_the_services_that_read_them(compose: Path, tmp_path: Path) -> None:
    """Prepare a copy of the compose files as an operator does, name private columns, and load it."""
    folder = tmp_path / "compose"
    shutil.copytree(COMPOSE, folder, ignore=shutil.ignore_patterns("check", "certificates", "*.env.example", "*.env"))
    for file in ("one-machine.env", ".env.example", "privacy.env.example"):
        shutil.copy(COMPOSE / file, folder)
    subprocess.run([folder / "prepare.sh"], check=True, capture_output=True, timeout=60)
    private_file = folder / "privacy.env"
    assert private_file.stat().st_mode & 0o077 == 0, "others may read the key"
    example = private_file.read_text()
    private_file.write_text(re.sub("^#(?=DRIFTLOOP_)", "", example, flags=re.MULTILINE))
    subprocess.run([folder / "prepare.sh"], check=True, capture_output=True, timeout=60)  # keeps what is there

    result = load_project(compose, ["compose.yaml"], {}, folder)
    assert result.returncode == 0, result.stderr
    environments = {
        name: {
            variable.removeprefix(f"{PREFIX}PRIVACY__").lower(): value
            for variable, value in compose_settings(service).items()
            if variable.startswith(f"{PREFIX}PRIVACY__")
        }
        for name, service in json.loads(result.stdout)["services"].items()
    }
    readers = {name: values for name, values in environments.items() if values}
    assert readers.keys() == {"predictor", "drift_worker", "trainer", "driftloop"}
    (privacy,) = {SourcePrivacySettings.model_validate(values).model_dump_json() for values in readers.values()}
    settings = SourcePrivacySettings.model_validate(readers["predictor"])
    assert settings.features == {"email": "hash", "phone": "drop"}, privacy
    assert settings.keys == "hash"
    assert settings.hash_key
    assert settings.hash_key.get_secret_value() in example, "made again by the second call"


def test_services_have_memory_limit_restart_policy_health_check_and_no_privileges(project: dict[str, Any]) -> None:
    for name, service in project["services"].items():
        if name in ONE_SHOT_SERVICES:
            assert service.get("restart", "on-failure") == "on-failure", name
            continue
        assert int(service["mem_limit"]) > 0, name
        assert service["restart"] == "unless-stopped", name
        dockerfile = (ROOT / service["build"]["dockerfile"]).read_text() if "build" in service else ""
        assert "healthcheck" in service or "HEALTHCHECK" in dockerfile or name == "far_predictor", name
        if name != "kafka":  # the start script of its image writes into many of its folders
            assert service["cap_drop"] == ["ALL"], name
            assert service["security_opt"] == ["no-new-privileges:true"], name


def test_ports_are_published_on_localhost_and_private_addresses_only(project: dict[str, Any]) -> None:
    is_vm = project["services"].get("gcs") is None
    published = {
        int(port["published"]): port["host_ip"]
        for service in project["services"].values()
        for port in service.get("ports", [])
    }
    private = dict.fromkeys((9094, 8443), VMS["SERVING_ADDRESS"]) | {5443: VMS["TRAINING_ADDRESS"]}
    assert published
    for port, address in published.items():
        assert address == (private.get(port, "127.0.0.1") if is_vm else "127.0.0.1"), port


def test_third_party_images_are_pinned_by_version(project: dict[str, Any]) -> None:
    for service in project["services"].values():
        name, _, tag = service["image"].rpartition(":")
        assert name.startswith("driftloop-") or re.fullmatch(r"v?\d+\.\d+\.\d+", tag), service["image"]


def test_mounted_files_of_the_repository_exist(project: dict[str, Any]) -> None:
    mounted_paths = [
        Path(v["source"]) for s in project["services"].values() for v in s.get("volumes", []) if v["type"] == "bind"
    ]
    assert mounted_paths
    for path in mounted_paths:
        assert path.exists(), path


def test_compose_has_model_bucket_broker_and_rules_of_the_local_stack(project: dict[str, Any]) -> None:
    stack = services.environment(StackSettings(use_case=(load_named("usecases.flights:usecase"),)))
    own_services = {
        name: compose_settings(service) for name, service in project["services"].items() if name in SETTINGS_CLASSES
    }
    for name, settings in own_services.items():
        # Names and partitions of topics are defined in the code only.
        assert not [variable for variable in settings if variable.startswith("DRIFTLOOP_TOPICS__")], name
        for variable in ("DRIFTLOOP_REGISTRY__MODEL", "DRIFTLOOP_USE_CASE", "DRIFTLOOP_STORAGE__URL"):
            assert settings.get(variable, stack[variable]) == stack[variable], name
    mounts = {
        name: {v["target"]: Path(v["source"]) for v in service.get("volumes", []) if v["type"] == "bind"}
        for name, service in project["services"].items()
    }
    if "kafka" in mounts:
        assert mounts["kafka"]["/mnt/shared/config/server.properties"].samefile(kafka.BASE_PROPERTIES)
    if "prometheus" in mounts:
        assert (mounts["prometheus"]["/etc/prometheus"] / "alerts.yaml").exists()


def test_dockerfiles_have_same_python_and_the_uv_version_of_the_makefile() -> None:
    files = [*ROOT.glob("services/*/Dockerfile"), COMPOSE / "mlflow" / "Dockerfile"]
    assert len(files) == 5
    arguments = {tuple(re.findall(r"^ARG (?:PYTHON|UV)=.*$", file.read_text(), re.MULTILINE)) for file in files}
    assert len(arguments) == 1
    python, uv = arguments.pop()
    assert re.fullmatch(r"ARG PYTHON=python:3\.1[123]\.\d+-slim-\w+", python)
    (version,) = re.findall(r"^UV_VERSION := (\S+)$", (ROOT / "Makefile").read_text(), re.MULTILINE)
    assert uv.endswith(f":{version}")


def test_predictor_image_contains_neither_evidently_nor_dvc_nor_full_mlflow() -> None:
    lock = (ROOT / "services" / "predictor" / "requirements.txt").read_text()
    packages = set(re.findall(r"^([\w.-]+)==", lock, re.MULTILINE))
    assert "mlflow-skinny" in packages
    assert not packages & {"evidently", "dvc", "mlflow", "gcsfs", "duckdb"}


def test_git_history_contains_no_secret() -> None:
    run_tool("gitleaks", "git", "--no-banner", "--redact", ".")


def test_compose_broker_accepts_only_clients_with_certificate(tmp_path: Path) -> None:
    """Start a broker with the variables of compose, translated to properties as the image does it."""
    certificates = tmp_path / "certificates"
    subprocess.run(
        [str(COMPOSE / "certificates.sh")],
        env={**os.environ, "CERTIFICATES": str(certificates)},
        check=True,
        timeout=60,
    )
    inside_port, controller_port, outside_port = reserve_ports(3)
    settings = yaml.safe_load((COMPOSE / "serving.yaml").read_text())["services"]["kafka"]["environment"]
    replacements = {
        **{"${SERVING_ADDRESS:-kafka}": "localhost", "//kafka": "//localhost"},
        **{"INSIDE://:": "INSIDE://localhost:", "OUTSIDE://:": "OUTSIDE://localhost:"},
        **{"9092": str(inside_port), "9093": str(controller_port), "9094": str(outside_port)},
        "/run/secrets/serving": str(certificates / "serving.pem"),
        "/run/secrets/ca": str(certificates / "ca.crt"),
        "/var/lib/kafka/data": str(tmp_path / "log"),
    }
    pattern = re.compile("|".join(map(re.escape, replacements)))
    properties = "".join(
        f"{name.removeprefix('KAFKA_').replace('_', '.').lower()}={pattern.sub(lambda m: replacements[m[0]], value)}\n"
        for name, value in settings.items()
    )
    component = kafka.kafka_component(tmp_path, inside_port, controller_port, properties)
    component.prepare()
    with (tmp_path / "broker.log").open("w") as log:
        broker = TCPExecutor(component.command, "localhost", outside_port, timeout=60, stdout=log, stderr=log)
        broker.start()
        try:
            ca, client = certificates / "ca.crt", certificates / "client.pem"
            address = f"localhost:{outside_port}"
            client_with_certificate = KafkaSettings(
                bootstrap_servers=address,
                security_protocol="SSL",
                ssl_cafile=ca,
                ssl_certfile=client,
                ssl_keyfile=client,
            )
            assert "predictions" in topics.create(client_with_certificate, TopicsSettings())
            with KafkaProducer(**client_with_certificate.client_config) as producer:
                producer.send("predictions", b"over TLS").get(timeout=20)
            with KafkaConsumer(
                "predictions", **client_with_certificate.client_config, auto_offset_reset="earliest"
            ) as consumer:
                assert next(iter(consumer)).value == b"over TLS"
            for client_without_certificate in (
                KafkaSettings(
                    bootstrap_servers=address, security_protocol="SSL", ssl_cafile=ca, request_timeout_seconds=3
                ),
                KafkaSettings(bootstrap_servers=address, request_timeout_seconds=3),
            ):
                with pytest.raises(BrokerUnavailable):
                    topics.create(client_without_certificate, TopicsSettings())
        finally:
            with suppress(ProcessFinishedWithError):  # Java reports SIGTERM in its exit code
                broker.stop()
