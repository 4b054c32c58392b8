"""Write a use case as files: what a person would write, with a line for each choice."""

import json
from pathlib import Path
from string import Template

import pyarrow.parquet as pq

from driftloop.events import Label
from driftloop.storage.dvc import make_pointer
from driftloop_cli.new.column_kinds import ColumnChoice
from driftloop_cli.new.plan import UseCasePlan
from driftloop_cli.new.prose import LINE_LENGTH, in_prose
from driftloop_cli.new.readme import readme_values

TEMPLATES = Path(__file__).with_name("templates")
FEW_CLASSES = 3
ITERATIONS, ITERATIONS_OF_MANY_CLASSES = 150, 60  # each iteration grows a tree for each class


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
    rows.with_name(f"{rows.name}.dvc").write_text(make_pointer(rows))
    for path, text in render(plan, folder, module).items():
        (folder / path).write_text(text, encoding="utf-8")


def render(plan: UseCasePlan, folder: Path, module: str) -> dict[str, str]:
    """Return the texts of a use case's files, by their path in its folder."""
    options, target = plan.options, plan.target
    task = "regressor" if target.classes is None else "classifier"
    imports, first_version = _first_version(plan, module)
    values = {
        "name": options.name,
        "module": module,
        "folder": folder.as_posix(),
        "target": in_prose(options.target),
        **readme_values(plan),
        "file": options.file.name,
        "imports": imports,
        "features": "\n".join(f"    {_feature_line(choice)}" for choice in plan.columns),
        "quoted_target": quote(options.target),
        "quoted_name": quote(options.name),
        "quoted_time": quote(options.time),
        "quoted_timezone": quote(plan.timezone),
        "quoted_metric": quote(plan.metric.name),
        "classes": _classes(target.classes),
        "first_version": first_version,
        "task": task,
        "estimator": f"HistGradientBoosting{task.capitalize()}",
        "iterations": ITERATIONS if len(target.classes or ()) <= FEW_CLASSES else ITERATIONS_OF_MANY_CLASSES,
    }
    files = {
        "__init__.py": "init.py.txt",
        "usecase.py": "usecase.py.txt",
        "pipeline.py": "pipeline.py.txt",
        f"tests/test_{options.name}.py": "test.py.txt",
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


def _first_version(plan: UseCasePlan, module: str) -> tuple[str, str]:
    """Return the imports of the use case's module, and its line about the first version."""
    end = plan.first_version.base_end
    standard = ["from functools import partial", "from pathlib import Path"]
    ours = [
        "from driftloop.drift.comparable_columns import FeatureKind",
        "from driftloop.usecase import UseCase",
        f"from {module}.pipeline import make_pipeline",
    ]
    line = ""
    if end is not None:
        standard.insert(0, "from datetime import date")
        ours.append("from driftloop.events import DataSelection")
        line = (
            "    # Later rows are for streaming; without this line, the first version is trained on all of them.\n"
            f"    first_version=DataSelection(base_end=date({end.year}, {end.month}, {end.day})),\n"
        )
    return "\n\n".join(["\n".join(standard), "import pandas as pd", "\n".join(sorted(ours))]), line
