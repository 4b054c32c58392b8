"""The retrain workflow, run by act on this machine against the stack, and what people then read in the job's summary.

act knows no environments, concurrency or timeouts, and takes a choice as it comes: actionlint and zizmor look at these.
"""

import json
import os
import re
import subprocess
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import pytest

from driftloop.events import DataSelection, ModelStateChanged, RetrainRequested
from driftloop.kafka import reader
from driftloop.storage import dvc
from stack.running import Stack
from tests.e2e.test_loop import FEW_DAYS, SUMMER
from tests.support.external_tools import ROOT, needed
from tests.support.running_stack import run_command

RETRAIN = ".github/workflows/retrain.yaml"
LOGIN = re.compile(r"google-github-actions/auth@\w+")
"""An action that is left out here, and that act wants to have all the same."""


class Ran(NamedTuple):
    """A workflow that has run."""

    code: int
    log: str

    @property
    def summary(self) -> str:
        """The job's summary, without the marks of format that keep other people's words plain."""
        (found,) = re.findall(r"Summary - (.*?)\n(?=\[|\Z)", self.log, re.DOTALL)
        return re.sub(r"\\([\[\]_()])", r"\1", found)

    def row(self, name: str) -> str:
        """What its table says of something."""
        (found,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", self.summary, re.MULTILINE)
        return str(found)


@pytest.fixture(scope="module")
def act() -> Path:
    """The command."""
    return Path(needed("act"))


@pytest.fixture(scope="module")
def champion(stack: Stack, version_1: str) -> Iterator[None]:
    """Version 1 is in service at first, so that it is known how retrains end, and at last the one that was before."""
    before = stack.registry.champion()
    stack.registry.promote(version_1)
    yield
    stack.registry.promote(str(before))


def run(act: Path, stack: Stack, folder: Path, inputs: Mapping[str, str], secrets: Mapping[str, str] = {}) -> Ran:
    """Runs it as a person would by hand."""
    keys = {
        "DRIFTLOOP_TRAINER_URL": stack.components["trainer"].url,
        "DRIFTLOOP_TRAINER_API_KEY": stack.environment["DRIFTLOOP_TRAINER__API_KEY"],
        **secrets,
    }
    (folder / "secrets").write_text("".join(f"{name}={value}\n" for name, value in keys.items()))
    login = folder / "login"
    login.mkdir()
    (login / "action.yaml").write_text("{name: nothing, description: nothing, runs: {using: composite, steps: []}}")
    (used,) = LOGIN.findall((ROOT / RETRAIN).read_text())
    words = [str(act), "workflow_dispatch", "-W", RETRAIN, "-P", "ubuntu-latest=-self-hosted", "--actor", "octocat"]
    words += ["--secret-file", str(folder / "secrets"), "--var", "DRIFTLOOP_MLFLOW_URL=https://mlflow.example"]
    words += ["--local-repository", f"{used}={login}"]
    for name, value in inputs.items():
        words += ["--input", f"{name}={value}"]
    here = {**os.environ, "PATH": f"{ROOT / '.uv' / 'bin'}:{os.environ['PATH']}"}  # the uv that is here already
    done = subprocess.run(words, cwd=ROOT, env=here, capture_output=True, text=True, check=False, timeout=240)
    assert keys["DRIFTLOOP_TRAINER_API_KEY"] not in done.stdout + done.stderr
    return Ran(done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))


def inputs(data: DataSelection) -> dict[str, str]:
    """The workflow's inputs for some days of the base dataset."""
    return {"from": str(data.start), "to": str(data.base_end), "archive": "false"}


def asked(stack: Stack) -> list[RetrainRequested]:
    """All retrains that were asked for."""
    return [
        event
        for event in reader.read_last(stack.kafka, stack.topics.retrain, 1_000)
        if isinstance(event, RetrainRequested)
    ]


def end(stack: Stack, ran: Ran) -> ModelStateChanged:
    """The last state of the retrain that a summary is about."""
    retrain_id = ran.row("retrain").strip("`")
    states = [e for e in reader.read_last(stack.kafka, stack.topics.models, 1_000) if isinstance(e, ModelStateChanged)]
    return [change for change in states if change.retrain_id == retrain_id][-1]


