"""The command starts where only what asks for retrains is installed."""

import subprocess
import sys

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


def test_commands_are_listed_without_the_libraries_of_other_installations() -> None:
    code = f"""
import sys
sys.modules.update(dict.fromkeys({HEAVY_MODULES!r}))  # None: importing them fails
from driftloop_cli.main import app
sys.argv = ["driftloop", "--help"]
app()
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "retrain" in done.stdout
