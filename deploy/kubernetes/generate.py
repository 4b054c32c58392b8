"""Writes the manifests whose content stands elsewhere: alert rules, and topics.

    .venv/bin/python deploy/kubernetes/generate.py

The rules are those of compose/prometheus/alerts.yaml, the topics those that ``driftloop topics create`` makes with
default settings. Overlays set what a cluster has more of.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from driftloop.kafka import topics
from driftloop.settings import TopicsSettings

ROOT = Path(__file__).parents[2]
BASE = Path(__file__).parent / "base"
NOTICE = "# Made by deploy/kubernetes/generate.py.\n"


def manifests() -> dict[Path, str]:
    """The files' texts."""
    return {BASE / "alerts.yaml": _text([alerts()]), BASE / "topics.yaml": _text(kafka_topics())}


def alerts() -> dict[str, Any]:
    """The alert rules as Prometheus' operator wants them."""
    rules = yaml.safe_load((ROOT / "compose" / "prometheus" / "alerts.yaml").read_text())
    return {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "driftloop"},
        "spec": rules,
    }


def kafka_topics() -> list[dict[str, Any]]:
    """The topics as Strimzi wants them; those with many events are labelled, for overlays to find."""
    names = TopicsSettings()
    return [
        {
            "apiVersion": "kafka.strimzi.io/v1",
            "kind": "KafkaTopic",
            "metadata": {
                "name": name,
                "labels": {
                    "strimzi.io/cluster": "driftloop",
                    **({"driftloop/busy": "true"} if name in (names.predictions, names.outcomes) else {}),
                },
            },
            "spec": {
                "partitions": shape.partitions,
                "replicas": shape.replication_factor,
                "config": {
                    key: int(value) if value.lstrip("-").isdigit() else value for key, value in shape.configs.items()
                },
            },
        }
        for name, shape in topics.topic_specs(names).items()
    ]


def _text(documents: Iterable[dict[str, Any]]) -> str:
    return NOTICE + yaml.safe_dump_all(documents, sort_keys=False, width=120)


if __name__ == "__main__":
    for path, text in manifests().items():
        path.write_text(text)
