"""Prometheus, if it is installed, with the jobs and rules of compose on this machine's ports."""

import shutil
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import yaml

from stack.component import Component

CONFIG_DIR = Path(__file__).parent.parent / "compose" / "prometheus"
SCRAPE_SECONDS = 5  # scrape interval: a demo takes minutes
NOT_INSTALLED = "not on this machine: install Debian's package prometheus"


def find_binary() -> str | None:
    """Return the path of the installed Prometheus, if there is one."""
    return shutil.which("prometheus")


def prometheus_component(binary: str, folder: Path, port: int, services: Iterable[Component]) -> Component:
    """Describe a Prometheus with its data in ``folder`` that scrapes the services."""
    scraped = list(services)

    def prepare() -> None:
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "prometheus.yaml").write_text(yaml.safe_dump(local_config(scraped), sort_keys=False))

    return Component(
        name="Prometheus",
        command=[
            *(binary, "--config.file", str(folder / "prometheus.yaml"), "--storage.tsdb.path", str(folder / "data")),
            *("--web.listen-address", f"127.0.0.1:{port}", "--log.level", "warn"),
            *("--web.console.templates", str(CONFIG_DIR / "consoles")),
            *("--web.console.libraries", str(CONFIG_DIR / "consoles")),
        ],
        port=port,
        port_setting="DRIFTLOOP_STACK__PROMETHEUS_PORT",
        ready_path="/-/ready",
        prepare=prepare,
    )


def local_config(services: Iterable[Component]) -> dict[str, Any]:
    """Return the configuration of compose with this machine's addresses and without an Alertmanager."""
    configured: dict[str, Any] = yaml.safe_load((CONFIG_DIR / "prometheus.yaml").read_text())
    del configured["alerting"]
    every = f"{SCRAPE_SECONDS}s"
    configured["global"] |= {"scrape_interval": every, "scrape_timeout": every, "evaluation_interval": every}
    configured["rule_files"] = [str(CONFIG_DIR / name) for name in configured["rule_files"]]
    addresses: dict[str, list[str]] = {}
    for service in services:
        if service.job is not None:
            addresses.setdefault(service.job, []).append(f"127.0.0.1:{service.port}")
    for job in configured["scrape_configs"]:
        job["static_configs"] = [{"targets": addresses[job["job_name"]]}]
    return configured
