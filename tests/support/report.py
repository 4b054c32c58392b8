"""Options and output of benchmarks: progress, tables, and a JSON file for other programs."""

import argparse
import json
import os
import platform
import time
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

MIN_FIXED_POINT = 0.001  # smaller figures are printed with two significant digits
LIBRARIES = ("scikit-learn", "mlflow", "skops", "pandas", "numpy", "fastapi", "uvicorn", "pydantic")

console = Console(highlight=False, width=None if os.isatty(1) else 140)
_started_at = time.monotonic()


def create_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser with the options of every benchmark."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="short runs: show that it works, not how fast it is")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write figures and details to this file")
    return parser


def log(line: str) -> None:
    """Print a line of progress."""
    console.print(f"{time.monotonic() - _started_at:6.0f} s  {line}")


def warn(line: str) -> None:
    """Print a highlighted warning."""
    console.print(f"[bold red]{line}[/]")


def create_table(title: str, *columns: str) -> Table:
    """Return a table whose first column is text and whose other columns are numbers."""
    table = Table(title=title, title_justify="left")
    for number, column in enumerate(columns):
        table.add_column(column, justify="right" if number else "left")
    return table


def write_results(
    name: str, figures: Mapping[str, float], goals: Mapping[str, str], details: Mapping[str, Any], file: Path | None
) -> None:
    """Print the figures with their goals; write them with the details to ``file``, if there is one."""
    table = create_table(f"{name}: figures", "figure", "value", "goal")
    for figure, value in figures.items():
        formatted = (
            f"{value:,.3f}".rstrip("0").rstrip(".") if value == 0 or abs(value) >= MIN_FIXED_POINT else f"{value:.2g}"
        )
        table.add_row(figure, formatted, goals.get(figure, ""))
    console.print(table)
    if file is not None:
        machine = {"processors": os.cpu_count(), "system": platform.system(), "python": platform.python_version()}
        libraries = {library: version(library) for library in LIBRARIES}
        content = {"figures": figures, **details, "machine": machine, "libraries": libraries}
        file.write_text(json.dumps(content, indent=2) + "\n")
        log(f"results written to {file}")
