"""The files for Google Cloud, as far as they can be read without OpenTofu and without Google's provider."""

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

from tests.support.external_tools import ROOT, run

FOLDER = ROOT / "deploy" / "gcp"
FILES = sorted(FOLDER.glob("*.tf"))


@cache
def blocks() -> list[tuple[str, tuple[str, ...], dict[str, Any]]]:
    """Each block of all files: its type, its labels, its body."""
    return [
        (kind, labels, body)
        for path in FILES
        for kind, bodies in hcl2.loads(path.read_text()).items()
        if isinstance(bodies, list)
        for labels, body in map(labelled, bodies)
    ]


def labelled(block: dict[str, Any]) -> tuple[tuple[str, ...], dict[str, Any]]:
    names: list[str] = []
    while len(block) == 1 and isinstance(inner := next(iter(block.values())), dict) and next(iter(block))[:1] == '"':
        names.append(next(iter(block)).strip('"'))
        block = inner
    return tuple(names), block


def declared() -> set[str]:
    """What expressions may refer to."""
    found: set[str] = set()
    for kind, labels, body in blocks():
        match kind:
            case "variable":
                found.add(f"var.{labels[0]}")
            case "locals":
                found |= {f"local.{name}" for name in body if not name.startswith("__")}
            case "resource":
                found.add(".".join(labels))
    return found


def referred() -> Iterator[str]:
    """What expressions refer to."""
    for text in chain.from_iterable(texts(body) for kind, _, body in blocks() if kind != "terraform"):
        yield from re.findall(r"(?<![\w.\"/-])((?:var|local|google_\w+)\.\w+)", text)


def texts(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        yield value
    elif isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from texts(inner)
    elif isinstance(value, list):
        yield from chain.from_iterable(map(texts, value))


def test_the_files_are_formatted() -> None:
    for path in FILES:
        assert run("hclfmt", str(path)) == path.read_text(), f"{path.name} is not formatted: run hclfmt -w"


def test_what_is_referred_to_is_declared_and_what_is_declared_is_used() -> None:
    used = set(referred())
    assert used <= declared()
    assert {name for name in declared() if not name.startswith("google_")} <= used


def test_no_key_is_made_and_nothing_listens_on_the_internet() -> None:
    kinds = {labels[0] for kind, labels, _ in blocks() if kind == "resource"}
    assert "google_service_account_key" not in kinds
    assert "google_compute_firewall" in kinds
    for kind, labels, body in blocks():
        if kind == "resource" and labels[0] == "google_compute_firewall":
            assert "0.0.0.0/0" not in json.dumps(body)
            assert "target_service_accounts" in body
        if kind == "resource" and labels[0] == "google_compute_instance":
            (interface,) = body["network_interface"]
            assert "access_config" not in interface, "an address on the internet"


def test_every_folder_of_the_bucket_has_who_writes_it_and_nobody_writes_all() -> None:
    (folders,) = (body["folders"] for kind, _, body in blocks() if kind == "locals" and "folders" in body)
    writes = {
        (one["account"].strip('"'), one["folder"].strip('"')) for one in folders if one["role"].endswith('objectUser"')
    }
    layout = (ROOT / "driftloop" / "storage" / "bucket.py").read_text().split('"""')[1]
    wanted = set(re.findall(r"^(\w+/)", layout, re.MULTILINE))
    assert wanted == {folder for _, folder in writes}
    bindings = [
        body for kind, labels, body in blocks() if kind == "resource" and labels[0].endswith("bucket_iam_member")
    ]
    assert bindings
    for body in bindings:
        assert "condition" in body or body["role"] == '"roles/storage.legacyBucketReader"'


def test_the_startup_script_is_read_by_its_shell() -> None:
    done = subprocess.run(
        ["/bin/bash", "-n", str(Path(FOLDER, "startup.sh"))], capture_output=True, text=True, check=False, timeout=10
    )
    assert done.returncode == 0, done.stderr


def test_the_machines_take_from_one_another_what_compose_publishes() -> None:
    (takes,) = (body for kind, _, body in blocks() if kind == "locals" and "takes" in body)
    ports = {
        machine: {port.strip('"') for port in taken["ports"]}
        for machine, taken in takes["takes"].items()
        if not machine.startswith("__")
    }
    assert ports == {
        "serving": published("serving.yaml", "SERVING_ADDRESS"),
        "monitoring": published("training.yaml", "TRAINING_ADDRESS"),
    }
    asked = published("serving.yaml", "PREDICTOR_ADDRESS")
    assert asked
    assert asked <= {port.strip('"') for port in takes["predictions"]}


def published(file: str, address: str) -> set[str]:
    """The ports that a compose file opens on an address."""
    services = yaml.safe_load((ROOT / "compose" / file).read_text())["services"]
    ports = chain.from_iterable(service.get("ports", ()) for service in services.values())
    return {match[1] for port in ports if address in port and (match := re.search(r"(\d+)\}?$", port))}
