"""The Kubernetes manifests, checked without a cluster: schemas, references, settings, policies."""

import os
from collections.abc import Collection, Iterable, Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from pydantic_settings import BaseSettings

from deploy.kubernetes import generate
from drift_worker.settings import DriftWorkerSettings
from driftloop.kafka import topics
from driftloop.privacy import FEATURES_SETTING
from driftloop.settings import PREFIX, TopicsSettings, list_variables
from predictor.outbox.supervision import STOP_SECONDS
from predictor.settings import PredictorSettings
from tests.support.external_tools import ROOT, run_tool
from trainer.settings import TrainerSettings

Document = dict[str, Any]

OVERLAYS = ("small", "production")
SETTINGS: dict[str, type[PredictorSettings] | type[DriftWorkerSettings] | type[TrainerSettings]] = {
    "predictor": PredictorSettings,
    "drift-worker": DriftWorkerSettings,
    "trainer": TrainerSettings,
}
# kubernetes_validate has no schemas of these.
CUSTOM_API_VERSIONS = ("kafka.strimzi.io/v1", "keda.sh/v1alpha1", "monitoring.coreos.com/v1")
STRIMZI_SECRET = "driftloop-cluster-ca-cert"  # created by Strimzi
MANUAL_SECRETS = {"trainer-api", "privacy"}  # created by hand
NAME = "app.kubernetes.io/name"


@cache
def build_overlay(overlay: str) -> list[Document]:
    """Return all documents of an overlay."""
    return build(ROOT / "deploy" / "kubernetes" / "overlays" / overlay)


def build(folder: Path) -> list[Document]:
    """Return all documents of a folder with a kustomization."""
    return list(yaml.safe_load_all(run_tool("kustomize", "build", str(folder))))


def of_kind(documents: Iterable[Document], *kinds: str) -> list[Document]:
    """Return the documents of some kinds; fail if there is none."""
    selected = [document for document in documents if document["kind"] in kinds]
    assert selected, f"no {' or '.join(kinds)}"
    return selected


def workloads(documents: Iterable[Document]) -> dict[str, Document]:
    """Return stateful sets and deployments by name."""
    return {document["metadata"]["name"]: document for document in of_kind(documents, "StatefulSet", "Deployment")}


def pod(workload: Document) -> Document:
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Document) -> Document:
    (container_spec,) = pod(workload)["containers"]
    assert isinstance(container_spec, dict)
    return container_spec


def selector_matches(selector: Document, labels: dict[str, str]) -> bool:
    """Return whether a selector matches labels, as in Kubernetes; only the forms in these manifests are supported."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    assert all(term["operator"] == "In" for term in selector.get("matchExpressions", ()))
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(term["key"]) in term["values"] for term in selector.get("matchExpressions", ())
    )


def labels(workload: Document) -> dict[str, str]:
    """Return the labels of a workload's pods."""
    pod_labels: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return pod_labels


def config_map_data(documents: list[Document], name: str) -> dict[str, str]:
    """Return the data of a config map."""
    (data,) = (document["data"] for document in of_kind(documents, "ConfigMap") if document["metadata"]["name"] == name)
    assert isinstance(data, dict)
    return data


def environment_of(
    documents: list[Document], workload: Document, optional_secrets: Collection[str] = ()
) -> dict[str, str]:
    """Return a container's environment variables.

    The value of one from a secret is the secret's name, repeated to the length of a key. One from an optional secret is
    there if the secret is among ``optional_secrets``.
    """
    container_spec = container(workload)
    environment: dict[str, str] = {}
    for source in container_spec.get("envFrom", ()):
        environment |= config_map_data(documents, source["configMapRef"]["name"])
    for variable in container_spec["env"]:
        if "value" in variable:
            environment[variable["name"]] = variable["value"]
        elif "configMapKeyRef" in variable["valueFrom"]:
            reference = variable["valueFrom"]["configMapKeyRef"]
            environment[variable["name"]] = config_map_data(documents, reference["name"])[reference["key"]]
        else:
            reference = variable["valueFrom"]["secretKeyRef"]
            if not reference.get("optional") or reference["name"] in optional_secrets:
                environment[variable["name"]] = reference["name"] * 8
    return environment


