"""Write a use case as files: what a person would write, with a line for each choice."""

import json
from collections.abc import Mapping
from pathlib import Path
from string import Template

import pyarrow.parquet as pq

from driftloop.events import Label
from driftloop.storage.dvc import write_pointer
from driftloop_cli.new.column_kinds import ColumnChoice
from driftloop_cli.new.plan import UseCasePlan

LINE_LENGTH = 120
TEMPLATES = Path(__file__).with_name("templates")


def write_use_case(plan: UseCasePlan, folder: Path, module: str) -> None:
    """Write the files of a use case.

    Args:
        plan: All choices.
        folder: The use case's own folder.
        module: The folder's name for imports, such as ``usecases.loans``.
    """
    (folder / "tests").mkdir(parents=True, exist_ok=True)
    rows = folder / f"{plan.options.name}.parquet"
    pq.write_table(plan.table, rows, compression="zstd")
    rows.with_name(f"{rows.name}.dvc").write_text(write_pointer(rows))
    for path, text in render(plan, module).items():
        (folder / path).write_text(text, encoding="utf-8")


def render(plan: UseCasePlan, module: str) -> dict[str, str]:
    """Return the texts of a use case's files, by their path in its folder."""
    name, target = plan.options.name, plan.options.target
    values = {
        "name": name,
        "module": module,
        "target": target,
        "time": plan.options.time,
        "file": plan.options.file.name,
        "quoted_name": quote(name),
        "quoted_target": quote(target),
        "quoted_time": quote(plan.options.time),
        "quoted_timezone": quote(plan.timezone),
        "features": "\n".join(f"    {_feature_line(choice)}" for choice in plan.columns),
        "classes": _classes(plan.target.classes),
        "metric": quote(plan.metric.name),
        "metric_reason": plan.metric.reason,
        "task": "classifier" if plan.target.classes else "regressor",
        "estimator": f"HistGradientBoosting{'Classifier' if plan.target.classes else 'Regressor'}",
        **_first_version(plan),
        **_readme_values(plan, module),
    }
    files = {
        "__init__.py": "init.py.txt",
        "usecase.py": "usecase.py.txt",
        "pipeline.py": "pipeline.py.txt",
        f"tests/test_{name}.py": "test.py.txt",
        "README.md": "README.md.txt",
        ".gitignore": "gitignore.txt",
    }
    return {path: Template((TEMPLATES / file).read_text()).substitute(values) for path, file in files.items()}


def quote(value: Label) -> str:
    """Return a value as a literal of Python, with double quotes around texts."""
    return json.dumps(value, ensure_ascii=False) if isinstance(value, str) else repr(value)


def _feature_line(choice: ColumnChoice) -> str:
    """Return the line of a column: of a feature, or of one that becomes a feature without the leading #."""
    if choice.kind is None:
        return _cut(f"# {quote(choice.name)} cannot be a feature: {choice.reason}")
    line = f"{quote(choice.name)}: {quote(choice.kind)},"
    if choice.left_out:
        return _cut(f"# {line}  # left out, {choice.left_out}: {choice.reason}")
    return _cut(f"{line}  # {choice.reason}") if ":" in choice.reason or ";" in choice.reason else line


def _cut(line: str) -> str:
    """Return a line that fits into the file with its indentation; comments are cut."""
    line = line.replace("\n", " ")
    room = LINE_LENGTH - 4
    return line if len(line) <= room or " # " not in line else f"{line[: room - 1]}…"


def _classes(classes: tuple[Label, ...] | None) -> str:
    if classes is None:
        return "classes=None,  # the target is a number"
    line = f"classes=({', '.join(map(quote, classes))}),"
    if len(classes) == 2:
        comment = "  # predictions are the probability of the second"
        return line + comment if len(line) + len(comment) <= LINE_LENGTH - 4 else line
    if len(line) <= LINE_LENGTH - 4:
        return line
    return "\n".join(["classes=(", *(f"        {quote(label)}," for label in classes), "    ),"])


def _first_version(plan: UseCasePlan) -> dict[str, str]:
    """Return the use case's line about its first version, and the imports."""
    end = plan.first_version.base_end
    standard = ["from functools import partial", "from pathlib import Path"]
    ours = ["from driftloop.drift.comparable_columns import FeatureKind, UseCase"]
    line = ""
    if end is not None:
        standard.insert(0, "from datetime import date")
        ours.insert(0, "from driftloop.events import DataSelection")
        line = (
            f"    # The rows from that day on are for streaming; without this line the first version learns from all.\n"
            f"    first_version=DataSelection(base_end=date({end.year}, {end.month}, {end.day})),\n"
        )
    pipeline = f"from {plan.module}.pipeline import make_pipeline"
    imports = ["\n".join(standard), "import pandas as pd", "\n".join(sorted([*ours, pipeline]))]
    return {"first_version": line, "imports": "\n\n".join(imports)}
