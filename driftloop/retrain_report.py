"""What is said of a retrain away from the terminal: a page in Markdown, and a line for the page of a GitHub run.

Reasons and names are other people's words: they are shown, and format nothing.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC
from pathlib import Path

from driftloop.events import DataSelection, ModelChange, Wish

EXIT = {"promoted": 0, "rejected": 3, "failed": 4}
"""The exit codes of commands that wait for a retrain's end."""
MARKS = {"promoted": "✅", "rejected": "⚠️", "failed": "❌"}
LEVELS = {"promoted": "notice", "rejected": "warning"}
BOUNDS = {"gain_low", "gain_high"}  # are shown beside the gain
NAMES = {"roc_auc": "ROC AUC", "rmse": "RMSE", "brier": "Brier score"}


@dataclass(frozen=True)
class Report:
    """Tells one retrain's end."""

    wish: Wish
    file: Path | None = None
    """What the page is appended to, such as GitHub's job summary."""
    annotates: bool = False
    """Whether the line for GitHub is printed; a rejected version is then no error."""
    mlflow: str | None = None
    """Where people open MLflow."""

    def ended(self, change: ModelChange) -> int:
        """Tells a final state; returns the command's exit code."""
        links = {}
        if self.mlflow and change.version:
            links["the version in MLflow"] = (
                f"{self.mlflow.rstrip('/')}/#/models/{change.model}/versions/{change.version}"
            )
        self._write(title(change), change.why, change, links)
        if self.annotates:
            print(annotation(change), flush=True)
            if change.state == "rejected":
                return 0
        return EXIT.get(change.state, EXIT["failed"])

    def told(self, title: str, why: str, level: str = "notice") -> None:
        """Tells whatever else has come of it; ``level`` is one of GitHub's."""
        self._write(title, why)
        if self.annotates:
            print(command(level, title, why), flush=True)

    def _write(self, title: str, why: str, change: ModelChange | None = None, links: Mapping[str, str] = {}) -> None:
        if self.file is not None:
            with self.file.open("a") as file:
                file.write(page(title, why, self.wish, change, links))


def page(title: str, why: str, wish: Wish, change: ModelChange | None = None, links: Mapping[str, str] = {}) -> str:
    """What was asked for and what has come of it, in Markdown.

    ``change`` is the retrain's last state, where it has one; ``links`` are addresses by what they lead to.
    """
    facts = {"reason": plain(wish.reason), "asked by": plain(wish.asked_by), "data": selected(wish.data)}
    if change:
        facts["retrain"] = f"`{change.retrain_id}`"
        if change.version:
            facts["version"] = plain(change.version)
        if change.dataset:
            facts["dataset version (md5)"] = f"`{change.dataset}`"
        if change.learned_until:
            facts["has learned up to"] = f"{change.learned_until.astimezone(UTC):%Y-%m-%d %H:%M} UTC"
    if links:
        facts["see"] = ", ".join(f"[{name}]({url})" for name, url in links.items())
    lines = [f"## {title}", "", plain(why), "", "| | |", "|---|---|", *(f"| {k} | {v} |" for k, v in facts.items())]
    if change and (change.champion or change.challenger):
        lines += ["", *_figures(change)]
    return "\n".join(lines) + "\n\n"


def title(change: ModelChange) -> str:
    """How it ended, in a few words."""
    version = f", version {change.version}" if change.version else ""
    return f"{MARKS.get(change.state, '')} {change.model}: {change.state}{version}".strip()


def annotation(change: ModelChange) -> str:
    """The line by which a step tells GitHub how a retrain ended: a version that is rejected is no error."""
    return command(LEVELS.get(change.state, "error"), title(change), change.why)


def command(level: str, title: str, words: str) -> str:
    """A workflow command of GitHub: ``notice``, ``warning`` or ``error``."""
    message = words.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A")
    name = title.replace("%", "%25").replace("\r", "%0D").replace("\n", "%0A").replace(":", "%3A").replace(",", "%2C")
    return f"::{level} title={name}::{message}"


def selected(data: DataSelection) -> str:
    """A selection in words."""
    parts = [
        f"from {data.start}" if data.start else "",
        f"the base dataset to before {data.end}" if data.end else "",
        f"without {', '.join(map(str, data.without_days))}" if data.without_days else "",
        f"the last {data.last_rows:,} labelled rows" if data.last_rows else "",
        "" if data.archive else "without the archive",
    ]
    return ", ".join(part for part in parts if part) or "all"


def plain(text: str) -> str:
    """Text that Markdown shows as it is, in one line."""
    return re.sub(r"([\\`*_\[\]<>|~&#])", r"\\\1", " ".join(text.split()))


def _figures(change: ModelChange) -> list[str]:
    names = [name for name in dict.fromkeys([*change.champion, *change.challenger]) if name not in BOUNDS]
    rows = [
        f"| {NAMES.get(name, name.replace('_', ' '))} | {_number(change.champion.get(name))} "
        f"| {_number(change.challenger.get(name))}{_interval(change.challenger) if name == 'gain' else ''} |"
        for name in names
    ]
    return ["| on the held-out rows | champion | challenger |", "|---|---:|---:|", *rows]


def _interval(challenger: Mapping[str, float]) -> str:
    if not challenger.keys() >= BOUNDS:
        return ""
    return f" [{_number(challenger['gain_low'])}, {_number(challenger['gain_high'])}]"


def _number(value: float | None) -> str:
    if value is None:
        return ""
    return f"{value:,.0f}" if value.is_integer() else f"{value:.4g}"