def setting_names(model: type[BaseSettings]) -> set[str]:
    """Return the variables of a settings class."""
    return {variable.name for variable in list_variables(model)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_match_kubernetes_schemas(overlay: str) -> None:
    validated = 0
    for document in build_overlay(overlay):
        if document["apiVersion"] not in CUSTOM_API_VERSIONS:
            kubernetes_validate.validate(document, "1.37", strict=True)
            validated += 1
    assert validated > 20


def test_generated_manifests_are_up_to_date() -> None:
    for path, text in generate.manifests().items():
        assert path.read_text() == text, f"{path} is out of date: run .venv/bin/python deploy/kubernetes/generate.py"


@pytest.mark.parametrize(
    ("overlay", "expected"),
    [("small", TopicsSettings()), ("production", TopicsSettings(partitions=12, replication_factor=3))],
)
def test_topic_manifests_equal_topics_of_the_command(overlay: str, expected: TopicsSettings) -> None:
    topic_specs = {
        document["metadata"]["name"]: topics.TopicSpec(
            document["spec"]["partitions"],
            document["spec"]["replicas"],
            {key: str(value) for key, value in document["spec"]["config"].items()},
        )
        for document in of_kind(build_overlay(overlay), "KafkaTopic")
    }
    assert topic_specs == topics.topic_specs(expected)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("service", SETTINGS)
def test_container_variables_are_valid_settings_of_the_service(
    overlay: str, service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    documents = build_overlay(overlay)
    workload = workloads(documents)[service]
    environment = {
        name: value for name, value in environment_of(documents, workload).items() if name.startswith(PREFIX)
    }
    own_variables = {entry["name"] for entry in container(workload)["env"] if entry["name"].startswith(PREFIX)}
    assert own_variables <= setting_names(SETTINGS[service])
    assert environment.keys() <= set().union(*map(setting_names, SETTINGS.values()))

    for variable in os.environ.keys() & set().union(*map(setting_names, SETTINGS.values())):
        monkeypatch.delenv(variable)
    empty_file = tmp_path / "file"
    empty_file.touch()
    for name, value in environment.items():
        monkeypatch.setenv(name, str(empty_file) if value in secret_files(workload) else value)
    SETTINGS[service]()


@pytest.mark.parametrize("service", SETTINGS)
def test_private_columns_of_an_overlay_and_the_key_reach_each_service(
    service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    overlay = {
        "apiVersion": "kustomize.config.k8s.io/v1beta1",
        "kind": "Kustomization",
        "namespace": "driftloop",
        "resources": [os.path.relpath(ROOT / "deploy" / "kubernetes" / "base", tmp_path)],
        "configMapGenerator": [
            {"name": "driftloop", "behavior": "merge", "literals": [f"{FEATURES_SETTING}=temp=hash,dewp=drop"]}
        ],
    }
    (tmp_path / "kustomization.yaml").write_text(yaml.safe_dump(overlay))
    documents = build(tmp_path)
    workload = workloads(documents)[service]
    for name, value in environment_of(documents, workload, {"privacy"}).items():
        if name.startswith(PREFIX) and value not in secret_files(workload) | {"SSL"}:
            monkeypatch.setenv(name, value)
    privacy = SETTINGS[service]().privacy
    assert privacy.features == {"temp": "hash", "dewp": "drop"}
    assert privacy.hash_key is not None


def secret_files(workload: Document) -> set[str]:
    """Return the paths of files that are mounted from secrets."""
    volumes = {volume["name"]: volume for volume in pod(workload)["volumes"]}
    return {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container(workload)["volumeMounts"]
        for source in volumes.get(mount["name"], {}).get("projected", {}).get("sources", ())
        for item in source["secret"]["items"]
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_references_between_manifests_resolve(overlay: str) -> None:
    documents = build_overlay(overlay)
    workloads_by_name = workloads(documents)
    for service in of_kind(documents, "Service"):
        (target,) = (
            document
            for document in workloads_by_name.values()
            if selector_matches({"matchLabels": service["spec"]["selector"]}, labels(document))
        )
        ports = {port["name"]: port["containerPort"] for port in container(target)["ports"]}
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    for budget in of_kind(documents, "PodDisruptionBudget"):
        assert [
            document
            for document in workloads_by_name.values()
            if selector_matches(budget["spec"]["selector"], labels(document))
        ]
    for scaler in of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        target = workloads_by_name[scaler["spec"]["scaleTargetRef"]["name"]]
        assert target["kind"] == scaler["spec"]["scaleTargetRef"]["kind"]
        assert "replicas" not in target["spec"], "the autoscaler and the manifest would both set the number of replicas"
    accounts = {document["metadata"]["name"] for document in of_kind(documents, "ServiceAccount")}
    claims = {document["metadata"]["name"] for document in of_kind(documents, "PersistentVolumeClaim")}
    for workload in workloads_by_name.values():
        assert pod(workload)["serviceAccountName"] in accounts
        mounted = {mount["name"] for mount in container(workload)["volumeMounts"]}
        claim_templates = {
            document["metadata"]["name"] for document in workload["spec"].get("volumeClaimTemplates", ())
        }
        assert mounted == claim_templates | {volume["name"] for volume in pod(workload)["volumes"]}
        assert {
            volume["persistentVolumeClaim"]["claimName"]
            for volume in pod(workload)["volumes"]
            if "persistentVolumeClaim" in volume
        } <= claims
    (monitor,) = of_kind(documents, "ServiceMonitor")
    watched = [
        document
        for document in of_kind(documents, "Service")
        if selector_matches(monitor["spec"]["selector"], document["metadata"].get("labels", {}))
    ]
    assert {document["metadata"]["name"] for document in watched} == set(SETTINGS)
    assert all(endpoint["port"] == "http" for endpoint in monitor["spec"]["endpoints"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_manifests_refer_to_known_secrets_and_contain_none(overlay: str) -> None:
    documents = build_overlay(overlay)
    assert not [document for document in documents if document["kind"] == "Secret"]
    users = {document["metadata"]["name"] for document in of_kind(documents, "KafkaUser")}
    referenced_secrets = set(chain.from_iterable(map(secret_names, documents)))
    assert referenced_secrets == users | {STRIMZI_SECRET} | MANUAL_SECRETS


def secret_names(value: Any) -> Iterator[str]:
    """Yield the names of secrets that a manifest refers to."""
    if isinstance(value, dict):
        for key, child in value.items():
            if key in ("secret", "secretKeyRef"):
                yield child["name"]
            elif key == "secretTargetRef":
                yield from (reference["name"] for reference in child)
            else:
                yield from secret_names(child)
    elif isinstance(value, list):
        yield from chain.from_iterable(map(secret_names, value))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_pods_are_unprivileged_with_read_only_root_and_memory_limit(overlay: str) -> None:
    for workload in workloads(build_overlay(overlay)).values():
        assert pod(workload)["automountServiceAccountToken"] is False
        assert pod(workload)["enableServiceLinks"] is False
        assert pod(workload)["securityContext"]["runAsNonRoot"] is True
        assert pod(workload)["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        assert container(workload)["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }
        assert "/tmp" in {mount["mountPath"] for mount in container(workload)["volumeMounts"]}  # noqa: S108
        assert "memory" in container(workload)["resources"]["limits"]
        assert not container(workload)["image"].endswith(":latest")
        assert ":" in container(workload)["image"]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_predictor_is_available_while_a_pod_is_replaced(overlay: str) -> None:
    documents = build_overlay(overlay)
    predictor = workloads(documents)["predictor"]
    (scaler,) = of_kind(documents, "HorizontalPodAutoscaler")
    (budget,) = (
        document
        for document in of_kind(documents, "PodDisruptionBudget")
        if document["metadata"]["name"] == "predictor"
    )
    assert scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]
    spec = container(predictor)
    assert (
        spec["readinessProbe"]["httpGet"]["path"],
        spec["livenessProbe"]["httpGet"]["path"],
    ) == (
        "/readyz",
        "/healthz",
    )
    request_timeout_seconds = 10  # seconds: timeout_graceful_shutdown of predictor.main
    max_shutdown_seconds = spec["lifecycle"]["preStop"]["sleep"]["seconds"] + request_timeout_seconds + STOP_SECONDS
    assert pod(predictor)["terminationGracePeriodSeconds"] > max_shutdown_seconds
    (volume,) = predictor["spec"]["volumeClaimTemplates"]
    folder = environment_of(documents, predictor)["DRIFTLOOP_PREDICTOR__DATA_DIR"]
    assert {"name": volume["metadata"]["name"], "mountPath": folder} in spec["volumeMounts"]
    assert predictor["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenScaled": "Retain",
        "whenDeleted": "Retain",
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_drift_worker_scaler_ignores_lag_of_open_windows(overlay: str) -> None:
    documents = build_overlay(overlay)
    (scaler,) = of_kind(documents, "ScaledObject")
    (trigger,) = scaler["spec"]["triggers"]
    topic_settings = TopicsSettings()
    partitions = {
        document["metadata"]["name"]: document["spec"]["partitions"] for document in of_kind(documents, "KafkaTopic")
    }
    settings = DriftWorkerSettings()
    open_window_rows = settings.window.slice_rows * (
        partitions[topic_settings.predictions] + partitions[topic_settings.outcomes]
    )
    assert int(trigger["metadata"]["lagThreshold"]) > open_window_rows
    assert trigger["metadata"]["consumerGroup"] == settings.drift_worker.group
    assert scaler["spec"]["maxReplicaCount"] == partitions[topic_settings.predictions]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_network_policies_cover_all_pods_and_allow_configured_addresses(overlay: str) -> None:
    documents = build_overlay(overlay)
    workloads_by_name = workloads(documents)
    policies = {document["metadata"]["name"]: document["spec"] for document in of_kind(documents, "NetworkPolicy")}
    assert all(
        selector_matches(policies["nothing"]["podSelector"], labels(document))
        for document in workloads_by_name.values()
    )
    assert set(policies["nothing"]["policyTypes"]) == {"Ingress", "Egress"}
    assert not policies["nothing"].keys() & {"ingress", "egress"}
    for name in SETTINGS:
        address = environment_of(documents, workloads_by_name[name])["DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS"]
        assert address.endswith(f":{policies['kafka']['egress'][0]['ports'][0]['port']}")
        assert selector_matches(policies["kafka"]["podSelector"], labels(workloads_by_name[name]))
        assert selector_matches(policies["metrics"]["podSelector"], labels(workloads_by_name[name]))
    registry = policies["registry"]["egress"][0]
    assert selector_matches(registry["to"][0]["podSelector"], labels(workloads_by_name["mlflow"]))
    (listener,) = of_kind(documents, "Kafka")[0]["spec"]["kafka"]["listeners"]
    assert listener["port"] == policies["kafka"]["egress"][0]["ports"][0]["port"]
    (peers, _) = listener["networkPolicyPeers"]
    assert all(selector_matches(peers["podSelector"], labels(workloads_by_name[name])) for name in SETTINGS)
    hosts = environment_of(documents, workloads_by_name["mlflow"])["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert (
        environment_of(documents, workloads_by_name["predictor"])["DRIFTLOOP_REGISTRY__URI"].removeprefix("http://")
        in hosts
    )


def test_base_kustomization_lists_all_its_files() -> None:
    folder = ROOT / "deploy" / "kubernetes" / "base"
    listed_files = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(listed_files) == sorted(
        path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml"
    )
