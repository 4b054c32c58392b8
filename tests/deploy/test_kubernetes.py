"""The manifests, as far as they can be held against something without a cluster."""

import os
from collections.abc import Iterable, Iterator
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
from driftloop.settings import PREFIX, TopicsSettings, list_variables
from predictor.outbox.supervision import STOP_SECONDS
from predictor.settings import PredictorSettings
from tests.support.external_tools import ROOT, run
from trainer.settings import TrainerSettings

Document = dict[str, Any]

OVERLAYS = ("small", "production")
SETTINGS: dict[str, type[BaseSettings]] = {
    "predictor": PredictorSettings,
    "drift-worker": DriftWorkerSettings,
    "trainer": TrainerSettings,
}
CUSTOM = ("kafka.strimzi.io/v1", "keda.sh/v1alpha1", "monitoring.coreos.com/v1")  # of these there are no schemas here
OF_STRIMZI = "driftloop-cluster-ca-cert"
BY_HAND = "trainer-api"
NAME = "app.kubernetes.io/name"


@cache
def built(overlay: str) -> list[Document]:
    return list(yaml.safe_load_all(run("kustomize", "build", f"deploy/kubernetes/overlays/{overlay}")))


def of(documents: Iterable[Document], *kinds: str) -> list[Document]:
    found = [document for document in documents if document["kind"] in kinds]
    assert found, f"no {' or '.join(kinds)}"
    return found


def workloads(documents: Iterable[Document]) -> dict[str, Document]:
    return {one["metadata"]["name"]: one for one in of(documents, "StatefulSet", "Deployment")}


def pod(workload: Document) -> Document:
    spec: Document = workload["spec"]["template"]["spec"]
    return spec


def container(workload: Document) -> Document:
    (only,) = pod(workload)["containers"]
    assert isinstance(only, dict)
    return only


def selects(selector: Document, labels: dict[str, str]) -> bool:
    """As Kubernetes reads a selector, as far as ours go."""
    assert selector.keys() <= {"matchLabels", "matchExpressions"}
    assert all(term["operator"] == "In" for term in selector.get("matchExpressions", ()))
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(term["key"]) in term["values"] for term in selector.get("matchExpressions", ())
    )


def labels(workload: Document) -> dict[str, str]:
    found: dict[str, str] = workload["spec"]["template"]["metadata"]["labels"]
    return found


def mapped(documents: list[Document], name: str) -> dict[str, str]:
    (data,) = (one["data"] for one in of(documents, "ConfigMap") if one["metadata"]["name"] == name)
    assert isinstance(data, dict)
    return data


def variables_of(documents: list[Document], workload: Document) -> dict[str, str]:
    """What a container is given; the value of a secret is its name."""
    only = container(workload)
    given: dict[str, str] = {}
    for source in only.get("envFrom", ()):
        given |= mapped(documents, source["configMapRef"]["name"])
    for one in only["env"]:
        if "value" in one:
            given[one["name"]] = one["value"]
        elif "configMapKeyRef" in one["valueFrom"]:
            reference = one["valueFrom"]["configMapKeyRef"]
            given[one["name"]] = mapped(documents, reference["name"])[reference["key"]]
        else:
            given[one["name"]] = one["valueFrom"]["secretKeyRef"]["name"]
    return given


def known(model: type[BaseSettings]) -> set[str]:
    return {variable.name for variable in list_variables(model)}


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_manifest_has_the_shape_that_kubernetes_wants(overlay: str) -> None:
    held = 0
    for document in built(overlay):
        if document["apiVersion"] not in CUSTOM:
            kubernetes_validate.validate(document, "1.37", strict=True)
            held += 1
    assert held > 20


def test_what_is_made_from_elsewhere_is_up_to_date() -> None:
    for path, text in generate.manifests().items():
        assert path.read_text() == text, f"{path} is old: run .venv/bin/python deploy/kubernetes/generate.py"


@pytest.mark.parametrize(
    ("overlay", "wanted"),
    [("small", TopicsSettings()), ("production", TopicsSettings(partitions=12, replication_factor=3))],
)
def test_the_topics_are_those_that_the_command_makes(overlay: str, wanted: TopicsSettings) -> None:
    made = {
        one["metadata"]["name"]: topics.TopicSpec(
            one["spec"]["partitions"],
            one["spec"]["replicas"],
            {key: str(value) for key, value in one["spec"]["config"].items()},
        )
        for one in of(built(overlay), "KafkaTopic")
    }
    assert made == topics.topic_specs(wanted)


