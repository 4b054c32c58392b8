"""Write a use case as files: what a person would write, with a line for each choice."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from string import Template
from textwrap import fill
from typing import Any

import pyarrow.parquet as pq

from driftloop.events import Label
from driftloop.storage.dvc import make_pointer
from driftloop_cli.new.column_kinds import ColumnChoice
from driftloop_cli.new.plan import UseCasePlan

LINE_LENGTH = 120
TEMPLATES = Path(__file__).with_name("templates")
EXAMPLE_ROWS = 50  # latest rows, of which the one with the fewest missing values is the example
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
    options, target, first = plan.options, plan.target, plan.first_version
    task = "regressor" if target.classes is None else "classifier"
    imports, first_version = _first_version(plan, module)
    values = {
        "name": options.name,
        "module": module,
        "folder": folder.as_posix(),
        "file": options.file.name,
        "imports": imports,
        "features": "\n".join(f"    {_feature_line(choice)}" for choice in plan.columns),
        "target": _in_prose(options.target),
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
        "summary": _summary(plan),
        "first_rows": "all rows" if first.base_end is None else f"the {first.rows:,} rows before {first.base_end}",
        "exports": "".join(f"export {variable}={value}\n" for variable, value in first.settings.items()),
        "notes": "".join(f"{_wrap(f'- {note}', '  ')}\n" for note in plan.notes) + "\n" if plan.notes else "",
        "example": _example(plan),
        "outcome": json.dumps(target.classes[-1] if target.classes else plan.facts[options.target].maximum),
        "stream": _stream(plan),
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


def _summary(plan: UseCasePlan) -> str:
    """Return where the rows are from, what is predicted, and how versions are compared, for the README."""
    first, target = plan.first_version, _in_prose(plan.options.target)
    return _wrap(
        f"Made by `driftloop new` from `{plan.options.file.name}` ({plan.format}): {plan.table.num_rows:,} rows from "
        f"{first.first_day} to {first.end - timedelta(days=1)}. The target `{target}`: {plan.target.reason}. Versions "
        f"are compared by `{plan.metric.name}`: {plan.metric.reason}."
    )


def _wrap(text: str, indent: str = "") -> str:
    return fill(text, LINE_LENGTH, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False)


def _stream(plan: UseCasePlan) -> str:
    """Return how to stream the rows that the first version has not seen, and to retrain on them."""
    first = plan.first_version
    if first.base_end is None:
        return (
            "All rows are in the first version: drift is judged, and a retrain is possible, once new rows have been "
            "sent.\nThe addresses of pages and APIs are printed at the start."
        )
    return f"""Stream the rows from {first.base_end} on, each outcome a day after its prediction; verdicts are on
<http://localhost:8001>. Then retrain on what was streamed:

```
.venv/bin/driftloop-producer --from {first.base_end} --to {first.end} --rate 200
.venv/bin/driftloop status
.venv/bin/driftloop retrain --reason "rows of later days" --to {first.base_end} --wait
```"""


def _example(plan: UseCasePlan) -> str:
    """Return a row as JSON for a request, in lines that are not too long."""
    latest = plan.table.select(list(plan.features)).slice(max(plan.table.num_rows - EXAMPLE_ROWS, 0)).to_pylist()
    row = min(reversed(latest), key=lambda row: sum(value is None for value in row.values()))
    cells = [f"{json.dumps(name, ensure_ascii=False)}: {_json(value)}" for name, value in row.items()]
    lines = [""]
    for cell in cells:
        if len(lines[-1]) + len(cell) > LINE_LENGTH - 10:
            lines.append("")
        lines[-1] += f"{cell}, "
    text = "\n     ".join(line.rstrip() for line in lines).rstrip(",")
    return "{" + text.replace("'", "'\\''") + "}"


def _json(value: Any) -> str:
    return json.dumps(value.isoformat() if isinstance(value, datetime) else value, ensure_ascii=False)


def _in_prose(name: str) -> str:
    """Return a column's name for a docstring and for Markdown, which end at quotes and backquotes."""
    return name.replace("\\", "/").replace('"', "'").replace("`", "'")
