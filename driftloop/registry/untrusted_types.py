"""What to do about a type in a model file that is not trusted, or whose package is missing."""

import sys
from collections.abc import Iterable, Mapping, Sequence
from importlib import import_module
from importlib.util import find_spec

from driftloop.registry.library_versions import LibraryVersion, mismatch_note, mismatches

SETTING = "DRIFTLOOP_REGISTRY__TRUSTED_TYPES"
# Extras of driftloop and of its services, by the package that a type is in.
EXTRAS = ("catboost", "lightgbm", "xgboost")
SCRIPT = "__main__"
OLD_LOSSES = "_loss"  # the module that scikit-learn's compiled losses named as theirs in 1.7 and earlier


def explain_untrusted(
    untrusted: Iterable[str], added_types: Sequence[str], versions: Mapping[str, LibraryVersion]
) -> str:
    """Return why a file with types that are not trusted is rejected, with the setting that would accept them.

    Args:
        untrusted: The types' full names.
        added_types: The types that the setting has already.
        versions: The versions of libraries that the file was saved with, and those of this process.
    """
    names = sorted(untrusted)
    if "scikit-learn" in mismatches(versions) and (gone := [name for name in names if _is_gone(name)]):
        return (
            f"the file contains types that this scikit-learn does not have: {', '.join(gone)}"
            f"{mismatch_note(versions)}: train the model again with the versions here, or install the others"
        )
    unsafe = [name for name in names if can_run_code(name)]
    others = [name for name in names if name not in unsafe]
    parts = [f"the file contains types that are not trusted: {', '.join(names)}"]
    if unsafe:
        parts.append(
            f"never trust {', '.join(unsafe)}, which can run code that the file chooses: save the model without it, "
            "and of a search only its best_estimator_"
        )
    if missing := sorted({name.split(".")[0] for name in others if not is_installed(name)}):
        parts.append(f"not installed here: {', '.join(map(install_hint, missing))}")
    if others and not unsafe:
        parts.append(
            "if you know that creating them runs no code that the file chooses, set for predictor, trainer and "
            f"commands alike {SETTING}={','.join([*added_types, *others])}"
        )
    return "; ".join(parts)


def explain_missing_package(module: str, versions: Mapping[str, LibraryVersion]) -> str:
    """Return why a file with a type of a module that cannot be imported is rejected, and what to install."""
    package = module.split(".", maxsplit=1)[0]
    saved = f" (saved with {package} {versions[package].saved})" if package in versions else ""
    return f"the file has types of {module}, which cannot be imported here{saved}: {install_hint(package)}"


def install_hint(package: str) -> str:
    """Return how to install a package."""
    if package == SCRIPT:
        return f"{SCRIPT}, the script or notebook that saved the model (move the type to a package)"
    if package in EXTRAS:
        return f"{package} (pip install 'driftloop[{package}]')"
    return f"{package} (install the package that provides it, for predictor and trainer alike)"


def is_installed(name: str) -> bool:
    """Return whether the package of a type is installed; nothing is imported."""
    package = name.split(".", maxsplit=1)[0]
    return package != SCRIPT and (package in sys.modules or find_spec(package) is not None)


def _is_gone(name: str) -> bool:
    """Return whether a type of another version of scikit-learn does not exist in this one."""
    module, _, attribute = name.rpartition(".")
    if module == OLD_LOSSES:
        return True
    if not module.startswith("sklearn."):
        return False
    try:
        return not hasattr(import_module(module), attribute)
    except ImportError:
        return True


def can_run_code(name: str) -> bool:
    """Return whether a type is of Python's library, or a distribution, whose ``__setstate__`` calls ``exec``."""
    return name.split(".", maxsplit=1)[0] in sys.stdlib_module_names - {SCRIPT} or name.startswith("scipy.stats.")
