"""The command starts where only what asks for retrains is installed."""

import subprocess
import sys

import pytest

from driftloop.exit_codes import ExitCode

HEAVY_MODULES = (
    "numpy",
    "pandas",
    "pyarrow",
    "duckdb",
    "scipy",
    "sklearn",
    "skops",
    "mlflow",
    "gcsfs",
    "dvc",
    "evidently",
)


def run_without_libraries(*arguments: str) -> "subprocess.CompletedProcess[str]":
    code = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY_MODULES!r}))  # None: importing them fails
from driftloop_cli.main import app
sys.argv = ["driftloop", *{arguments!r}]
app()
"""
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)


def test_commands_are_listed_without_the_libraries_of_other_installations() -> None:
    done = run_without_libraries("--help")
    assert done.returncode == 0, done.stderr
    assert "retrain" in done.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ("new", "wines", "--from", __file__, "--target", "grade", "--time", "at"),
        ("score", __file__, "out.parquet"),
        ("adopt", "wines", "--data", __file__),
        ("explain", "order-1"),
        ("rollback",),
    ],
    ids=lambda arguments: arguments[0],
)
def test_command_names_what_to_install_for_a_missing_library(arguments: tuple[str, ...]) -> None:
    done = run_without_libraries(*arguments)
    assert done.returncode == ExitCode.ERROR
    assert "pip install 'driftloop[cli]'" in done.stderr
    assert "Traceback" not in done.stderr
