"""The Terraform files for Google Cloud, checked without OpenTofu and without Google's provider."""

import json
import re
import subprocess
from collections.abc import Iterator
from functools import cache
from itertools import chain
from pathlib import Path
from typing import Any

import hcl2
import yaml

from tests.support.external_tools import ROOT, run_tool

FOLDER = ROOT / "deploy" / "gcp"
FILES = sorted(FOLDER.glob("*.tf"))


@cache
def blocks() -> list[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Return type, labels and body of each block of all files."""
    return [
        (kind, labels, body)
        for path in FILES
        for kind, bodies in hcl2.loads(path.read_text()).items()
        if isinstance(bodies, list)
        for labels, body in map(split_labels, bodies)
    ]


def split_labels(block: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """Return labels and body of a parsed block, in which each label is a level of nesting."""
    labels: list[str] = []
    while len(block) == 1 and isinstance(child := next(iter(block.values())), dict) and next(iter(block))[:1] == '"':
        labels.append(next(iter(block)).strip('"'))
        block = child
    return tuple(labels), block


def declared_names() -> set[str]:
    """Return the names that expressions may refer to."""
    names: set[str] = set()
    for kind, labels, body in blocks():
        match kind:
            case "variable":
                names.add(f"var.{labels[0]}")
            case "locals":
                names |= {f"local.{name}" for name in body if not name.startswith("__")}
            case "resource":
                names.add(".".join(labels))
    return names


def referenced_names() -> Iterator[str]:
    """Yield the names that expressions refer to."""
    for text in chain.from_iterable(strings(body) for kind, _, body in blocks() if kind != "terraform"):
        yield from re.findall(r"(?<![\w.\"/-])((?:var|local|google_\w+)\.\w+)", text)


def strings(value: Any) -> Iterator[str]:
    """Yield all strings in a parsed body, keys included."""
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, child in value.items():
            yield key
            yield from strings(child)
    elif isinstance(value, list):
        yield from chain.from_iterable(map(strings, value))


def test_terraform_files_are_formatted() -> None:
    for path in FILES:
        assert run_tool("hclfmt", str(path)) == path.read_text(), f"{path.name} is not formatted: run hclfmt -w"


def test_references_are_declared_and_declarations_are_used() -> None:
    references = set(referenced_names())
    assert references <= declared_names()
    assert {name for name in declared_names() if not name.startswith("google_")} <= references


def test_no_service_account_key_and_no_public_address_or_port() -> None:
    resource_types = {labels[0] for kind, labels, _ in blocks() if kind == "resource"}
    assert "google_service_account_key" not in resource_types
    assert "google_compute_firewall" in resource_types
    for kind, labels, body in blocks():
        if kind == "resource" and labels[0] == "google_compute_firewall":
            assert "0.0.0.0/0" not in json.dumps(body)
            assert "target_service_accounts" in body
        if kind == "resource" and labels[0] == "google_compute_instance":
            (interface,) = body["network_interface"]
            assert "access_config" not in interface, "a public address"


def test_each_bucket_folder_has_a_writer_and_no_account_may_write_all() -> None:
    (folders,) = (body["folders"] for kind, _, body in blocks() if kind == "locals" and "folders" in body)
    write_grants = {
        (grant["account"].strip('"'), grant["folder"].strip('"'))
        for grant in folders
        if grant["role"].endswith('objectUser"')
    }
    layout = (ROOT / "driftloop" / "storage" / "object_store.py").read_text().split('"""')[1]
    documented_folders = set(re.findall(r"^(\w+/)", layout, re.MULTILINE))
    assert documented_folders == {folder for _, folder in write_grants}
    bindings = [
        body for kind, labels, body in blocks() if kind == "resource" and labels[0].endswith("bucket_iam_member")
    ]
    assert bindings
    for body in bindings:
        assert "condition" in body or body["role"] == '"roles/storage.legacyBucketReader"'


def test_startup_script_is_valid_bash() -> None:
    done = subprocess.run(
        ["/bin/bash", "-n", str(Path(FOLDER, "startup.sh"))], capture_output=True, text=True, check=False, timeout=10
    )
    assert done.returncode == 0, done.stderr


def test_firewall_opens_exactly_the_ports_that_compose_publishes() -> None:
    (firewall,) = (body for kind, _, body in blocks() if kind == "locals" and "takes" in body)
    ports = {
        machine: {port.strip('"') for port in rule["ports"]}
        for machine, rule in firewall["takes"].items()
        if not machine.startswith("__")
    }
    assert ports == {
        "serving": published_ports("serving.yaml", "SERVING_ADDRESS"),
        "monitoring": published_ports("training.yaml", "TRAINING_ADDRESS"),
    }
    predictor_ports = published_ports("serving.yaml", "PREDICTOR_ADDRESS")
    assert predictor_ports
    assert predictor_ports <= {port.strip('"') for port in firewall["predictions"]}


def published_ports(file: str, address: str) -> set[str]:
    """Return the ports that a compose file publishes on an address."""
    services = yaml.safe_load((ROOT / "compose" / file).read_text())["services"]
    ports = chain.from_iterable(service.get("ports", ()) for service in services.values())
    return {match[1] for port in ports if address in port and (match := re.search(r"(\d+)\}?$", port))}
