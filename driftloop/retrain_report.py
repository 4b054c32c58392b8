"""Report a retrain outside of the terminal: a Markdown summary, and an annotation for the page of a GitHub run.

Reasons and names are text from other people: it is escaped, so that it can neither format the page nor run a command.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path
from urllib.parse import quote

from driftloop.evaluation.metric_names import metric_label
from driftloop.events import DataSelection, ModelStateChanged, RetrainRequest
from driftloop.exit_codes import ExitCode

EXIT_CODES = {"promoted": ExitCode.SUCCESS, "rejected": ExitCode.RETRAIN_REJECTED}
EMOJI = {"promoted": "✅", "rejected": "⚠️", "failed": "❌"}
ANNOTATION_LEVELS = {"promoted": "notice", "rejected": "warning"}
INTERVAL_KEYS = {"gain_low", "gain_high"}  # not rows of their own: they are shown behind the gain


@dataclass(frozen=True)
class RetrainReport:
    """Writes how a retrain ended, or why it was not requested, to a summary file and to GitHub's log."""

    request: RetrainRequest
    summary_file: Path | None = None
    """The file that the summary is appended to, such as GitHub's job summary."""
    github_annotations: bool = False
    """Whether to print annotations for GitHub. A rejected version then is a warning with exit code 0."""
    mlflow_ui_url: str | None = None
    """The URL of MLflow in a browser, for a link to the version."""

    def write_result(self, state: ModelStateChanged) -> ExitCode:
        """Write a retrain's final state and return the command's exit code."""
        links = {}
        if self.mlflow_ui_url and state.version:
            links["the version in MLflow"] = (
                f"{self.mlflow_ui_url.rstrip('/')}/#/models/{quote(state.model, safe='')}/versions/{state.version}"
            )
        self._append(title(state), state.explanation, state, links)
        if self.github_annotations:
            print(annotation(state), flush=True)
            if state.state == "rejected":
                return ExitCode.SUCCESS
        return EXIT_CODES.get(state.state, ExitCode.RETRAIN_FAILED)

    def write_message(self, title: str, text: str, level: str = "notice") -> None:
        """Write anything but a final state; ``level`` is one of GitHub's: notice, warning or error."""
        self._append(title, text)
        if self.github_annotations:
            print(workflow_command(level, title, text), flush=True)

    def _append(
        self, title: str, text: str, state: ModelStateChanged | None = None, links: Mapping[str, str] = {}
    ) -> None:
        if self.summary_file is not None:
            with self.summary_file.open("a") as file:
                file.write(render_summary(title, text, self.request, state, links))


def render_summary(
    title: str,
    text: str,
    request: RetrainRequest,
    state: ModelStateChanged | None = None,
    links: Mapping[str, str] = {},
) -> str:
    """Return the request and what has come of it, as Markdown.

    Args:
        title: The heading.
        text: The paragraph below the heading.
        request: What was requested.
        state: The retrain's last state, if it has one.
        links: URLs by the text that is shown for them.
    """
    details = {
        "reason": escape_markdown(request.reason),
        "requested by": escape_markdown(request.requested_by),
        "data": describe_selection(request.data),
    }
    if state:
        details["retrain"] = f"`{state.retrain_id}`"
        if state.version:
            details["version"] = escape_markdown(state.version)
        if state.dataset_md5:
            details["dataset (MD5)"] = f"`{state.dataset_md5}`"
        if state.trained_through:
            details["trained through"] = f"{state.trained_through.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if links:
        details["see"] = ", ".join(f"[{name}]({url})" for name, url in links.items())
    lines = [f"## {title}", "", escape_markdown(text), "", "| | |", "|---|---|"]
    lines += [f"| {name} | {value} |" for name, value in details.items()]
    if state and (state.champion or state.challenger):
        lines += ["", *_metrics_table(state)]
    return "\n".join(lines) + "\n\n"


def title(state: ModelStateChanged) -> str:
    """Return a heading for a retrain's final state."""
    version = f", version {state.version}" if state.version else ""
    return f"{EMOJI.get(state.state, '')} {state.model}: {state.state}{version}".strip()


def annotation(state: ModelStateChanged) -> str:
    """Return the annotation of a retrain's final state; a rejected version is a warning, no error."""
    return workflow_command(ANNOTATION_LEVELS.get(state.state, "error"), title(state), state.explanation)


def workflow_command(level: str, title: str, message: str) -> str:
    """Return a workflow command that GitHub reads from the log; ``level`` is notice, warning or error."""
    escaped_message = message.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    escaped_title = (
        title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
    )
    return f"::{level} title={escaped_title}::{escaped_message}"


def describe_selection(data: DataSelection) -> str:
    """Return a selection of rows in words."""
    parts = [
        f"from {data.start}" if data.start else "",
        f"base dataset until before {data.base_end}" if data.base_end else "",
        f"without {', '.join(map(str, data.exclude_days))}" if data.exclude_days else "",
        f"the last {data.last_rows:,} labelled rows" if data.last_rows else "",
        "" if data.archive else "without the archive",
    ]
    return ", ".join(part for part in parts if part) or "all"


def escape_markdown(text: str) -> str:
    """Return text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", " ".join(text.split()))


def _metrics_table(state: ModelStateChanged) -> list[str]:
    names = [name for name in dict.fromkeys([*state.champion, *state.challenger]) if name not in INTERVAL_KEYS]
    rows = [
        f"| {metric_label(name)} | {_number(state.champion.get(name))} "
        f"| {_number(state.challenger.get(name))}{_interval(state.challenger) if name == 'gain' else ''} |"
        for name in names
    ]
    return ["| on the holdout | champion | challenger |", "|---|---:|---:|", *rows]


def _interval(challenger: Mapping[str, float]) -> str:
    if not challenger.keys() >= INTERVAL_KEYS:
        return ""
    return f" [{_number(challenger['gain_low'])}, {_number(challenger['gain_high'])}]"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
