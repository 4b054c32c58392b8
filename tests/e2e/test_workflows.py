"""The retrain workflow, run by act on this machine against the stack: exit code, annotations and the job's summary.

act ignores environments, concurrency and timeouts, and does not validate choices; actionlint and zizmor check these.
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
from tests.support.external_tools import ROOT, require_tool
from tests.support.running_stack import run_command

RETRAIN_WORKFLOW = ".github/workflows/retrain.yaml"
LOGIN_ACTION = re.compile(r"google-github-actions/auth@\w+")
"""The login action. It has no function here and is replaced by an empty one, because act needs every action."""


class WorkflowRun(NamedTuple):
    """Exit code and log of a workflow run."""

    code: int
    log: str

    @property
    def summary(self) -> str:
        """The job's summary, without the backslashes that escape Markdown in texts of users."""
        (text,) = re.findall(r"Summary - (.*?)\n(?=\[|\Z)", self.log, re.DOTALL)
        return re.sub(r"\\([\[\]_()])", r"\1", text)

    def row(self, name: str) -> str:
        """Return the value in the row ``name`` of the summary's table."""
        (text,) = re.findall(rf"^\| {re.escape(name)} \| (.*) \|$", self.summary, re.MULTILINE)
        return str(text)


@pytest.fixture(scope="module")
def act() -> Path:
    """Return the path of act."""
    return Path(require_tool("act"))


@pytest.fixture(scope="module")
def champion(stack: Stack, version_1: str) -> Iterator[None]:
    """Let version 1 serve in this module, so that the results of retrains are known; promote the old one afterwards."""
    initial = stack.registry.champion()
    stack.registry.promote(version_1)
    yield
    stack.registry.promote(str(initial))


def run_workflow(
    act: Path, stack: Stack, folder: Path, inputs: Mapping[str, str], secrets: Mapping[str, str] = {}
) -> WorkflowRun:
    """Run the workflow with these inputs, as a manual start does."""
    secret_values = {
        "DRIFTLOOP_TRAINER_URL": stack.components["trainer"].url,
        "DRIFTLOOP_TRAINER_API_KEY": stack.environment["DRIFTLOOP_TRAINER__API_KEY"],
        **secrets,
    }
    (folder / "secrets").write_text("".join(f"{name}={value}\n" for name, value in secret_values.items()))
    stub_action = folder / "login"
    stub_action.mkdir()
    (stub_action / "action.yaml").write_text(
        "{name: nothing, description: nothing, runs: {using: composite, steps: []}}"
    )
    (action_reference,) = LOGIN_ACTION.findall((ROOT / RETRAIN_WORKFLOW).read_text())
    command = [str(act), "workflow_dispatch", "-W", RETRAIN_WORKFLOW, "-P", "ubuntu-latest=-self-hosted"]
    command += ["--actor", "octocat"]
    command += ["--secret-file", str(folder / "secrets"), "--var", "DRIFTLOOP_MLFLOW_URL=https://mlflow.example"]
    command += ["--local-repository", f"{action_reference}={stub_action}"]
    for name, value in inputs.items():
        command += ["--input", f"{name}={value}"]
    # The installed uv comes first, so that none is downloaded.
    environment = {**os.environ, "PATH": f"{ROOT / '.uv' / 'bin'}:{os.environ['PATH']}"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=240)
    assert secret_values["DRIFTLOOP_TRAINER_API_KEY"] not in done.stdout + done.stderr
    return WorkflowRun(done.returncode, re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr))


def data_inputs(data: DataSelection) -> dict[str, str]:
    """Return the workflow's inputs for days of the base dataset."""
    return {"from": str(data.start), "to": str(data.base_end), "archive": "false"}


def requested_retrains(stack: Stack) -> list[RetrainRequested]:
    """Return all requested retrains."""
    return [
        event
        for event in reader.read_last(stack.kafka, stack.topics.retrain, 1_000)
        if isinstance(event, RetrainRequested)
    ]


def last_state(stack: Stack, run: WorkflowRun) -> ModelStateChanged:
    """Return the last state of the retrain that the summary of a run names."""
    retrain_id = run.row("retrain").strip("`")
    states = [e for e in reader.read_last(stack.kafka, stack.topics.models, 1_000) if isinstance(e, ModelStateChanged)]
    return [change for change in states if change.retrain_id == retrain_id][-1]


def test_workflows_read_exactly_the_documented_secrets_and_variables() -> None:
    variables_in_workflows = {
        (kind, name)
        for file in (ROOT / ".github" / "workflows").glob("*.yaml")
        for kind, name in re.findall(r"\b(vars|secrets)\.([A-Z_]+)", file.read_text())
    }
    page = (ROOT / "docs" / "workflows.md").read_text()
    secrets, variables = page.split("| secret |")[1].split("\n\n")[0], page.split("| variable |")[1].split("\n\n")[0]
    documented_variables = {
        (kind, name)
        for kind, table in (("secrets", secrets), ("vars", variables))
        for row in table.splitlines()[2:]
        for name in re.findall(r"`([A-Z_]{5,})`", row.split("|")[1])
    }
    assert variables_in_workflows == documented_variables