def test_what_workflows_read_is_what_the_page_says_to_set() -> None:
    read = {
        (kind, name)
        for file in (ROOT / ".github" / "workflows").glob("*.yaml")
        for kind, name in re.findall(r"\b(vars|secrets)\.([A-Z_]+)", file.read_text())
    }
    page = (ROOT / "docs" / "workflows.md").read_text()
    secrets, variables = page.split("| secret |")[1].split("\n\n")[0], page.split("| variable |")[1].split("\n\n")[0]
    said = {
        (kind, name)
        for kind, table in (("secrets", secrets), ("vars", variables))
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([A-Z_]{5,})`", row.split("|")[1])
    }
    assert read == said


@pytest.mark.usefixtures("champion")
def test_a_version_that_is_rejected_is_a_warning_and_no_failure(act: Path, stack: Stack, tmp_path: Path) -> None:
    champion = stack.registry.champion()
    ran = run(act, stack, tmp_path, {"reason": "a few days only", "wait": "true", **inputs(FEW_DAYS)})
    assert ran.code == 0, ran.log
    change = end(stack, ran)
    assert (change.state, stack.registry.champion()) == ("rejected", champion)
    assert ran.summary.startswith(f"## ⚠️ flights: rejected, version {change.version}\n\n{change.explanation}\n")
    assert "::warning title=⚠️ flights%3A rejected" in ran.log
    assert ran.row("rows") == "{0:,.0f} | {0:,.0f}".format(change.champion["rows"])


@pytest.mark.usefixtures("champion")
def test_training_once_needs_no_service(stack: Stack, tmp_path: Path) -> None:
    """The same end as the service would have come to; there is one way to train."""
    wish = {"reason": "few days", "requested_by": "a runner", "data": FEW_DAYS.model_dump(mode="json")}
    champion, page = stack.registry.champion(), tmp_path / "page.md"
    done = run_command(
        stack,
        "driftloop-train",
        *("--request", json.dumps(wish), "--github-annotations", "--summary", str(page), "--publish-state"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::warning title=⚠️ flights%3A rejected" in done.stdout
    result = reader.read_last(stack.kafka, stack.topics.models, 1)[-1]
    assert isinstance(result, ModelStateChanged)
    assert (result.state, stack.registry.champion()) == ("rejected", champion)
    assert f"| dataset (MD5) | `{result.dataset_md5}` |" in page.read_text()
    recorded = stack.registry.recorded_result(result.retrain_id)
    assert recorded is not None
    apart = {"traceparent"}  # who sends it has a span of his own
    assert recorded.model_dump(exclude=apart) == result.model_dump(exclude=apart)


@pytest.mark.usefixtures("champion")
def test_a_retrain_that_fails_fails_the_job(act: Path, stack: Stack, tmp_path: Path) -> None:
    days = {"from": "2014-06-01", "archive": "false"}
    ran = run(act, stack, tmp_path, {"reason": "nothing there", "wait": "true", **days})
    assert ran.code == 1
    assert ran.summary.startswith(
        "## ❌ flights: failed\n\nInvalidTrainingData: labelled rows: 0 of 0, and 1,000 are needed"
    )
    assert "::error title=❌ flights%3A failed::InvalidTrainingData" in ran.log
    assert "exit status 4" in ran.log


@pytest.mark.usefixtures("champion")
def test_a_wrong_key_asks_for_nothing(act: Path, stack: Stack, tmp_path: Path) -> None:
    before = asked(stack)
    key = {"DRIFTLOOP_TRAINER_API_KEY": "somebody else's key"}
    ran = run(act, stack, tmp_path, {"reason": "none of mine", "wait": "true"}, key)
    assert ran.code == 1
    assert ran.summary.startswith("## not requested\n")
    assert "X-API-Key is missing or wrong (HTTP 401)" in ran.summary
    assert "exit status 7" in ran.log
    assert asked(stack) == before


@pytest.mark.usefixtures("champion")
def test_a_dry_run_asks_for_nothing(act: Path, stack: Stack, tmp_path: Path) -> None:
    before = asked(stack)
    ran = run(act, stack, tmp_path, {"reason": "to see", "dry_run": "true", "last_rows": "5000"})
    assert ran.code == 0, ran.log
    assert "a retrain of flights would be requested" in ran.summary
    assert ran.row("data") == "the last 5,000 labelled rows"
    assert '"last_rows": 5000' in ran.log
    assert asked(stack) == before


@pytest.mark.usefixtures("champion")
def test_promotion_is_reported_with_its_metrics(act: Path, stack: Stack, tmp_path: Path) -> None:
    ran = run(act, stack, tmp_path, {"reason": "it is | summer", "wait": "true", **inputs(SUMMER)})
    assert ran.code == 0, ran.log
    change = end(stack, ran)
    assert (change.state, change.version) == ("promoted", stack.registry.champion())
    assert ran.summary.startswith(f"## ✅ flights: promoted, version {change.version}\n\n{change.explanation}\n")
    assert f"::notice title=✅ flights%3A promoted, version {change.version}" in ran.log.replace("%2C", ",")
    assert ran.row("reason") == r"it is \| summer"
    assert ran.row("requested by") == "octocat, run 1 of GitHub"
    assert ran.row("data") == "from 2013-06-01, base dataset until before 2013-08-01, without the archive"
    pointer = dvc.pointer_for_version(stack.registry, str(change.version))
    assert ran.row("dataset (MD5)") == f"`{dvc.parse_pointer(pointer).md5}`"
    assert ran.row("see") == (
        f"[the version in MLflow](https://mlflow.example/#/models/flights/versions/{change.version})"
    )
    old, new = change.champion["roc_auc"], change.challenger["roc_auc"]
    assert ran.row("ROC AUC") == f"{old:.4g} | {new:.4g}"
    assert asked(stack)[-1].requested_by == "octocat, run 1 of GitHub"


def test_training_once_says_what_is_away(stack: Stack) -> None:
    wish = json.dumps({"reason": "nobody there", "data": {"archive": False}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stack.environment, "DRIFTLOOP_REGISTRY__URI", "http://127.0.0.1:9")
        done = run_command(stack, "driftloop-train", "--request", wish)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "the registry is unavailable" in done.stdout
