"""An environment for each peer, made once, with the model's own libraries in the versions that trained it."""

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / ".benchmarks"

MODEL_LIBRARIES = tuple(f"{name}=={version(name)}" for name in ("scikit-learn", "skops", "pandas", "numpy"))
PINS = {
    "mlflow": (f"mlflow=={version('mlflow')}", *MODEL_LIBRARIES),
    "mlserver": (
        *("mlserver==1.7.1", "mlserver-mlflow==1.7.1", f"mlflow=={version('mlflow')}", *MODEL_LIBRARIES),
        "uvloop==0.21.0",  # with later ones, which make no event loop unasked, MLServer's workers end at their start
    ),
    "bentoml": ("bentoml==1.4.40", *MODEL_LIBRARIES),
    # statsmodels is imported and not asked for
    "nannyml": ("nannyml==0.13.1", "statsmodels==0.14.5", f"pandas=={version('pandas')}"),
    "alibi_detect": ("alibi-detect==0.13.0", f"pyarrow=={version('pyarrow')}"),
    "islp": ("--no-deps", "islp==0.6.0"),  # for a file of data alone; it needs PyTorch to be imported
    "kserve": ("kserve==0.21.0",),  # its client, for the tests: it needs older CloudEvents than we do
}


class NoInstaller(Exception):
    """Says what is missing."""


def environment(peer: str) -> Path:
    """The folder of a peer's programs; everything is installed where that has not been done yet."""
    folder = FOLDER / peer
    stamp = folder / "installed"
    wanted = "\n".join(PINS[peer])
    if not stamp.exists() or stamp.read_text() != wanted:
        FOLDER.mkdir(exist_ok=True)
        (FOLDER / ".gitignore").write_text("*\n")
        uv = _uv()
        python = ROOT / ".venv" / "bin" / "python"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", str(python), str(folder)], check=True)
        subprocess.run([uv, "pip", "install", "--quiet", "--python", str(folder / "bin" / "python"), *PINS[peer]],
                       check=True)  # fmt: skip
        stamp.write_text(wanted)
    return folder / "bin"


def _uv() -> str:
    ours = ROOT / ".uv" / "bin" / "uv"
    found = shutil.which("uv") or (str(ours) if ours.exists() else None)
    if found is None:
        raise NoInstaller("uv is missing: run make setup, which installs one of our own")
    return found
