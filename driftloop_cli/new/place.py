"""Where a use case is written: a folder that Python can import from. Imports nothing that is slow."""

import keyword
from pathlib import Path
from typing import NamedTuple

from driftloop.errors import InvalidInput
from driftloop.setting_values import require_model_name


class Place(NamedTuple):
    """Where a use case is written."""

    folder: Path
    module: str
    """The folder's name for imports, such as ``usecases.loans``."""


def place_use_case(into: Path, name: str, *, overwrite: bool) -> Place:
    """Return where a use case of a name is written.

    Raises:
        InvalidInput: Python cannot import a module of this name or from this folder, or, without ``overwrite``, the
            use case exists already.
    """
    require_use_case_name(name)
    parts = into.parts
    if into.is_absolute() or not parts or not all(part.isidentifier() for part in parts):
        raise InvalidInput(f"--into {into} must be a path from here that Python can import, such as usecases")
    folder = into / name
    if not overwrite and folder.exists() and any(folder.iterdir()):
        raise InvalidInput(f"{folder} exists already: choose another name, or overwrite with --force")
    return Place(folder, ".".join([*parts, name]))


def require_use_case_name(name: str) -> None:
    """Check that a Python module can have a name.

    Raises:
        InvalidInput: It cannot; the message has a name that is similar.
    """
    if not name.isidentifier() or keyword.iskeyword(name) or not name.isascii():
        similar = (
            "".join(letter if letter.isascii() and letter.isalnum() else "_" for letter in name).strip("_").lower()
        )
        similar = f"use_case_{similar}" if not similar.isidentifier() or keyword.iskeyword(similar) else similar
        raise InvalidInput(
            f"{name!r} cannot be the name of a Python module: use letters, digits and _, as in {similar}"
        )
    try:
        require_model_name(name)
    except ValueError as error:
        raise InvalidInput(str(error)) from error