@pytest.mark.usefixtures("champion")
def test_rejected_version_is_a_warning_and_no_failure_of_the_job(act: Path, stack: Stack, tmp_path: Path) -> None:
    champion = stack.registry.champion()
    run = run_workflow(act, stack, tmp_path, {"reason": "a few days only", "wait": "true", **data_inputs(FEW_DAYS)})
    assert run.code == 0, run.log
    change = last_state(stack, run)
    assert (change.state, stack.registry.champion()) == ("rejected", champion)
    assert run.summary.startswith(f"## ⚠️ flights: rejected, version {change.version}\n\n{change.explanation}\n")
    assert "::warning title=⚠️ flights%3A rejected" in run.log
    assert run.row("rows") == "{0:,.0f} | {0:,.0f}".format(change.champion["rows"])


@pytest.mark.usefixtures("champion")
def test_driftloop_train_publishes_state_without_a_trainer(stack: Stack, tmp_path: Path) -> None:
    """Train in a command with the result that the trainer service has for the same request."""
    request = {"reason": "few days", "requested_by": "a runner", "data": FEW_DAYS.model_dump(mode="json")}
    champion, summary_file = stack.registry.champion(), tmp_path / "page.md"
    done = run_command(
        stack,
        "driftloop-train",
        *("--request", json.dumps(request), "--github-annotations", "--summary", str(summary_file), "--publish-state"),
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "::warning title=⚠️ flights%3A rejected" in done.stdout
    result = reader.read_last(stack.kafka, stack.topics.models, 1)[-1]
    assert isinstance(result, ModelStateChanged)
    assert (result.state, stack.registry.champion()) == ("rejected", champion)
    assert f"| dataset (MD5) | `{result.dataset_md5}` |" in summary_file.read_text()
    recorded = stack.registry.recorded_result(result.retrain_id)
    assert recorded is not None
    excluded = {"traceparent"}  # the publisher of the event has its own span
    assert recorded.model_dump(exclude=excluded) == result.model_dump(exclude=excluded)


@pytest.mark.usefixtures("champion")
def test_failed_retrain_fails_the_job(act: Path, stack: Stack, tmp_path: Path) -> None:
    days = {"from": "2014-06-01", "archive": "false"}
    run = run_workflow(act, stack, tmp_path, {"reason": "no labelled rows", "wait": "true", **days})
    assert run.code == 1
    assert run.summary.startswith(
        "## ❌ flights: failed\n\nInvalidTrainingData: labelled rows: 0 of 0, and 1,000 are needed"
    )
    assert "::error title=❌ flights%3A failed::InvalidTrainingData" in run.log
    assert "exit status 4" in run.log


@pytest.mark.usefixtures("champion")
def test_wrong_api_key_requests_no_retrain(act: Path, stack: Stack, tmp_path: Path) -> None:
    previous_retrains = requested_retrains(stack)
    key = {"DRIFTLOOP_TRAINER_API_KEY": "another key"}
    run = run_workflow(act, stack, tmp_path, {"reason": "with a wrong key", "wait": "true"}, key)
    assert run.code == 1
    assert run.summary.startswith("## not requested\n")
    assert "X-API-Key is missing or wrong (HTTP 401)" in run.summary
    assert "exit status 7" in run.log
    assert requested_retrains(stack) == previous_retrains


@pytest.mark.usefixtures("champion")
def test_dry_run_requests_no_retrain(act: Path, stack: Stack, tmp_path: Path) -> None:
    previous_retrains = requested_retrains(stack)
    run = run_workflow(act, stack, tmp_path, {"reason": "to see", "dry_run": "true", "last_rows": "5000"})
    assert run.code == 0, run.log
    assert "a retrain of flights would be requested" in run.summary
    assert run.row("data") == "the last 5,000 labelled rows"
    assert '"last_rows": 5000' in run.log
    assert requested_retrains(stack) == previous_retrains


@pytest.mark.usefixtures("champion")
def test_promotion_is_reported_with_its_metrics(act: Path, stack: Stack, tmp_path: Path) -> None:
    run = run_workflow(act, stack, tmp_path, {"reason": "it is | summer", "wait": "true", **data_inputs(SUMMER)})
    assert run.code == 0, run.log
    change = last_state(stack, run)
    assert (change.state, change.version) == ("promoted", stack.registry.champion())
    assert run.summary.startswith(f"## ✅ flights: promoted, version {change.version}\n\n{change.explanation}\n")
    assert f"::notice title=✅ flights%3A promoted, version {change.version}" in run.log.replace("%2C", ",")
    assert run.row("reason") == r"it is \| summer"
    assert run.row("requested by") == "octocat, run 1 of GitHub"
    assert run.row("data") == "from 2013-06-01, base dataset until before 2013-08-01, without the archive"
    pointer = dvc.pointer_for_version(stack.registry, str(change.version))
    assert run.row("dataset (MD5)") == f"`{dvc.parse_pointer(pointer).md5}`"
    assert run.row("see") == (
        f"[the version in MLflow](https://mlflow.example/#/models/flights/versions/{change.version})"
    )
    old, new = change.champion["roc_auc"], change.challenger["roc_auc"]
    assert run.row("ROC AUC") == f"{old:.4g} | {new:.4g}"
    assert requested_retrains(stack)[-1].requested_by == "octocat, run 1 of GitHub"


def test_driftloop_train_exits_with_6_when_registry_is_unavailable(stack: Stack) -> None:
    request = json.dumps({"reason": "registry unavailable", "data": {"archive": False}})
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(stack.environment, "DRIFTLOOP_REGISTRY__URI", "http://127.0.0.1:9")
        done = run_command(stack, "driftloop-train", "--request", request)
    assert done.returncode == 6, done.stdout + done.stderr
    assert "the registry is unavailable" in done.stderr