@pytest.mark.parametrize("overlay", OVERLAYS)
@pytest.mark.parametrize("service", SETTINGS)
def test_each_variable_is_a_setting_and_each_setting_that_is_needed_is_given(
    overlay: str, service: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    documents = built(overlay)
    workload = workloads(documents)[service]
    given = {name: value for name, value in variables_of(documents, workload).items() if name.startswith(PREFIX)}
    own = {one["name"] for one in container(workload)["env"] if one["name"].startswith(PREFIX)}
    assert own <= known(SETTINGS[service])
    assert given.keys() <= set().union(*map(known, SETTINGS.values()))

    for variable in os.environ.keys() & set().union(*map(known, SETTINGS.values())):
        monkeypatch.delenv(variable)
    there = tmp_path / "file"
    there.touch()
    for name, value in given.items():
        monkeypatch.setenv(name, str(there) if value in files(workload) else value)
    SETTINGS[service]()


def files(workload: Document) -> set[str]:
    """The files that are mounted from secrets."""
    volumes = {one["name"]: one for one in pod(workload)["volumes"]}
    return {
        f"{mount['mountPath']}/{item['path']}"
        for mount in container(workload)["volumeMounts"]
        for source in volumes.get(mount["name"], {}).get("projected", {}).get("sources", ())
        for item in source["secret"]["items"]
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_what_refers_to_something_finds_it(overlay: str) -> None:
    documents = built(overlay)
    running = workloads(documents)
    for service in of(documents, "Service"):
        (target,) = (
            one for one in running.values() if selects({"matchLabels": service["spec"]["selector"]}, labels(one))
        )
        ports = {port["name"]: port["containerPort"] for port in container(target)["ports"]}
        assert all(ports[port["targetPort"]] == port["port"] for port in service["spec"]["ports"])
    for budget in of(documents, "PodDisruptionBudget"):
        assert [one for one in running.values() if selects(budget["spec"]["selector"], labels(one))]
    for scaler in of(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        target = running[scaler["spec"]["scaleTargetRef"]["name"]]
        assert target["kind"] == scaler["spec"]["scaleTargetRef"]["kind"]
        assert "replicas" not in target["spec"], "two would decide how many there are"
    accounts = {one["metadata"]["name"] for one in of(documents, "ServiceAccount")}
    claims = {one["metadata"]["name"] for one in of(documents, "PersistentVolumeClaim")}
    for workload in running.values():
        assert pod(workload)["serviceAccountName"] in accounts
        mounted = {mount["name"] for mount in container(workload)["volumeMounts"]}
        own = {one["metadata"]["name"] for one in workload["spec"].get("volumeClaimTemplates", ())}
        assert mounted == own | {volume["name"] for volume in pod(workload)["volumes"]}
        assert {
            one["persistentVolumeClaim"]["claimName"]
            for one in pod(workload)["volumes"]
            if "persistentVolumeClaim" in one
        } <= claims
    (monitor,) = of(documents, "ServiceMonitor")
    watched = [
        one
        for one in of(documents, "Service")
        if selects(monitor["spec"]["selector"], one["metadata"].get("labels", {}))
    ]
    assert {one["metadata"]["name"] for one in watched} == set(SETTINGS)
    assert all(endpoint["port"] == "http" for endpoint in monitor["spec"]["endpoints"])


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_secrets_are_named_and_none_is_in_the_files(overlay: str) -> None:
    documents = built(overlay)
    assert not [one for one in documents if one["kind"] == "Secret"]
    users = {one["metadata"]["name"] for one in of(documents, "KafkaUser")}
    names = set(chain.from_iterable(map(secrets, documents)))
    assert names == users | {OF_STRIMZI, BY_HAND}


def secrets(value: Any) -> Iterator[str]:
    """The names that a manifest refers to."""
    if isinstance(value, dict):
        for key, inner in value.items():
            if key in ("secret", "secretKeyRef"):
                yield inner["name"]
            elif key == "secretTargetRef":
                yield from (one["name"] for one in inner)
            else:
                yield from secrets(inner)
    elif isinstance(value, list):
        yield from chain.from_iterable(map(secrets, value))


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_nobody_is_root_and_nothing_is_written_but_on_volumes(overlay: str) -> None:
    for workload in workloads(built(overlay)).values():
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
def test_a_request_finds_a_predictor_while_one_is_replaced(overlay: str) -> None:
    documents = built(overlay)
    predictor = workloads(documents)["predictor"]
    (scaler,) = of(documents, "HorizontalPodAutoscaler")
    (budget,) = (one for one in of(documents, "PodDisruptionBudget") if one["metadata"]["name"] == "predictor")
    assert scaler["spec"]["minReplicas"] > budget["spec"]["maxUnavailable"]
    only = container(predictor)
    assert (only["readinessProbe"]["httpGet"]["path"], only["livenessProbe"]["httpGet"]["path"]) == (
        "/readyz",
        "/healthz",
    )
    open_requests = 10  # seconds: timeout_graceful_shutdown of predictor.main
    to_end = only["lifecycle"]["preStop"]["sleep"]["seconds"] + open_requests + STOP_SECONDS
    assert pod(predictor)["terminationGracePeriodSeconds"] > to_end
    (volume,) = predictor["spec"]["volumeClaimTemplates"]
    folder = variables_of(documents, predictor)["DRIFTLOOP_PREDICTOR__DATA_DIR"]
    assert {"name": volume["metadata"]["name"], "mountPath": folder} in only["volumeMounts"]
    assert predictor["spec"]["persistentVolumeClaimRetentionPolicy"] == {
        "whenScaled": "Retain",
        "whenDeleted": "Retain",
    }


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_drift_workers_scale_by_what_is_behind_and_not_by_open_windows(overlay: str) -> None:
    documents = built(overlay)
    (scaled,) = of(documents, "ScaledObject")
    (trigger,) = scaled["spec"]["triggers"]
    names = TopicsSettings()
    partitions = {one["metadata"]["name"]: one["spec"]["partitions"] for one in of(documents, "KafkaTopic")}
    settings = DriftWorkerSettings()
    opened = settings.window.rows * (partitions[names.predictions] + partitions[names.outcomes])
    assert int(trigger["metadata"]["lagThreshold"]) > opened
    assert trigger["metadata"]["consumerGroup"] == settings.drift_worker.group
    assert scaled["spec"]["maxReplicaCount"] == partitions[names.predictions]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_policies_are_about_all_pods_and_let_each_reach_what_its_settings_name(overlay: str) -> None:
    documents = built(overlay)
    running = workloads(documents)
    policies = {one["metadata"]["name"]: one["spec"] for one in of(documents, "NetworkPolicy")}
    assert all(selects(policies["nothing"]["podSelector"], labels(one)) for one in running.values())
    assert set(policies["nothing"]["policyTypes"]) == {"Ingress", "Egress"}
    assert not policies["nothing"].keys() & {"ingress", "egress"}
    for name in SETTINGS:
        address = variables_of(documents, running[name])["DRIFTLOOP_KAFKA__BOOTSTRAP_SERVERS"]
        assert address.endswith(f":{policies['kafka']['egress'][0]['ports'][0]['port']}")
        assert selects(policies["kafka"]["podSelector"], labels(running[name]))
        assert selects(policies["metrics"]["podSelector"], labels(running[name]))
    registry = policies["registry"]["egress"][0]
    assert selects(registry["to"][0]["podSelector"], labels(running["mlflow"]))
    (listener,) = of(documents, "Kafka")[0]["spec"]["kafka"]["listeners"]
    assert listener["port"] == policies["kafka"]["egress"][0]["ports"][0]["port"]
    (peers, _) = listener["networkPolicyPeers"]
    assert all(selects(peers["podSelector"], labels(running[name])) for name in SETTINGS)
    hosts = variables_of(documents, running["mlflow"])["MLFLOW_SERVER_ALLOWED_HOSTS"].split(",")
    assert variables_of(documents, running["predictor"])["DRIFTLOOP_REGISTRY__URI"].removeprefix("http://") in hosts


def test_the_base_names_what_it_is_made_of() -> None:
    folder = ROOT / "deploy" / "kubernetes" / "base"
    named = yaml.safe_load((folder / "kustomization.yaml").read_text())["resources"]
    assert sorted(named) == sorted(path.name for path in folder.glob("*.yaml") if path.name != "kustomization.yaml")
