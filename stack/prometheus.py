"""A real Prometheus where the machine has one: the jobs and rules of compose, on this machine's ports."""

import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from stack.part import Part

CONFIGURED = Path(__file__).parent.parent / "compose" / "prometheus"
SECONDS = 5  # between two looks: a demo takes minutes
MISSING = "not on this machine: install Debian's package prometheus"


def installed() -> str | None:
    """Where it is."""
    return shutil.which("prometheus")


def part(binary: str, folder: Path, port: int, services: Mapping[str, Part]) -> Part:
    """Prometheus with its data below ``folder``, which scrapes ``services`` by their names."""

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(here(services), sort_keys=False))

    return Part(
        name="Prometheus",
        command=[
            *(binary, "--config.file", str(folder / "prometheus.yaml"), "--storage.tsdb.path", str(folder / "data")),
            *("--web.listen-address", f"127.0.0.1:{port}", "--log.level", "warn"),
            *("--web.console.templates", str(CONFIGURED / "consoles")),
            *("--web.console.libraries", str(CONFIGURED / "consoles")),
        ],
        port=port,
        port_setting="DRIFTLOOP_STACK__PROMETHEUS_PORT",
        ready_path="/-/ready",
        prepare=prepare,
    )


def here(services: Mapping[str, Part]) -> dict[str, Any]:
    """The configuration of compose with the addresses of this machine, which has nobody to send alerts to."""
    configured: dict[str, Any] = yaml.safe_load((CONFIGURED / "prometheus.yaml").read_text())
    del configured["alerting"]
    every = f"{SECONDS}s"
    configured["global"] |= {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    configured["rule_files"] = [str(CONFIGURED / name) for name in configured["rule_files"]]
    for job in configured["scrape_configs"]:
        job["static_configs"] = [{"targets": [f"127.0.0.1:{services[job['job_name']].port}"]}]
    return configured
