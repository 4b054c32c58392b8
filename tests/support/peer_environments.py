"""One virtual environment per peer, created once, with the model's libraries in the versions that trained it."""

import shutil
import subprocess
from importlib.metadata import version
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
ENVIRONMENTS_DIR = ROOT / ".benchmarks"

MODEL_LIBRARIES = tuple(f"{name}=={version(name)}" for name in ("scikit-learn", "skops", "pandas", "numpy"))
PINNED_PACKAGES = {
    "mlflow": (f"mlflow=={version('mlflow')}", *MODEL_LIBRARIES),
    "mlserver": (
        *("mlserver==1.7.1", "mlserver-mlflow==1.7.1", f"mlflow=={version('mlflow')}", *MODEL_LIBRARIES),
        "uvloop==0.21.0",  # later ones do not create an event loop implicitly, and MLServer's workers fail
    ),
    "bentoml": ("bentoml==1.4.40", *MODEL_LIBRARIES),
    # statsmodels is imported by nannyml, but not declared
    "nannyml": ("nannyml==0.13.1", "statsmodels==0.14.5", f"pandas=={version('pandas')}"),
    "alibi_detect": ("alibi-detect==0.13.0", f"pyarrow=={version('pyarrow')}"),
    "river": ("river==0.26.1",),
    "islp": ("--no-deps", "islp==0.6.0"),  # only for its data file; importing it needs PyTorch
    "kserve": ("kserve==0.21.0",),  # its client, for tests; it needs an older CloudEvents than driftloop
}


class UvNotInstalled(Exception):
    """The installer uv is missing."""


def ensure_environment(peer: str) -> Path:
    """Install a peer's environment unless it is installed already; return the folder of its programs."""
    folder = ENVIRONMENTS_DIR / peer
    stamp = folder / "installed"
    requirements = "\n".join(PINNED_PACKAGES[peer])
    if not stamp.exists() or stamp.read_text() != requirements:
        ENVIRONMENTS_DIR.mkdir(exist_ok=True)
        (ENVIRONMENTS_DIR / ".gitignore").write_text("*\n")
        uv, python = _find_uv(), folder / "bin" / "python"
        base_python = ROOT / ".venv" / "bin" / "python"
        subprocess.run([uv, "venv", "--quiet", "--clear", "--python", str(base_python), str(folder)], check=True)
        command = [uv, "pip", "install", "--quiet", "--python", str(python), *PINNED_PACKAGES[peer]]
        subprocess.run(command, check=True)
        stamp.write_text(requirements)
    return folder / "bin"


def _find_uv() -> str:
    local = ROOT / ".uv" / "bin" / "uv"
    path = shutil.which("uv") or (str(local) if local.exists() else None)
    if path is None:
        raise UvNotInstalled("uv is not installed: run `make setup`, which installs it into .uv")
    return path
